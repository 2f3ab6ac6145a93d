//! The help of a verb is one screen: its own options and two examples. What every verb takes stands in `redlatch --help`,
//! and every explanation in the manual page.

use clap::{Arg, Command, CommandFactory, builder::Resettable};

use crate::opt::Options;

/// What a verb is used for, as it is typed, and the exit codes that it alone has. By the words that call it.
const VERBS: [(&str, &[&str], &str); 21] = [
    (
        "load",
        &["redlatch load", "redlatch load --watch=10s --metrics-addr 127.0.0.1:9121"],
        "75 done on some servers only",
    ),
    ("status", &["redlatch status --check", "redlatch status --callers --format json"], "1 drift, with --check"),
    ("verify", &["redlatch verify", "redlatch verify --offline"], "1 scripts are missing, 65 bytes differ"),
    ("scripts", &["redlatch scripts", "redlatch scripts --format jsonl"], ""),
    ("show", &["redlatch show mutex/acquire", "redlatch show mutex/acquire@v1 --raw | sha1sum"], ""),
    ("acl", &["redlatch acl print strict --namespace shop", "redlatch acl check app"], ""),
    ("acl print", &["redlatch acl print caller", "redlatch acl print strict --namespace shop --for 7.2"], ""),
    (
        "acl check",
        &["redlatch acl check app", "redlatch acl check app strict --plain 'orders:*'"],
        "1 a right is missing",
    ),
    (
        "doctor",
        &["redlatch doctor", "redlatch doctor --strict --user app --role strict"],
        "1 something is wrong, or could not be seen",
    ),
    ("bench", &["redlatch bench", "redlatch bench --clients 64 --locks 4 --hold 1ms"], ""),
    (
        "export",
        &["redlatch export --as redis-cli | redis-cli", "redlatch export --as lua --out scripts.lua --check"],
        "1 the file differs, with --check",
    ),
    (
        "run",
        &["redlatch run nightly-report -- ./report.sh", "redlatch run deploy --wait 5m --ttl 30s -- make deploy"],
        "75 not acquired (-E), 76 lease lost, else that of COMMAND",
    ),
    (
        "acquire",
        &[
            "redlatch acquire deploy --ttl 10m --owner-file /run/deploy.owner",
            "redlatch acquire deploy --wait 1m --format json",
        ],
        "75 held by another",
    ),
    (
        "extend",
        &[
            "redlatch extend deploy --owner-file /run/deploy.owner",
            "redlatch extend deploy --ttl 10m --owner-file /run/deploy.owner",
        ],
        "76 the lease is lost",
    ),
    (
        "release",
        &[
            "redlatch release deploy --owner-file /run/deploy.owner",
            "redlatch release deploy --owner-file deploy.owner --format json",
        ],
        "76 the lease was lost",
    ),
    (
        "inspect",
        &["redlatch inspect nightly-report", "redlatch inspect nightly-report --follow --format jsonl"],
        "1 nobody holds it",
    ),
    ("ls", &["redlatch ls 'orders/*'", "redlatch ls --all --follow"], ""),
    (
        "force-release",
        &[
            "redlatch force-release deploy --yes --reason 'its machine is gone'",
            "redlatch force-release deploy --yes --reason stuck --format json",
        ],
        "1 nobody holds it",
    ),
    (
        "completions",
        &["redlatch completions bash >/etc/bash_completion.d/redlatch", "redlatch completions fish | source"],
        "",
    ),
    ("man", &["redlatch man run | man -l -", "redlatch man acl print >redlatch-acl-print.1"], ""),
    ("demo", &["redlatch demo", "redlatch demo --clients 200 --stock 10"], ""),
];

/// Of the whole.
const EXAMPLES: &[&str] =
    &["redlatch load", "redlatch run nightly-report -- ./report.sh", "redlatch inspect nightly-report"];

/// Values are shown instead of the name of a value when they are not longer than this.
const MOST_VALUES: usize = 12;

/// What `path` is used for: the words of a verb, none for the whole.
pub fn examples(path: &str) -> &'static [&'static str] {
    VERBS.iter().find(|(words, ..)| *words == path).map_or(EXAMPLES, |(_, examples, _)| examples)
}

/// The command line as it is parsed, with help of one screen.
pub fn command() -> Command {
    let mut command = brief(Options::command(), "");
    command.build();
    let verbs: Vec<_> = verbs_of(&command);
    verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, without_global))
}

fn verbs_of(command: &Command) -> Vec<String> {
    command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect()
}

/// Without what the manual page explains, here and in all verbs.
fn brief(command: Command, path: &str) -> Command {
    let verbs = verbs_of(&command);
    let command = verbs.into_iter().fold(command, |command, verb| {
        let path = format!("{path} {verb}");
        command.mut_subcommand(verb, |verb| brief(verb, path.trim_start()))
    });
    let command = command.long_about(Resettable::Reset).mut_args(brief_option);
    if path.is_empty() { command } else { command.after_help(after(path)) }
}

/// Whose values explain themselves or are explained in the manual page.
fn brief_option(option: Arg) -> Arg {
    let values = option.get_possible_values();
    let names: Vec<_> = values.iter().map(|value| value.get_name().to_owned()).collect();
    let option = option.long_help(Resettable::Reset);
    if names.is_empty() || !option.get_action().takes_values() {
        return option;
    }
    let option = option.hide_possible_values(true);
    let all = names.join("|");
    if all.len() <= MOST_VALUES && !option.is_positional() {
        return option.value_name(all);
    }
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    // Before what the default is.
    let (help, rest) = help.split_at(help.find(" [").unwrap_or(help.len()));
    option.help(format!("{help}: {}{rest}", names.join(", ")))
}

fn without_global(command: Command) -> Command {
    let verbs = verbs_of(&command);
    let command = verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, without_global));
    command.mut_args(|option| if option.is_global_set() { option.hide(true) } else { option })
}

fn after(path: &str) -> String {
    let Some((_, examples, exit_codes)) = VERBS.iter().find(|(words, ..)| *words == path) else { return String::new() };
    let mut text = String::from("Examples:\n");
    for example in *examples {
        text += &format!("  {example}\n");
    }
    text += "\n";
    if !exit_codes.is_empty() {
        text += &format!("Exit code: {exit_codes}\n");
    }
    format!("{text}Options of every verb: redlatch --help; explanations: redlatch man {path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the first command of `line`, as a shell splits them.
    fn words(line: &str) -> Vec<std::ffi::OsString> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for character in line.chars() {
            match character {
                '\'' => quoted = !quoted,
                '|' | '>' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                other => words.last_mut().unwrap().push(other),
            }
        }
        words.into_iter().filter(|word| !word.is_empty()).map(Into::into).collect()
    }

    #[track_caller]
    fn assert_examples(command: &Command, path: &str) {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name()).trim_start().to_owned();
            let given = examples(&path);
            assert_eq!((given.len(), given == EXAMPLES), (2, false), "{path}");
            assert!(given.iter().all(|line| line.starts_with(&format!("redlatch {path}"))), "{given:?}");
            assert_examples(verb, &path);
        }
    }

    #[test]
    fn every_verb_has_two_examples_and_each_can_be_typed() {
        assert_examples(&command(), "");
        let all = VERBS.iter().flat_map(|(_, examples, _)| *examples).chain(EXAMPLES);
        for line in all {
            assert!(line.len() + 2 <= 80, "{line}");
            if let Err(error) = Options::parsed(words(line)) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_command_line_means_the_same_with_brief_help() {
        command().debug_assert();
        let options =
            Options::parsed(words("redlatch --format jsonl run n --ttl 3s --namespace shop -- ls -l")).unwrap();
        assert_eq!((options.global.format, &*options.global.namespace), (crate::opt::Format::Jsonl, "shop"));
    }
}
