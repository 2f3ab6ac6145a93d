//! Reads the tables of this folder. `README.md` explains how they are written.

use std::ops::RangeInclusive;

use redlatch::bundle::{self, Argument};

/// A claim and the steps that show it.
pub struct Case {
    pub claim: String,
    /// Bytes of the lock's name.
    pub name: Vec<u8>,
    pub steps: Vec<Step>,
}

/// One line of a table, or one of the steps it stands for.
pub struct Step {
    /// File, line and text, for messages.
    pub place: String,
    pub action: Action,
}

impl Step {
    /// The script that this step calls, if it calls one.
    pub fn script(&self) -> Option<&str> {
        match &self.action {
            Action::Call { script, .. } => Some(script),
            _ => None,
        }
    }
}

impl Case {
    /// Whether it makes the server a replica.
    pub fn makes_a_replica(&self) -> bool {
        self.steps.iter().any(|step| step.place.contains("REPLICAOF"))
    }
}

pub enum Action {
    Call {
        script: String,
        args: Vec<Expr>,
        expected: Expected,
    },
    Redis {
        words: Vec<Expr>,
        expected: Expected,
    },
    Passes {
        ms: u64,
    },
    EarlyInASecond,
    Subscribe {
        channel: String,
    },
    Unsubscribe {
        channel: String,
    },
    Hears {
        channel: String,
        words: Option<Vec<Pattern>>,
    },
    /// Fields of the lock's state are set.
    State {
        fields: Vec<(String, Expr)>,
    },
    /// A field of the lock's state is as it should be.
    StateIs {
        field: String,
        pattern: Pattern,
    },
    /// A place of the queue is put under its ticket.
    Place {
        ticket: i64,
        fields: Vec<(String, Expr)>,
    },
    /// The hash at the key has these fields and no others.
    Fields {
        names: Vec<String>,
    },
    Remember,
    Unchanged,
}

pub enum Expected {
    /// Outcome word and patterns for some of the fields.
    Reply { word: String, fields: Vec<(String, Pattern)> },
    /// An error with this code. `writes`: the key may have changed nevertheless.
    Error { code: String, writes: bool },
    /// For raw commands: a value, or anything but an error.
    Value(Option<Pattern>),
}

/// What a field must be.
pub enum Pattern {
    Is(Expr),
    Above(Expr),
    Within(RangeInclusive<i64>),
    List(Vec<Pattern>),
}

/// A value that may depend on the server's time or on an earlier reply.
pub enum Expr {
    Bytes(Vec<u8>),
    Key,
    NowUs(i64),
    NowMs(i64),
    /// A variable plus a number. In a pattern an unknown variable takes the value of the field.
    Variable(String, i64),
}

/// All tables in the order of the README.
pub fn cases() -> Vec<Case> {
    let files = [
        ("grants.txt", include_str!("grants.txt")),
        ("queue.txt", include_str!("queue.txt")),
        ("fence.txt", include_str!("fence.txt")),
        ("inspect.txt", include_str!("inspect.txt")),
        ("arguments.txt", include_str!("arguments.txt")),
        ("full_server.txt", include_str!("full_server.txt")),
        ("plain.txt", include_str!("plain.txt")),
        ("value.txt", include_str!("value.txt")),
    ];
    files.into_iter().flat_map(|(file, text)| parse(file, text)).collect()
}

fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let tokens = tokens(line);
        let place = format!("{file}:{}: {}", number + 1, line.trim());
        match tokens.first().copied() {
            None => {}
            Some(comment) if comment.starts_with('#') => {}
            Some("case") => {
                let claim = tokens[1].to_owned();
                cases.push(Case { name: claim.clone().into_bytes(), claim, steps: Vec::new() });
            }
            Some("name") => match expr(tokens[1]) {
                Expr::Bytes(name) => cases.last_mut().expect("a case comes first").name = name,
                _ => panic!("{place}: a name is made of bytes"),
            },
            Some(_) => {
                let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: a case comes first"));
                for tokens in expand(&tokens) {
                    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
                    let action = action(&tokens).unwrap_or_else(|problem| panic!("{place}: {problem}"));
                    let place = if tokens.join(" ").len() < 200 {
                        format!("{file}:{}: {}", number + 1, tokens.join(" "))
                    } else {
                        place.clone()
                    };
                    case.steps.push(Step { place, action });
                }
            }
        }
    }
    cases
}

/// Splits at white space, but not within quotes or brackets.
fn tokens(line: &str) -> Vec<&str> {
    let (mut tokens, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), None, 0, false, false);
    for (at, c) in line.char_indices() {
        if c.is_whitespace() && !quoted && depth == 0 {
            if let Some(start) = start.take() {
                tokens.push(&line[start..at]);
            }
            continue;
        }
        start.get_or_insert(at);
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            _ => {}
        }
    }
    tokens.extend(start.map(|start| &line[start..]));
    tokens
}

/// `3x …` stands for three steps in which `#` is 1, 2, 3; `{a b}` stands for a step with each of them.
fn expand(tokens: &[&str]) -> Vec<Vec<String>> {
    if let Some(times) = tokens[0].strip_suffix('x').and_then(|times| times.parse::<usize>().ok()) {
        return (1..=times)
            .map(|n| tokens[1..].iter().map(|token| token.replace('#', &n.to_string())).collect())
            .collect();
    }
    let is_choice = |token: &&str| token.contains("={") && token.ends_with('}');
    let Some(at) = tokens.iter().position(is_choice) else {
        return vec![tokens.iter().map(|&token| token.to_owned()).collect()];
    };
    let (argument, choices) = tokens[at].split_once("={").expect("it is a choice");
    self::tokens(choices.strip_suffix('}').expect("it is a choice"))
        .into_iter()
        .map(|choice| {
            let mut step: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
            step[at] = format!("{argument}={choice}");
            step
        })
        .collect()
}

fn action(tokens: &[&str]) -> Result<Action, String> {
    let (words, expected) = match tokens.iter().position(|&token| token == "->") {
        Some(at) => (&tokens[..at], &tokens[at + 1..]),
        None => (tokens, &[][..]),
    };
    Ok(match *words {
        ["passes", ms] => Action::Passes { ms: ms.parse().map_err(|_| "passes how many milliseconds?")? },
        ["early_in_a_second"] => Action::EarlyInASecond,
        ["subscribe", channel] => Action::Subscribe { channel: channel.to_owned() },
        ["unsubscribe", channel] => Action::Unsubscribe { channel: channel.to_owned() },
        ["hears", channel, "nothing"] => Action::Hears { channel: channel.to_owned(), words: None },
        ["hears", channel, ..] => {
            Action::Hears { channel: channel.to_owned(), words: Some(words[2..].iter().map(|w| pattern(w)).collect()) }
        }
        ["fields", ..] => {
            let mut names: Vec<String> = words[1..].iter().map(|&name| name.to_owned()).collect();
            names.sort();
            Action::Fields { names }
        }
        ["state", field] if !field.contains('=') => match *expected {
            [value] => Action::StateIs { field: field.to_owned(), pattern: pattern(value) },
            _ => return Err("expects one value".to_owned()),
        },
        ["state", ..] => Action::State { fields: fields(&words[1..])? },
        ["place", ticket, ..] => Action::Place {
            ticket: ticket.parse().map_err(|_| "a place has a ticket".to_owned())?,
            fields: fields(&words[2..])?,
        },
        ["remember"] => Action::Remember,
        ["unchanged"] => Action::Unchanged,
        ["redis", ..] => Action::Redis {
            words: words[1..].iter().map(|word| expr(word)).collect(),
            expected: match *expected {
                ["error", code] => Expected::Error { code: code.to_owned(), writes: true },
                [value] => Expected::Value(Some(pattern(value))),
                [] => Expected::Value(None),
                _ => return Err("expects more than one value".to_owned()),
            },
        },
        [script, "with", ..] => Action::Call {
            script: script.to_owned(),
            args: words[2..].iter().map(|word| expr(word)).collect(),
            expected: reply(expected)?,
        },
        [script, ..] => {
            Action::Call { script: script.to_owned(), args: named(script, &words[1..])?, expected: reply(expected)? }
        }
        [] => return Err("is empty".to_owned()),
    })
}

/// Words like `field=value`.
fn fields(words: &[&str]) -> Result<Vec<(String, Expr)>, String> {
    let field = |word: &&str| word.split_once('=').map(|(field, value)| (field.to_owned(), expr(value)));
    words.iter().map(|word| field(word).ok_or_else(|| format!("{word} is not field=value"))).collect()
}

/// What an argument is when a step does not name it.
fn default(argument: &str) -> &'static str {
    match argument {
        "owner" => "a",
        "ttl_ms" => "10000",
        "claim_ms" => "3000",
        "value" => "made",
        "fence" => "17",
        "fresh_ms" => "1000",
        "keep_ms" => "60000",
        "retention_ms" => "60000",
        "max_waiters" => "10",
        "queue_ms" | "not_after_us" | "fence_floor" | "inbox_here" => "0",
        "label" | "inbox" => "\"\"",
        _ => panic!("no default for the argument {argument}"),
    }
}

fn named(script: &str, given: &[&str]) -> Result<Vec<Expr>, String> {
    let bundle = bundle::embedded().map_err(|error| error.to_string())?;
    let known = &bundle.get(script).ok_or_else(|| format!("there is no script {script}"))?.header().args;
    let given: Vec<(&str, &str)> = given
        .iter()
        .map(|word| word.split_once('=').ok_or_else(|| format!("{word} is not argument=value")))
        .collect::<Result<_, _>>()?;
    if let Some((unknown, _)) = given.iter().find(|(name, _)| known.iter().all(|arg| arg.name != *name)) {
        return Err(format!("{script} has no argument {unknown}"));
    }
    let is_optional = |arg: &&Argument| arg.meaning.starts_with("waiters only");
    let waits = known.iter().filter(is_optional).any(|arg| given.iter().any(|(name, _)| arg.name == *name));
    Ok(known
        .iter()
        .filter(|arg| waits || !is_optional(arg))
        .map(|arg| {
            expr(
                given.iter().find(|(name, _)| arg.name == *name).map_or_else(|| default(&arg.name), |(_, value)| value),
            )
        })
        .collect())
}

fn reply(expected: &[&str]) -> Result<Expected, String> {
    Ok(match *expected {
        ["error", code] => Expected::Error { code: code.to_owned(), writes: false },
        ["error", code, "writes"] => Expected::Error { code: code.to_owned(), writes: true },
        [word, ..] => Expected::Reply {
            word: word.to_owned(),
            fields: expected[1..]
                .iter()
                .map(|field| match field.find(['=', '>']) {
                    Some(at) if field[at..].starts_with('=') => Ok((field[..at].to_owned(), pattern(&field[at + 1..]))),
                    Some(at) => Ok((field[..at].to_owned(), pattern(&field[at..]))),
                    None => Err(format!("{field} is not field=pattern")),
                })
                .collect::<Result<_, _>>()?,
        },
        [] => return Err("expects nothing".to_owned()),
    })
}

fn pattern(text: &str) -> Pattern {
    if let Some(list) = text.strip_prefix('[') {
        return Pattern::List(
            tokens(list.strip_suffix(']').expect("the list ends")).into_iter().map(pattern).collect(),
        );
    }
    if let Some(above) = text.strip_prefix('>') {
        return Pattern::Above(expr(above));
    }
    if let Some((from, to)) = text.split_once("..")
        && let Ok(from) = from.parse()
    {
        return Pattern::Within(
            from..=if to.is_empty() { i64::MAX } else { to.parse().expect("a range ends with digits") },
        );
    }
    Pattern::Is(expr(text))
}

fn expr(text: &str) -> Expr {
    let offset = |rest: &str| if rest.is_empty() { 0 } else { rest.parse().expect("an offset is +n or -n") };
    if let Some(quoted) = text.strip_prefix('"') {
        return Expr::Bytes(unescape(quoted.strip_suffix('"').expect("the quote ends")));
    }
    if text == "KEY" {
        return Expr::Key;
    }
    if let Some(rest) = text.strip_prefix("now_us") {
        return Expr::NowUs(offset(rest));
    }
    if let Some(rest) = text.strip_prefix("now_ms") {
        return Expr::NowMs(offset(rest));
    }
    if let Some(variable) = text.strip_prefix('$') {
        let end = variable.find(['+', '-']).unwrap_or(variable.len());
        return Expr::Variable(variable[..end].to_owned(), offset(&variable[end..]));
    }
    if let Some((unit, times)) = text.split_once('*')
        && let Ok(times) = times.parse()
    {
        return Expr::Bytes(unit.repeat(times).into_bytes());
    }
    Expr::Bytes(text.as_bytes().to_vec())
}

/// `\xff`, `\t`, `\n`, `\r`, `\"` and `\\`; everything else stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("something is escaped") {
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                b'x' => {
                    let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
                    let digits = std::str::from_utf8(&digits).expect("hexadecimal digits");
                    u8::from_str_radix(digits, 16).expect("hexadecimal digits")
                }
                other => other,
            },
            byte => byte,
        });
    }
    bytes
}
