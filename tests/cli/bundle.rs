//! Verbs about the scripts: load, status, verify, scripts, show, export.

use std::{fs, io::Write, process::Stdio};

use redlatch::bundle::embedded;

use super::{Cli, answer, assert_fails, folder, product};
use crate::support::{Raw, Server};

fn table(state: &str) -> String {
    let mut text = format!("{:<22}  {:<40}  STATE\n", "SCRIPT", "DIGEST");
    for script in embedded().unwrap().scripts() {
        let title = format!("{} v{}", script.name(), script.version());
        text += &format!("{title:<22}  {}  {state}\n", script.digest());
    }
    text
}

fn count() -> usize {
    embedded().unwrap().scripts().len()
}

fn sha1sum(bytes: &[u8]) -> String {
    let mut process = std::process::Command::new("sha1sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha1sum starts");
    process.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(process.wait_with_output().unwrap().stdout).unwrap()[..40].to_owned()
}

#[test]
fn load_loads_what_is_missing_and_then_has_nothing_to_do() {
    let server = Server::start(&[]).unwrap();
    let (node, count) = (server.socket().display().to_string(), count());
    let load = || Cli::on(&server, &["load"]).answer();
    assert_eq!(load(), answer(0, &format!("{}{count} loaded on {node}\n", table("loaded")), ""));
    assert_eq!(load(), answer(0, &format!("nothing to do: all {count} scripts are on {node}\n"), ""));
}

#[test]
fn load_repairs_a_single_missing_script_and_leaves_the_others() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    let scripts = embedded().unwrap().scripts();
    for script in &scripts[1..] {
        raw.run(&[b"SCRIPT", b"LOAD", script.source()]).unwrap();
    }
    let text = Cli::on(&server, &["load", "--format", "json"]).must();
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["data"]["loaded"], 1);
    assert_eq!(object["data"]["scripts"][0]["state"], "loaded");
    assert_eq!(object["data"]["scripts"][1]["state"], "present");
}

#[test]
fn a_dry_run_of_load_changes_nothing() {
    let server = Server::start(&[]).unwrap();
    let (node, count) = (server.socket().display().to_string(), count());
    let expected = answer(0, &format!("{}{count} to load on {node}\n", table("missing")), "");
    assert_eq!(Cli::on(&server, &["load", "--dry-run"]).answer(), expected);
    assert_eq!(Cli::on(&server, &["load", "--dry-run"]).answer(), expected);
}

#[test]
fn status_shows_drift_after_a_flush_and_check_fails_on_it() {
    let server = Server::start(&[]).unwrap();
    let (node, count) = (server.socket().display().to_string(), count());
    let product = product(&mut Raw::connect(&server));
    let view = |state| format!("{node}  {product}  primary\n\n{}", table(state));
    Cli::on(&server, &["load"]).must();
    assert_eq!(Cli::on(&server, &["status", "--check"]).answer(), answer(0, &view("present"), ""));
    Raw::connect(&server).must::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(Cli::on(&server, &["status"]).answer(), answer(0, &view("missing"), ""));
    assert_fails(
        &server.url(),
        &["status", "--check"],
        &answer(
            1,
            &view("missing"),
            &format!(
                "redlatch: {count} of the bundle's scripts are missing on {node}\n  \
                 hint: load them with `redlatch load`\n"
            ),
        ),
        &[("missing", &node)],
    );
}

#[test]
fn status_works_on_a_replica_and_says_so() {
    let server = Server::start(&["--replicaof", "127.0.0.1", "1"]).unwrap();
    Cli::on(&server, &["load"]).must();
    let text = Cli::on(&server, &["status", "--check"]).must();
    assert!(text.lines().next().unwrap().ends_with("  replica"), "{text}");
}

#[test]
fn json_lines_are_one_script_each() {
    let text = Cli::new(&["scripts", "--format", "jsonl"]).must();
    let names: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<_> = embedded().unwrap().scripts().iter().map(|script| script.name().to_owned()).collect();
    assert_eq!(names, expected);
}

#[test]
fn scripts_lists_the_bundle() {
    let mut text = format!("{:<22}  {:<40}  SUMMARY\n", "SCRIPT", "DIGEST");
    for script in embedded().unwrap().scripts() {
        let title = format!("{} v{}", script.name(), script.version());
        text += &format!("{title:<22}  {}  {}\n", script.digest(), script.header().summary);
    }
    assert_eq!(Cli::new(&["scripts"]).answer(), answer(0, &text, ""));
}

#[test]
fn shown_bytes_have_the_digest_that_sha1sum_computes() {
    for script in embedded().unwrap().scripts() {
        let name = format!("{}@v{}", script.name(), script.version());
        let raw = Cli::new(&["show", &name, "--raw"]).must();
        let digest = Cli::new(&["show", &name, "--digest"]).must();
        assert_eq!(raw.as_bytes(), script.source());
        assert_eq!(digest, format!("{}\n", sha1sum(raw.as_bytes())));
    }
}

#[test]
fn show_tells_the_contract() {
    assert_eq!(Cli::new(&["show", "plain/release"]).answer(), answer(0, &described("plain/release"), ""));
    let expected = "redlatch: no script is called \"plain/release@v99\"\n  \
                    hint: `redlatch scripts` lists them; a version is written as in mutex/acquire@v1\n";
    assert_fails("", &["show", "plain/release@v99"], &answer(2, "", expected), &[("usage", "")]);
}

fn described(name: &str) -> String {
    let script = embedded().unwrap().get(name).unwrap();
    let header = script.header();
    let mut text = format!("{name} v{}\n  {}\n", script.version(), header.summary);
    text += &format!("  digest      {}\n", script.digest());
    text += &format!("  since       redlatch {}, needs Redis {}\n", header.since, header.redis);
    text += &format!("  complexity  {}\n  KEYS[1]     {}\n", header.complexity, header.key);
    for (number, arg) in header.args.iter().enumerate() {
        text += &format!("  ARGV[{}]     {}: {}\n", number + 1, arg.name, arg.meaning);
    }
    for reply in &header.replies {
        assert!(reply.fields.is_empty(), "choose a script whose replies are only outcomes");
        text += &format!("  reply       {} {}\n", reply.code, reply.word);
    }
    for (code, meaning) in &header.errors {
        text += &format!("  error       {code}: {meaning}\n");
    }
    text + &format!("  effects     {}\n  retry       {}\n", header.effects.join(" "), header.retry)
}

#[test]
fn exported_digests_are_the_file_in_the_repository() {
    let sums = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/scripts/SHA1SUMS")).unwrap();
    assert_eq!(Cli::new(&["export", "--as", "sha1sums"]).answer(), answer(0, &sums, ""));
}

#[test]
fn exported_lua_gives_back_every_byte_and_digest() {
    let text = Cli::new(&["export", "--as", "lua"]).must();
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap(),
        "-- Generated by \"redlatch export --as lua\". Do not edit: the digests are checked when nginx starts."
    );
    assert_eq!(lines.next(), Some("return {"));
    assert_eq!(lines.next(), Some(concat!("  bundle = \"", env!("CARGO_PKG_VERSION"), "\",")));
    for script in embedded().unwrap().scripts() {
        assert_eq!(lines.next().unwrap(), format!("  [\"{}\"] = {{", script.name()));
        assert_eq!(lines.next().unwrap(), format!("    version = {},", script.version()));
        assert_eq!(lines.next().unwrap(), format!("    digest = \"{}\",", script.digest()));
        let source = lines.next().unwrap().strip_prefix("    source = \"").unwrap().strip_suffix("\",").unwrap();
        assert_eq!(unquoted(source).as_bytes(), script.source());
        assert_eq!(lines.next(), Some("  },"));
    }
    assert_eq!((lines.next(), lines.next()), (Some("}"), None));
    assert!(text.ends_with("}\n"));
}

fn unquoted(text: &str) -> String {
    let mut characters = text.chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next().expect("something follows a backslash") {
                'n' => '\n',
                quoted => quoted,
            },
            other => other,
        });
    }
    plain
}

#[test]
fn exported_json_gives_back_every_byte() {
    let text = Cli::new(&["export", "--as", "json"]).must();
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (number, script) in embedded().unwrap().scripts().iter().enumerate() {
        assert_eq!(object["scripts"][number]["source"].as_str().unwrap().as_bytes(), script.source());
        assert_eq!(object["scripts"][number]["digest"], script.digest().as_str());
    }
}

#[test]
fn redis_cli_loads_what_is_exported_for_it() {
    let server = Server::start(&[]).unwrap();
    let mut process = std::process::Command::new("redis-cli")
        .arg("-s")
        .arg(server.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli starts");
    let commands = Cli::new(&["export", "--as", "redis-cli"]).must();
    process.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let digests = String::from_utf8(process.wait_with_output().unwrap().stdout).unwrap();
    let expected: String =
        embedded().unwrap().scripts().iter().map(|script| format!("{}\n", script.digest())).collect();
    assert_eq!(digests, expected);
    Cli::on(&server, &["status", "--check"]).must();
}

#[test]
fn export_check_finds_a_changed_and_a_missing_file_and_writes_neither() {
    let folder = folder();
    let path = folder.path().join("scripts.lua");
    let file = path.to_str().unwrap();
    let check = ["export", "--as", "lua", "--out", file, "--check"];
    let differs = |what: &str| {
        let hint = "write it with `redlatch export --as lua --out …`";
        let expected = format!("redlatch: \"{file}\" {what}\n  hint: {hint}\n");
        assert_fails("", &check, &answer(1, "", &expected), &[("differs", "")]);
    };
    differs("is missing");
    assert!(!path.exists());
    assert_eq!(
        Cli::new(&["export", "--as", "lua", "--out", file]).answer(),
        answer(0, "", &format!("redlatch: \"{file}\" is written\n"))
    );
    assert_eq!(Cli::new(&check).answer(), answer(0, "", ""));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() = b' ';
    fs::write(&path, &bytes).unwrap();
    differs("differs from this bundle");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn verify_names_missing_and_modified_files() {
    let folder = folder();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/lua/scripts");
    let copied = std::process::Command::new("cp").args(["-r", root]).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let path = folder.path().join("scripts");
    let verify = ["verify", "--offline", "--dir", path.to_str().unwrap()];
    let view = |state: &dyn Fn(&str) -> &'static str| {
        let count = count();
        let mut text =
            format!("{count} embedded scripts agree with SHA1SUMS and their headers, every server takes them\n\n");
        text += &format!("{:<26}  STATE\n", "FILE");
        for script in embedded().unwrap().scripts() {
            let file = format!("{}.v{}.lua", script.name(), script.version());
            text += &format!("{file:<26}  {}\n", state(&file));
        }
        text
    };
    assert_eq!(Cli::new(&verify).answer(), answer(0, &view(&|_| "ok"), ""));
    fs::remove_file(path.join("plain/extend.v1.lua")).unwrap();
    let mut bytes = fs::read(path.join("mutex/extend.v1.lua")).unwrap();
    bytes.push(b'\n');
    fs::write(path.join("mutex/extend.v1.lua"), bytes).unwrap();
    let state = |file: &str| match file {
        "plain/extend.v1.lua" => "missing",
        "mutex/extend.v1.lua" => "modified",
        _ => "ok",
    };
    let expected = answer(
        1,
        &view(&state),
        "redlatch: mutex/extend.v1.lua is modified\n  \
         hint: restore it: a released script never changes, a change is a new version beside it\n\
         redlatch: plain/extend.v1.lua is missing\n  \
         hint: restore it: a released script is never removed\n",
    );
    assert_fails("", &verify, &expected, &[("modified", ""), ("missing", "")]);
}

#[test]
fn verify_asks_the_server_unless_it_is_to_stay_offline() {
    let server = Server::start(&[]).unwrap();
    let (node, count) = (server.socket().display().to_string(), count());
    let embedded = format!("{count} embedded scripts agree with SHA1SUMS and their headers, every server takes them\n");
    let missing = format!(
        "redlatch: {count} of the bundle's scripts are missing on {node}\n  hint: load them with `redlatch load`\n"
    );
    assert_fails(&server.url(), &["verify"], &answer(1, &embedded, &missing), &[("missing", &node)]);
    assert_eq!(Cli::on(&server, &["verify", "--offline"]).answer(), answer(0, &embedded, ""));
    Cli::on(&server, &["load"]).must();
    assert_eq!(
        Cli::on(&server, &["verify"]).answer(),
        answer(0, &format!("{embedded}all of them are on {node}\n"), "")
    );
}

#[test]
fn colour_is_only_where_it_was_asked_for() {
    let server = Server::start(&[]).unwrap();
    assert!(!Cli::on(&server, &["load", "--dry-run"]).must().contains('\x1b'));
    Cli::on(&server, &["load"]).must();
    assert!(Cli::on(&server, &["status", "--color", "always"]).must().contains("\x1b[32mpresent\x1b[0m"));
    assert!(!Cli::on(&server, &["status", "--color", "never"]).must().contains('\x1b'));
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_not() {
    let program = env!("CARGO_BIN_EXE_redlatch");
    let run = |line: String| std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
    let full = run(format!("{program} export --as lua >/dev/full"));
    assert_eq!(full.status.code(), Some(74));
    assert_eq!(
        String::from_utf8(full.stderr).unwrap(),
        "redlatch: stdout cannot be written: No space left on device (os error 28)\n"
    );
    let closed = run(format!("{program} export --as lua | head -c 1; exit ${{PIPESTATUS[0]}}"));
    assert_eq!((closed.status.code(), closed.stdout, closed.stderr), (Some(0), b"-".to_vec(), Vec::new()));
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let completions = Cli::new(&["completions", "bash"]).must();
    let manual = Cli::new(&["man"]).must();
    let verbs = [
        "load",
        "status",
        "verify",
        "scripts",
        "show",
        "export",
        "run",
        "acquire",
        "extend",
        "release",
        "inspect",
        "ls",
        "force-release",
        "completions",
        "man",
        "demo",
    ];
    for verb in verbs {
        assert!(completions.contains(verb), "{verb}");
        assert!(manual.contains(&format!("redlatch\\-{}", verb.replace('-', "\\-"))), "{verb}");
        let page = Cli::new(&["man", verb]).must();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
        assert_eq!(Cli::new(&[verb, "--help"]).answer().status, 0);
    }
    let expected = "redlatch: no verb is called \"nothing\"\n  hint: `redlatch help` lists them\n";
    assert_fails("", &["man", "nothing"], &answer(2, "", expected), &[("usage", "")]);
}

#[test]
fn the_lua_module_in_the_repository_is_what_export_writes() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/lua/lib/resty/redlatch/scripts.lua");
    assert_eq!(Cli::new(&["export", "--as", "lua", "--out", file, "--check"]).answer(), answer(0, "", ""));
}

#[test]
fn every_manual_page_has_exit_status_environment_and_examples() {
    let help = Cli::new(&["help"]).must();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verbs =
        commands.lines().filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let parts = [vec!["man"], vec!["man", "acl", "print"], vec!["man", "acl", "check"]];
    let pages = verbs.filter(|verb| *verb != "help").map(|verb| vec!["man", verb]).chain(parts);
    for page in pages {
        let text = Cli::new(&page).must();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "\"EXIT STATUS\"", "ENVIRONMENT", "EXAMPLES"] {
            assert_eq!(text.matches(&format!(".SH {section}\n")).count(), 1, "{page:?} {section}\n{text}");
        }
        assert!(text.is_ascii(), "{page:?}");
        assert!(text.contains("REDLATCH_URL") && text.contains("REDLATCH_HELD"), "{page:?}");
        let own = format!("redlatch {}", page[1..].join(" ")).replace('-', "\\-");
        assert!(text.split(".SH EXAMPLES").nth(1).unwrap().contains(own.trim()), "{page:?}");
    }
}

#[test]
fn completions_offer_no_hidden_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = Cli::new(&["completions", shell]).must();
        assert!(text.contains("force-release") && text.contains("password-file"), "{shell}");
        let words = text.split(|it: char| !(it.is_alphanumeric() || it == '_' || it == '-'));
        assert_eq!(words.filter(|word| word.ends_with("exec") || word.contains("__exec")).count(), 0, "{shell}");
    }
}
