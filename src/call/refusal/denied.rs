//! What an ACL denies: the one right that a user lacks, and the role that has it.

use std::borrow::Cow;

use super::said::Said;
use crate::bundle;

/// Who is logged in, and what for.
#[derive(Clone, Debug)]
pub(in crate::call) struct Login {
    user: Option<String>,
    role: Option<&'static str>,
}

/// What the ACL does not allow.
#[derive(Debug, PartialEq, Eq)]
enum Lacks {
    /// A command, as a rule names it: `script|load`.
    Command(String),
    Key,
    Channel,
}

/// Commands that mean nothing without their second word.
const CONTAINERS: [&str; 8] = ["acl", "client", "cluster", "config", "memory", "pubsub", "script", "slowlog"];

impl Login {
    /// As `user`, who is to have the rights of `role`.
    pub(in crate::call) fn of(user: &str, role: Option<&'static str>) -> Self {
        Self { user: Some(user.to_owned()), role }
    }

    /// As whoever it may be, who is to have the rights of `role`.
    pub(in crate::call) fn someone(role: &'static str) -> Self {
        Self { user: None, role: Some(role) }
    }

    /// As whoever it may be.
    pub(in crate::call) fn unknown() -> Self {
        Self { user: None, role: None }
    }

    fn shown(&self) -> String {
        self.user.as_ref().map_or_else(|| "this user".to_owned(), |user| format!("user {}", user.escape_debug()))
    }
}

/// The rule that grants what the server denied when it said `said` of the command `sent`, and a sentence with it. `what`
/// tells people what was tried.
pub(super) fn rule(said: &Said, what: &str, sent: &[&[u8]], login: &Login) -> (String, String) {
    let (lacks, key) = (lacks(said, what, sent), key(sent));
    // Sentinels have users of their own.
    let at_sentinel = matches!(&lacks, Lacks::Command(name) if name.starts_with("sentinel"));
    let (user, role) = match login {
        _ if at_sentinel => ("the sentinels' user".to_owned(), None),
        login => (login.shown(), login.role),
    };
    let (denied, rule, options) = match lacks {
        Lacks::Command(name) => (format!("run {}", name.replace('|', " ").to_uppercase()), format!("+{name}"), None),
        Lacks::Key => match key {
            Some((pattern, options)) => ("use this key".to_owned(), format!("~{pattern}"), options),
            None => ("use this key".to_owned(), "a pattern of it (~PATTERN)".to_owned(), None),
        },
        Lacks::Channel => ("use this channel".to_owned(), format!("&{}:inbox:*", channel_namespace(sent)), None),
    };
    let role = role.map_or_else(String::new, |role| {
        format!("; role {role} has it: `redlatch acl print {role}{}`", options.unwrap_or_default())
    });
    let sentence = format!("{user} may not {denied}; grant {rule}{role}");
    (rule, sentence)
}

fn lacks(said: &Said, what: &str, sent: &[&[u8]]) -> Lacks {
    let words = said.words.to_ascii_lowercase();
    let of_a_command = words.contains("can't run this command") || words.contains(" to run the '");
    match () {
        () if of_a_command => {}
        () if words.contains("channel") => return Lacks::Channel,
        () if words.contains("key") => return Lacks::Key,
        () => {}
    }
    let named = || words.split('\'').nth(1).filter(|name| is_command(name)).map(ToOwned::to_owned);
    let name = if said.in_script {
        // `can't` has a quote too.
        let named = if words.contains(" to run the '") { named() } else { None };
        named.or_else(|| in_source(sent, said.line))
    } else {
        of_words(sent.iter().map(|word| String::from_utf8_lossy(word)))
            .or_else(named)
            .or_else(|| of_words(what.split(' ').map(Into::into)))
    };
    Lacks::Command(name.unwrap_or_else(|| "evalsha".to_owned()))
}

/// The command that `words` begin with.
fn of_words<'a>(words: impl Iterator<Item = Cow<'a, str>>) -> Option<String> {
    let mut words = words.map(|word| word.to_ascii_lowercase());
    let first = words.next().filter(|word| is_command(word))?;
    let second = words.next().filter(|word| CONTAINERS.contains(&&*first) && is_command(word));
    Some(second.map_or_else(|| first.clone(), |second| format!("{first}|{second}")))
}

fn is_command(word: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'|' | b'-' | b'_');
    (1..=32).contains(&word.len()) && word.bytes().all(is_letter)
}

/// The command in a line of the script that `sent` runs: up to 7.0 servers name the line and not the command. What a
/// script catches and gives back has no line: that is how each begins to read.
fn in_source(sent: &[&[u8]], line: Option<usize>) -> Option<String> {
    let digest = sent.get(1)?;
    let scripts = bundle::embedded().ok()?.scripts();
    let script = scripts.iter().find(|script| script.digest().as_str().as_bytes() == *digest)?;
    let source = std::str::from_utf8(script.source()).ok()?;
    let place = match line {
        Some(number) => source.lines().nth(number.checked_sub(1)?)?.split_once("call('")?.1,
        None => source.split_once("redis.pcall('")?.1,
    };
    let name = place.split('\'').next()?.to_ascii_lowercase();
    is_command(&name).then_some(name)
}

/// A pattern for the key of `sent`, and what `acl print` has to be told of it.
fn key(sent: &[&[u8]]) -> Option<(String, Option<String>)> {
    let key = subject(sent)?;
    let (namespace, rest) = key.split_at(key.iter().position(|byte| *byte == b':').unwrap_or(key.len()));
    if rest.starts_with(b":m1:") || rest.starts_with(b":v1:") {
        let option = (namespace != b"redlatch").then(|| format!(" --namespace {}", String::from_utf8_lossy(namespace)));
        return Some((format!("{}:*", pattern_of(namespace)), option));
    }
    Some((pattern_of(key).escape_debug().to_string(), Some(" --plain PATTERN".to_owned())))
}

/// The namespace that the channel of `sent` begins with, or the key beside it.
fn channel_namespace(sent: &[&[u8]]) -> String {
    let namespace = subject(sent).and_then(|word| word.split(|byte| *byte == b':').next());
    namespace.map_or_else(|| "redlatch".to_owned(), pattern_of)
}

/// The key or channel that `sent` is about.
fn subject<'a>(sent: &[&'a [u8]]) -> Option<&'a [u8]> {
    let runs_script = sent.first()?.eq_ignore_ascii_case(b"EVALSHA");
    sent.get(if runs_script { 3 } else { 1 }).copied()
}

/// A pattern that matches `bytes` and nothing else, as Redis writes patterns.
#[doc(hidden)]
pub fn pattern_of(bytes: &[u8]) -> String {
    let mut pattern = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        if "*?[]\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read from `reply` to a call of `script` on `key`.
    #[track_caller]
    fn assert_lacks(reply: &str, script: &str, key: &str, rule: &str) {
        let (first, rest) = reply.split_once(' ').unwrap();
        let script = bundle::embedded().unwrap().get(script).unwrap();
        let sent = [b"EVALSHA", script.digest().as_str().as_bytes(), b"1", key.as_bytes()].map(<[u8]>::to_vec);
        let sent: Vec<_> = sent.iter().map(Vec::as_slice).collect();
        let (read, sentence) = super::rule(&Said::of(first, rest), "a call", &sent, &Login::someone("caller"));
        assert_eq!(read, rule, "{reply}");
        assert!(sentence.contains(&format!("; grant {rule}; role caller has it")), "{sentence}");
    }

    /// The number of the line of `script` that has `words`.
    fn line(script: &str, words: &str) -> usize {
        let source = std::str::from_utf8(bundle::embedded().unwrap().get(script).unwrap().source()).unwrap();
        source.lines().position(|line| line.contains(words)).unwrap() + 1
    }

    #[test]
    fn a_server_that_names_the_command_is_believed() {
        for said in [
            "ERR ACL failure in script: User nocmd has no permissions to run the 'hset' command script: on @user_script:1.",
            "ERR ACL failure in script: User nocmd has no permissions to run the 'hset' command",
        ] {
            assert_lacks(said, "mutex/acquire", "redlatch:m1:n", "+hset");
        }
        for said in ["NOPERM this user has no permissions to run the 'evalsha' command or its subcommand", "NOPERM no"]
        {
            assert_lacks(said, "mutex/acquire", "redlatch:m1:n", "+evalsha");
        }
    }

    #[test]
    fn a_server_that_names_the_line_means_the_command_in_it() {
        let denied = "The user executing the script can't run this command or subcommand";
        for (script, words, rule) in [
            ("mutex/acquire", "'TIME'", "+time"),
            ("mutex/release", "call('HDEL'", "+hdel"),
            ("plain/extend", "'PTTL'", "+pttl"),
        ] {
            let line = line(script, words);
            let place = format!("ERR {denied} script: 9ed1a00a, on @user_script:{line}.");
            assert_lacks(&place, script, "redlatch:m1:n", rule);
            let wrapped = format!(
                "ERR Error running script (call to f_9ed1a00a): @user_script:{line}: @user_script: {line}: {denied}"
            );
            assert_lacks(&wrapped, script, "redlatch:m1:n", rule);
        }
        // What a script catches and gives back is its first read.
        assert_lacks(&format!("ERR {denied}"), "mutex/acquire", "redlatch:m1:n", "+hget");
        assert_lacks(&format!("ERR {denied}"), "value/store", "redlatch:v1:n", "+hmget");
    }

    #[test]
    fn a_key_is_granted_by_the_pattern_of_its_namespace_or_itself() {
        for said in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "NOPERM No permissions to access a key",
            "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
        ] {
            assert_lacks(said, "mutex/acquire", "redlatch:m1:n", "~redlatch:*");
            assert_lacks(said, "mutex/acquire", "shop[1]:m1:n", "~shop\\[1\\]:*");
            assert_lacks(said, "plain/acquire", "orders:7", "~orders:7");
        }
    }

    #[test]
    fn what_is_no_script_is_named_by_what_was_sent() {
        let said = Said::of("NOPERM", "this user has no permissions to run the 'script' command or its subcommand");
        let rule = |what: &str, sent: &[&[u8]]| super::rule(&said, what, sent, &Login::unknown());
        let (named, sentence) = rule("x", &[b"SCRIPT", b"LOAD", b"--[["]);
        assert_eq!((&*named, &*sentence), ("+script|load", "this user may not run SCRIPT LOAD; grant +script|load"));
        assert_eq!(rule("x", &[b"SCAN", b"0"]).0, "+scan");
        let said =
            Said::of("NOPERM", "User u has no permissions to run the 'sentinel|get-master-addr-by-name' command");
        let (_, sentence) = super::rule(&said, "connecting", &[], &Login::someone("caller"));
        let told =
            "the sentinels' user may not run SENTINEL GET-MASTER-ADDR-BY-NAME; grant +sentinel|get-master-addr-by-name";
        assert_eq!(sentence, told);
        let channels = Said::of("NOPERM", "No permissions to access a channel");
        let sent: [&[u8]; 2] = [b"SUBSCRIBE", b"shop:inbox:7"];
        assert_eq!(super::rule(&channels, "x", &sent, &Login::unknown()).0, "&shop:inbox:*");
    }
}
