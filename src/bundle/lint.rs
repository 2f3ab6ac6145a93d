//! What a script must not do if every server is to take it.
//!
//! Some servers look at the text before they run it: they want keys written as `KEYS[1]` and commands as literals (Tair),
//! at least one key (ElastiCache Serverless), no first line with `#!` (Redis 6.2). Others replicate scripts by running
//! them again, so that nothing random may be read.

use super::Script;

/// The longest script: what every server and every proxy takes.
const LONGEST: usize = 32 << 10;
const FORBIDDEN: [&str; 12] = [
    "math.random",
    "RANDOMKEY",
    "SRANDMEMBER",
    "os.",
    "loadstring",
    "setfenv",
    "getfenv",
    "newproxy",
    "print(",
    "_G",
    "cjson",
    "replicate_commands",
];

impl Script {
    /// Everything in this script that some server would refuse, or that would make it differ from server to server; in
    /// words that follow its name.
    pub fn unportable(&self) -> Vec<String> {
        unportable(self.source)
    }
}

fn unportable(source: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(source) else { return vec!["is not UTF-8".to_owned()] };
    let mut problems = file(text);
    let code = code(text);
    problems.extend(calls(&code));
    problems.extend(keys(&code));
    problems.extend(globals(&code));
    let forbidden = FORBIDDEN.iter().filter(|word| code.contains(**word));
    problems.extend(forbidden.map(|word| format!("uses {}", word.trim_end_matches('('))));
    problems
}

/// The file as a whole.
fn file(text: &str) -> Vec<String> {
    let rules = [
        (text.len() > LONGEST, "is longer than 32 KiB"),
        (!text.is_ascii(), "is not ASCII"),
        (text.contains(['\r', '\t']), "has a CR or a tab"),
        (text.starts_with("#!"), "has a shebang"),
        (!text.ends_with('\n') || text.ends_with("\n\n"), "does not end with one newline"),
        (text.lines().any(|line| line.trim_end() != line), "has a line that ends with spaces"),
    ];
    rules.iter().filter(|(broken, _)| *broken).map(|(_, problem)| (*problem).to_owned()).collect()
}

/// What is behind the header, without comments.
fn code(text: &str) -> String {
    let code = text.split_once("]]\n").map_or(text, |(_, code)| code);
    code.lines().filter(|line| !line.trim_start().starts_with("--")).map(|line| format!("{line}\n")).collect()
}

/// Commands are literals in upper case, and their key is `KEYS[1]`.
fn calls(code: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let calls = ["redis.call(", "redis.pcall("];
    for (at, call) in calls.iter().flat_map(|call| code.match_indices(call)) {
        let arguments = code[at + call.len()..].lines().next().unwrap_or_default();
        match arguments.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            None => problems.push(format!("calls a command that is not literal: {arguments}")),
            Some((name, rest)) => {
                let literal = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase());
                let keyed = rest.starts_with(", KEYS[1]") || matches!(name, "TIME" | "PUBLISH");
                if !literal || !keyed {
                    problems.push(format!("calls {name}{rest}, not a literal command on KEYS[1]"));
                }
            }
        }
    }
    if ["redis.call", "redis.pcall"].iter().any(|name| code.contains(&format!("= {name}\n"))) {
        problems.push("gives redis.call another name".to_owned());
    }
    problems
}

fn keys(code: &str) -> Option<String> {
    let mut others = code.match_indices("KEYS[").filter_map(|(at, _)| code[at + 5..].split(']').next());
    others.find(|key| *key != "1").map(|key| format!("uses KEYS[{key}]"))
}

/// Names that are assigned to without having been declared with `local`.
fn globals(code: &str) -> Vec<String> {
    let lines = || code.lines().map(str::trim_start);
    let declared = |name: &str| {
        lines().any(|line| {
            let local = line.strip_prefix("local ").map(|rest| rest.split(" = ").next().unwrap_or(rest));
            local.is_some_and(|names| names.split(", ").any(|declared| declared == name))
                || line.contains("local function") && line.contains(&format!("({name}, "))
        })
    };
    let mut problems = Vec::new();
    for line in lines() {
        if line.starts_with("function ") {
            problems.push(format!("defines a global: {line}"));
        }
        let Some((names, _)) = line.split_once(" = ") else { continue };
        let assigns = names.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_, ".contains(&byte));
        if assigns && !["local ", "if ", "for "].iter().any(|word| names.starts_with(word)) {
            let unknown = names.split(", ").filter(|name| !declared(name));
            problems.extend(unknown.map(|name| format!("assigns the global {name}")));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_found(code: &str, problem: &str) {
        assert_eq!(unportable(code.as_bytes()), [problem]);
    }

    #[test]
    fn shipped_scripts_are_portable() {
        for script in super::super::embedded().unwrap().scripts() {
            assert_eq!(script.unportable(), [""; 0], "{}", script.name());
        }
    }

    #[test]
    fn what_some_server_refuses_is_found() {
        assert_found("#!lua\nreturn 1\n", "has a shebang");
        assert_found("return 1", "does not end with one newline");
        assert_found("return 1\n\n", "does not end with one newline");
        assert_found("return 1\r\n", "has a CR or a tab");
        assert_found("return 1 \nreturn 2\n", "has a line that ends with spaces");
        assert_found("return redis.call('GET', key)\n", "calls GET, key), not a literal command on KEYS[1]");
        assert_found("return redis.call('get', KEYS[1])\n", "calls get, KEYS[1]), not a literal command on KEYS[1]");
        assert_found("return redis.call(ARGV[1])\n", "calls a command that is not literal: ARGV[1])");
        assert_found("local call = redis.call\n", "gives redis.call another name");
        assert_found("return redis.call('GET', KEYS[1], KEYS[2])\n", "uses KEYS[2]");
        assert_found("total = 1\n", "assigns the global total");
        assert_found("function f()\nend\n", "defines a global: function f()");
        assert_found("return math.random()\n", "uses math.random");
        assert_found(&format!("return '{}'\n", "x".repeat(LONGEST)), "is longer than 32 KiB");
        assert_eq!(unportable(b"\xff"), ["is not UTF-8"]);
    }
}
