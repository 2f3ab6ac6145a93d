//! One reading of the error replies of every server.
//!
//! ```text
//! reply   = [CODE " "] words
//! line    = "ERR Error running script (call to f_…): " mark+ ["-"] reply     up to Redis 6.2, whatever the code
//!         | reply [" script: " [DIGEST ", "] "on @…:LINE."]                  Redis 7.0 and later; Valkey 9 has no digest
//! mark    = "@…:" [" "] LINE ":" [" "]                                       once, or twice when a command was refused
//! ```
//!
//! A denial inside a script has the code ERR everywhere; here it is NOPERM.

const WRAPPED: &str = "Error running script (call to ";

/// What servers call a denial inside a script: up to 7.0, and later.
const DENIALS: [&str; 2] = ["The user executing the script can't", "ACL failure in script"];

/// An error reply without what is of no use to people: where in which script it came about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// `ERR` where the server gives none.
    pub(super) code: String,
    pub(super) words: String,
    /// Whether a script was denied what it does.
    pub(super) in_script: bool,
    /// The line of the script, where the server names it.
    pub(super) line: Option<usize>,
}

impl Said {
    /// Reads an error reply, given as the redis crate splits it.
    pub(super) fn of(code: &str, detail: &str) -> Self {
        let line = if detail.is_empty() { code.to_owned() } else { format!("{code} {detail}") };
        let (code, words) = split(unplaced(&line));
        let (code, words) = match inside(words) {
            Some(inner) if code == "ERR" => split(inner),
            _ => (code, words),
        };
        let in_script = code == "ERR" && DENIALS.iter().any(|denial| words.starts_with(denial));
        // Who reads the reply to SELECT leaves the code out.
        let denied = in_script || code == "ERR" && words.to_ascii_lowercase().contains("no permissions to ");
        let code = if denied { "NOPERM" } else { code }.to_owned();
        Self { code, words: words.trim_end().to_owned(), in_script, line: place(&line) }
    }
}

/// The code and the words; proxies give errors without a code.
fn split(line: &str) -> (&str, &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is_code = first.len() > 1 && first.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code { (first, rest) } else { ("ERR", line) }
}

/// `line` without the place in the script.
fn unplaced(line: &str) -> &str {
    let Some((reply, place)) = line.rsplit_once("script: ") else { return line };
    let place = place.split_once(", ").filter(|(digest, _)| is_digest(digest)).map_or(place, |(_, place)| place);
    if place.starts_with("on @") { reply.trim_end() } else { line }
}

/// The number in the first mark or in the place.
fn place(line: &str) -> Option<usize> {
    let marked = line.split_once('@')?.1;
    let digits = marked.split_once(':')?.1.trim_start();
    digits[..digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

fn is_digest(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What was said inside a script, behind all marks. What a script has caught and gives back has a mark and no wrap.
fn inside(words: &str) -> Option<&str> {
    let mut rest = match words.strip_prefix(WRAPPED) {
        Some(wrapped) => wrapped.split_once("): ")?.1,
        None => without_mark(words)?,
    };
    while let Some(unmarked) = without_mark(rest) {
        rest = unmarked;
    }
    Some(rest.strip_prefix('-').unwrap_or(rest))
}

fn without_mark(text: &str) -> Option<&str> {
    let (_, rest) = text.strip_prefix('@')?.split_once(':')?;
    let (line, rest) = rest.trim_start().split_once(':')?;
    line.bytes().all(|byte| byte.is_ascii_digit()).then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_reads(line: &str, code: &str, words: &str) {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let said = Said::of(first, rest);
        assert_eq!((said.code.as_str(), said.words.as_str()), (code, words));
    }

    #[test]
    fn a_reply_has_a_code_and_words() {
        assert_reads("OOM no memory.", "OOM", "no memory.");
        assert_reads("NOSCRIPT", "NOSCRIPT", "");
        assert_reads("upstream failure", "ERR", "upstream failure");
        assert_reads("A word", "ERR", "A word");
    }

    #[test]
    fn the_place_is_cut_with_or_without_a_digest() {
        assert_reads("OOM full. script: 9ed1a00a, on @user_script:1.", "OOM", "full.");
        assert_reads("OOM full. script: on @user_script:1.", "OOM", "full.");
        assert_reads("ERR of script: x", "ERR", "of script: x");
        assert_reads("ERR from script script: on @user_script:1.", "ERR", "from script");
    }

    #[test]
    fn what_is_wrapped_is_found_behind_every_mark() {
        let wrapped = |inner: &str| format!("ERR Error running script (call to f_9ed1a00a): {inner}");
        assert_reads(&wrapped("@user_script:71: WRONGTYPE no"), "WRONGTYPE", "no");
        assert_reads(&wrapped("@user_script:71: @user_script: 71: -READONLY no."), "READONLY", "no.");
        assert_reads(&wrapped("@user_script:1: @user_script: 1: Unknown command"), "ERR", "Unknown command");
        assert_reads("ERR @user_script: 86: Unknown command", "ERR", "Unknown command");
        assert_reads(&wrapped("@enable_strict_lua:8: user_script:1: no x"), "ERR", "user_script:1: no x");
    }

    #[test]
    fn a_denial_without_its_code_is_one() {
        assert_reads(
            "ERR this user has no permissions to run the 'select' command",
            "NOPERM",
            "this user has no permissions to run the 'select' command",
        );
        assert!(!Said::of("ERR", "User u has no permissions to run the 'select' command").in_script);
    }

    #[test]
    fn a_denial_in_a_script_says_its_line_where_it_can() {
        let denied = "The user executing the script can't run this command or subcommand";
        for (line, expected) in [
            (format!("ERR {denied} script: 9ed1a00a, on @user_script:71."), Some(71)),
            (
                format!("ERR Error running script (call to f_9ed1a00a): @user_script:7: @user_script: 7: {denied}"),
                Some(7),
            ),
            (format!("@user_script: 86: {denied}"), Some(86)),
            (format!("ERR {denied}"), None),
        ] {
            let (first, rest) = line.split_once(' ').unwrap();
            let said = Said::of(first, rest);
            assert_eq!((said.code.as_str(), said.in_script, said.line), ("NOPERM", true, expected), "{line}");
        }
        assert!(!Said::of("NOPERM", "this user has no permissions to run the 'evalsha' command").in_script);
    }
}
