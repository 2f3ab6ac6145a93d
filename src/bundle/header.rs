//! The contract that every script states in its first comment: one tag a line.

/// What a script says of itself. A test compares it with the code below it and with the Rust and nginx callers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Family and verb, for instance `mutex/acquire`.
    pub name: String,
    /// Contract version, the number in the file name.
    pub version: u32,
    /// One sentence for people.
    pub summary: String,
    /// First release of redlatch that shipped it.
    pub since: String,
    /// Oldest server that runs it.
    pub redis: String,
    /// Work per call.
    pub complexity: String,
    /// What `KEYS[1]` is.
    pub key: String,
    /// `ARGV` in order.
    pub args: Vec<Argument>,
    /// Every reply, in the order of their outcome numbers.
    pub replies: Vec<Outcome>,
    /// Error codes with their meaning.
    pub errors: Vec<(String, String)>,
    /// Every Redis command the script can run: the rights that a caller needs.
    pub effects: Vec<String>,
    /// What a second call with the same arguments does.
    pub retry: String,
}

/// One entry of `ARGV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Name with its unit, for instance `ttl_ms`.
    pub name: String,
    /// Meaning and range.
    pub meaning: String,
}

/// One reply: an array that starts with `code`, followed by `fields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// First element of the reply.
    pub code: i64,
    /// The word for it.
    pub word: String,
    /// Names of the elements that follow, units included.
    pub fields: Vec<String>,
}

impl Header {
    /// Parses the comment that a script starts with.
    pub(super) fn parse(source: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(source).map_err(|_| "is not UTF-8")?;
        let comment = text
            .strip_prefix("--[[\n")
            .and_then(|rest| rest.split_once("]]"))
            .ok_or("does not start with a --[[ header ]]")?
            .0;
        let tags: Vec<(&str, &str)> =
            comment.lines().filter_map(|line| line.strip_prefix('@')?.split_once(' ')).collect();
        let all = |tag: &'static str| tags.iter().filter(move |(name, _)| *name == tag).map(|(_, text)| *text);
        let one = |tag: &'static str| -> Result<String, String> {
            let mut found = all(tag);
            match (found.next(), found.next()) {
                (Some(text), None) => Ok(text.to_owned()),
                _ => Err(format!("must have exactly one @{tag}")),
            }
        };
        let pair = |text: &str, separator: &str| {
            text.split_once(separator)
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .ok_or_else(|| format!("has a tag without `{separator}`: {text}"))
        };
        let (name, version) = pair(&one("name")?, " v")?;
        Ok(Self {
            name,
            version: version.parse().map_err(|_| "has a @name without a version number")?,
            summary: one("summary")?,
            since: one("since")?,
            redis: one("redis")?,
            complexity: one("complexity")?,
            key: one("key")?,
            args: all("arg")
                .map(|text| pair(text, ": ").map(|(name, meaning)| Argument { name, meaning }))
                .collect::<Result<_, _>>()?,
            replies: all("reply").map(Outcome::parse).collect::<Result<_, _>>()?,
            errors: all("error").map(|text| pair(text, " ")).collect::<Result<_, _>>()?,
            effects: one("effects")?.split(' ').map(str::to_owned).collect(),
            retry: one("retry")?,
        })
    }
}

impl Outcome {
    fn parse(text: &str) -> Result<Self, String> {
        let (head, fields) = text.split_once(": ").unwrap_or((text, ""));
        let (code, word) = head.split_once(' ').ok_or_else(|| format!("has a @reply without a word: {text}"))?;
        Ok(Self {
            code: code.parse().map_err(|_| format!("has a @reply without a number: {text}"))?,
            word: word.to_owned(),
            fields: fields.split(", ").filter(|field| !field.is_empty()).map(str::to_owned).collect(),
        })
    }
}
