//! Some servers and proxies repeat in an error what was sent to them: passwords, owner tokens. People are shown nothing
//! of it.

/// A repeated argument may be cut short.
const ENOUGH: usize = 12;

/// `words` of a server for people; `None` when they repeat something of `sent`, the arguments of the command.
pub(super) fn without<'a>(words: &str, sent: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let words = without_list(words);
    let repeated = sent.into_iter().any(|argument| repeats(words.as_bytes(), argument));
    (!repeated).then(|| shown(words))
}

/// `words` up to the list of arguments that some end with.
pub(super) fn without_list(words: &str) -> &str {
    let end = words.to_ascii_lowercase().find("with args beginning with").unwrap_or(words.len());
    words[..end].trim_end_matches([' ', ','])
}

/// Without anything that a terminal obeys.
fn shown(words: &str) -> String {
    let shown = |character: char| match character {
        '\'' | '"' | '\\' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    words.chars().map(shown).collect()
}

/// Whether `words` have `argument`, or its beginning, as a word of its own. Numbers are no secrets, and errors that name
/// a limit have some.
fn repeats(words: &[u8], argument: &[u8]) -> bool {
    if argument.is_empty() || argument.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let beginning = &argument[..argument.len().min(ENOUGH)];
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    words.windows(beginning.len()).enumerate().any(|(from, window)| {
        let before = from.checked_sub(1).and_then(|at| words.get(at));
        let after = words.get(from + window.len());
        let begins = !(is_word(before) && is_word(beginning.first()));
        let ends = argument.len() > ENOUGH || !(is_word(after) && is_word(beginning.last()));
        window == beginning && begins && ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_shows(words: &str, sent: &[&str], shown: Option<&str>) {
        assert_eq!(without(words, sent.iter().map(|word| word.as_bytes())).as_deref(), shown);
    }

    #[test]
    fn words_that_repeat_nothing_are_shown() {
        assert_shows("value is not an integer", &["n", "tok"], Some("value is not an integer"));
        assert_shows("ttl_ms must be at most 5", &["5"], Some("ttl_ms must be at most 5"));
        assert_shows("a\u{1b}[2Jb", &[], Some("a\\u{1b}[2Jb"));
    }

    #[test]
    fn a_list_of_arguments_is_cut_off() {
        assert_shows("unknown command 'X', with args beginning with: 's3cret'", &[], Some("unknown command 'X'"));
        assert_shows("unknown command `X`, With args beginning with: `s3c", &["s3cret"], Some("unknown command `X`"));
    }

    #[test]
    fn words_that_repeat_an_argument_are_not_shown() {
        assert_shows("cannot run EVALSHA tok", &["tok"], None);
        assert_shows("bad 'tok'", &["tok"], None);
        assert_shows("cut short: 0123456789ab…", &["0123456789abcdef0123"], None);
        assert_shows("--x--", &["-x-"], None);
    }
}
