//! Questions that a server may leave open: the user may not ask them, or the server does not have the command, as some
//! that others look after.

use std::collections::HashMap;

use redis::Value;
use redlatch::{Error, call::Caller};

/// Why a server does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Its ACL denies the command.
    Denied,
    /// It does not have the command.
    Absent,
}

/// What a server tells, or why it does not.
pub type Told<T> = Result<T, Withheld>;

/// Sends the command that `words` are.
pub async fn ask(caller: &Caller, words: &[&str]) -> Result<Told<Value>, Error> {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(*word);
    });
    withheld(caller.command(&command, || words.join(" ")).await)
}

/// The text that a command replies with.
pub async fn ask_text(caller: &Caller, words: &[&str]) -> Result<Told<String>, Error> {
    Ok(ask(caller, words).await?.and_then(|reply| redis::from_redis_value(reply).map_err(|_| Withheld::Absent)))
}

/// Tells an answer that is withheld from one that went wrong.
pub fn withheld<T>(outcome: Result<T, Error>) -> Result<Told<T>, Error> {
    match outcome {
        Ok(reply) => Ok(Ok(reply)),
        Err(error) if error.code() == Some("NOPERM") => Ok(Err(Withheld::Denied)),
        // Each product and version has words of its own for a command that it does not have.
        Err(error) if error.code() == Some("ERR") => Ok(Err(Withheld::Absent)),
        Err(error) => Err(error),
    }
}

/// `name:value` lines, as those of INFO.
pub fn fields(text: &str) -> HashMap<String, String> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// Whether the server does not have the command, as it or our reading of it says so.
pub fn is_absent(error: &Error) -> bool {
    let text = error.to_string();
    ["this server does not know", "nknown command", "nknown subcommand"].iter().any(|words| text.contains(words))
}
