//! The table of error replies.

/// What a server said, and what it means.
pub struct Said {
    pub code: &'static str,
    /// The name of the `ErrorKind`.
    pub kind: &'static str,
    pub text: &'static str,
}

/// Every recorded error reply.
pub fn all() -> Vec<Said> {
    let lines = include_str!("said.tsv").lines().filter(|line| !line.starts_with('#'));
    let said: Vec<Said> = lines.map(of).collect();
    assert!(said.len() > 100, "the table is cut short");
    said
}

fn of(line: &'static str) -> Said {
    let [code, kind, text, _] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("not four fields: {line}") };
    Said { code, kind, text }
}

/// What no person may be shown of a text: what was sent, and where in which script it came about.
pub fn forbidden(shown: &str) -> Option<&'static str> {
    let digest = shown.split(|character: char| !character.is_ascii_hexdigit()).any(|word| word.len() == 40);
    let parts = ["s3cret", "owner-token", "@user_script", "script: on", "call to"];
    if digest { Some("a digest") } else { parts.into_iter().find(|part| shown.contains(part)) }
}
