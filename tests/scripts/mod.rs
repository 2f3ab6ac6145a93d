//! The scripts as files: what the header promises is what the code does.

mod versions;

use std::{collections::BTreeSet, path::Path, process::Command};

use redlatch::bundle::{self, Header, Script};

fn scripts() -> &'static [Script] {
    bundle::embedded().unwrap().scripts()
}

fn text(script: &Script) -> &str {
    std::str::from_utf8(script.source()).unwrap()
}

/// What is behind the header, without comments.
fn code(script: &Script) -> String {
    let (_, code) = text(script).split_once("]]\n").unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("--")).map(|line| format!("{line}\n")).collect()
}

/// What follows each `before` in `code`, as long as `part` holds.
fn after<'a>(code: &'a str, before: &str, part: impl Fn(char) -> bool) -> Vec<&'a str> {
    let rest = code.match_indices(before).map(|(at, _)| &code[at + before.len()..]);
    rest.map(|rest| rest.split(|c| !part(c)).next().unwrap()).collect()
}

#[track_caller]
fn every_script(holds: impl Fn(&Header, &str) -> Result<(), String>) {
    let problems: Vec<String> = scripts()
        .iter()
        .filter_map(|script| Some(format!("{} {}", script.name(), holds(script.header(), &code(script)).err()?)))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn same<T: Ord + std::fmt::Debug>(what: &str, promised: BTreeSet<T>, done: BTreeSet<T>) -> Result<(), String> {
    if promised == done { Ok(()) } else { Err(format!("promises the {what} {promised:?}, its code has {done:?}")) }
}

#[test]
fn every_argument_of_the_header_is_used_and_no_other() {
    every_script(|header, code| {
        let used = after(code, "ARGV[", |c| c.is_ascii_digit()).into_iter().map(|n| n.parse::<usize>().unwrap());
        same("arguments", (1..=header.args.len()).collect(), used.collect())
    });
}

#[test]
fn every_argument_is_bound_to_its_name() {
    every_script(|header, code| {
        for (at, arg) in header.args.iter().enumerate() {
            let value = format!("ARGV[{}]", at + 1);
            let bound = code.lines().filter_map(|line| line.strip_prefix("local ")?.split_once(" = ")).any(
                |(names, values)| {
                    let position = values.split(", ").position(|v| v == value || v == format!("tonumber({value})"));
                    position.is_some_and(|position| names.split(", ").nth(position) == Some(&arg.name))
                },
            );
            if !bound {
                return Err(format!("does not bind {value} to {}", arg.name));
            }
        }
        Ok(())
    });
}

#[test]
fn keys_and_arguments_are_counted_before_anything_else() {
    every_script(|header, code| {
        let all = header.args.len();
        let least = header.args.iter().filter(|arg| !arg.meaning.starts_with("waiters only: ")).count();
        let (check, args) = match (least, all) {
            (0, 0) => ("~= 0".to_owned(), "no argument".to_owned()),
            (1, 1) => ("~= 1".to_owned(), "1 argument".to_owned()),
            _ if least == all => (format!("~= {all}"), format!("{all} arguments")),
            _ => (format!("~= {least} and #ARGV ~= {all}"), format!("{least} or {all} arguments")),
        };
        let check = format!(
            "if #KEYS ~= 1 or #ARGV {check} then\n  return redis.error_reply('BADARG {} takes 1 key and {args}')\nend\n",
            header.name
        );
        let at = code.find(&check).ok_or_else(|| format!("does not contain\n{check}"))?;
        let calls = ["redis.call", "redis.pcall"].iter().filter_map(|call| code.find(call)).min().unwrap();
        if at < calls { Ok(()) } else { Err("calls Redis before it counts".to_owned()) }
    });
}

#[test]
fn effects_are_the_commands_in_the_code() {
    every_script(|header, code| {
        let called: BTreeSet<String> = [".call('", ".pcall('"]
            .iter()
            .flat_map(|call| after(code, call, |c| c != '\''))
            .map(str::to_owned)
            .collect();
        same("effects", header.effects.iter().cloned().collect(), called)
    });
}

#[test]
fn error_codes_of_the_header_are_those_of_the_code() {
    every_script(|header, code| {
        let mut raised: BTreeSet<String> =
            after(code, "redis.error_reply('", |c| c.is_ascii_uppercase()).into_iter().map(str::to_owned).collect();
        // Raised by the server at the first read, which every script makes through pcall and passes on.
        if ["HGET", "HMGET"].iter().any(|read| code.contains(&format!("= redis.pcall('{read}', KEYS[1]")))
            || code.contains("= redis.pcall('GET', KEYS[1]")
        {
            raised.insert("WRONGTYPE".to_owned());
        }
        same("errors", header.errors.iter().map(|(code, _)| code.clone()).collect(), raised)
    });
}

/// The lists after `return {` or `return {\n`, split at the commas outside of brackets.
fn returned(code: &str) -> Vec<Vec<String>> {
    let mut lists = Vec::new();
    for (at, _) in code.match_indices("return {") {
        let (mut elements, mut depth) = (vec![String::new()], 0);
        for c in code[at + "return {".len()..].chars() {
            match c {
                '}' if depth == 0 => break,
                ',' if depth == 0 => elements.push(String::new()),
                _ => {
                    depth += i32::from("({[".contains(c)) - i32::from(")}]".contains(c));
                    elements.last_mut().unwrap().push(c);
                }
            }
        }
        let elements: Vec<String> = elements.iter().map(|element| element.trim().to_owned()).collect();
        lists.push(elements.into_iter().filter(|element| !element.is_empty()).collect());
    }
    lists
}

#[test]
fn outcome_numbers_of_the_header_are_those_of_the_code() {
    every_script(|header, code| {
        let mut numbers = BTreeSet::new();
        for list in returned(code) {
            // A literal, `x and 1 or 2`, or a local `code` that numbers are assigned to.
            if list[0] == "code" {
                let values = after(code, "code = ", |c| c.is_ascii_digit());
                numbers.extend(values.into_iter().filter(|value| !value.is_empty()).map(|v| v.parse::<i64>().unwrap()));
            } else if let Some((_, either)) = list[0].split_once(" and ") {
                numbers.extend(either.split(" or ").map(|value| value.parse::<i64>().unwrap()));
            } else {
                numbers.insert(list[0].parse::<i64>().unwrap());
            }
        }
        same("replies", header.replies.iter().map(|reply| reply.code).collect(), numbers)
    });
}

#[test]
fn replies_have_as_many_fields_as_the_header_says() {
    every_script(|header, code| {
        for list in returned(code) {
            let fields = list.len() - 1;
            let reply = header.replies.iter().find(|reply| reply.code.to_string() == list[0]);
            let promised = reply.or(header.replies.first()).unwrap().fields.len();
            if fields != promised {
                return Err(format!("returns {list:?} where {promised} fields are promised"));
            }
        }
        Ok(())
    });
}

#[test]
fn outcome_words_have_one_number_in_each_family_and_the_same_fields_in_each_script() {
    for script in scripts() {
        let replies = &script.header().replies;
        let words: BTreeSet<&str> = replies.iter().map(|reply| reply.word.as_str()).collect();
        assert_eq!(words.len(), replies.len(), "{}", script.name());
        assert!(replies.is_sorted_by_key(|reply| reply.code), "{}", script.name());
    }
}

#[test]
fn headers_name_a_version_that_is_shipped_and_a_server_that_is_supported() {
    for script in scripts() {
        let header = script.header();
        assert_eq!(header.since.split('.').count(), 3, "{}", script.name());
        assert_eq!(header.redis, "6.2", "{}", script.name());
        assert!(header.summary.ends_with('.'), "{}", script.name());
        assert!(header.retry.starts_with("safe: ") || header.retry.starts_with("not safe: "), "{}", script.name());
    }
}

/// What several scripts share is written once, in lua/parts, and put into them by a command.
#[test]
fn the_scripts_have_the_parts_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let lua = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua");
    let copied =
        Command::new("cp").arg("-r").args([lua.join("parts"), lua.join("scripts")]).arg(folder.path()).status();
    assert!(copied.unwrap().success());
    assert!(Command::new(folder.path().join("parts/stamp")).status().unwrap().success());
    for script in scripts() {
        let path = format!("scripts/{}.v{}.lua", script.name(), script.version());
        let stamped = std::fs::read_to_string(folder.path().join(&path)).unwrap();
        assert_eq!(stamped, text(script), "{path} is not what `make scripts` writes");
    }
    let shared = scripts().iter().filter(|script| text(script).contains("\n-- part: first_open\n")).count();
    assert_eq!(shared, 2);
}

#[test]
fn error_messages_never_contain_what_a_caller_sent() {
    every_script(|_, code| {
        for message in after(code, "redis.error_reply(", |c| c != '\n') {
            if !message.starts_with('\'') || !message.ends_with("')") || message.contains("..") {
                return Err(format!("builds the message {message}"));
            }
        }
        Ok(())
    });
}

#[test]
fn a_second_key_is_refused() {
    let server = crate::support::Server::start(&[]).unwrap();
    let mut raw = crate::support::Raw::connect(&server);
    for script in scripts() {
        for keys in [&["a", "b"][..], &[]] {
            let count = keys.len().to_string();
            let mut words: Vec<&[u8]> = vec![b"EVAL", script.source(), count.as_bytes()];
            words.extend(keys.iter().map(|key| key.as_bytes()));
            words.extend(script.header().args.iter().map(|_| &b"1"[..]));
            let error = raw.run(&words).unwrap_err();
            assert_eq!(error.code(), Some("BADARG"), "{} with {count} keys: {error}", script.name());
        }
    }
}
