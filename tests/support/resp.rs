//! As much of the Redis protocol as the proxy has to understand.

/// The words of one command.
#[derive(Clone, Debug)]
pub struct Command(Vec<Vec<u8>>);

impl Command {
    /// Whether it is `name`, in capitals.
    pub fn is(&self, name: &str) -> bool {
        self.0.first().is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The command and its arguments.
    pub fn words(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// How many words it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The digest that an EVALSHA asks for.
    pub fn digest(&self) -> Option<&str> {
        if self.is("EVALSHA") { std::str::from_utf8(self.0.get(1)?).ok() } else { None }
    }

    /// The argument `name` of a call of the shipped script `script`, if it is one and has it.
    pub fn argument(&self, script: &str, name: &str) -> Option<&str> {
        let header = redlatch::bundle::embedded().unwrap().get(script).unwrap().header();
        let at = header.args.iter().position(|arg| arg.name == name).expect("the script has such an argument");
        // EVALSHA, digest, number of keys, key.
        if self.runs(script) { std::str::from_utf8(self.0.get(4 + at)?).ok() } else { None }
    }

    /// Whether it runs the shipped script `name`, such as `mutex/acquire`.
    pub fn runs(&self, name: &str) -> bool {
        let script = redlatch::bundle::embedded().unwrap().get(name).unwrap();
        self.digest() == Some(script.digest().as_str())
    }
}

/// The first command in `bytes` and where it ends; `None` while it is not complete.
pub fn command(bytes: &[u8]) -> Option<(Command, usize)> {
    let (count, mut at) = number(bytes, 0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, start) = number(bytes, at)?;
        let end = start + usize::try_from(length).ok()?;
        words.push(bytes.get(start..end)?.to_vec());
        at = end + 2;
    }
    (at <= bytes.len()).then_some((Command(words), at))
}

/// Where the first value in `bytes` ends; `None` while it is not complete.
pub fn reply_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut left = 1;
    while left > 0 {
        left -= 1;
        let kind = *bytes.get(at)?;
        let (count, end) = match kind {
            b'$' | b'=' | b'!' | b'*' | b'>' | b'~' | b'%' => number(bytes, at)?,
            _ => (0, line_end(bytes, at)?),
        };
        at = end;
        match (kind, usize::try_from(count)) {
            // No length: null.
            (_, Err(_)) => {}
            (b'$' | b'=' | b'!', Ok(count)) => at += count + 2,
            (b'%', Ok(count)) => left += 2 * count,
            (_, Ok(count)) => left += count,
        }
    }
    (at <= bytes.len()).then_some(at)
}

/// The number of the line at `at`, and where the next line begins.
fn number(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let end = line_end(bytes, at)?;
    let digits = std::str::from_utf8(&bytes[at + 1..end - 2]).ok()?;
    Some((digits.parse().expect("a length is a number"), end))
}

fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    Some(at + bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")? + 2)
}
