//! What each error of a server means for a caller, and what to do about it.

mod denied;
mod echo;
mod said;

use std::time::Duration;

pub(super) use denied::Login;
pub use denied::pattern_of;
use redis::{Cmd, RedisError};
use said::Said;

use super::{hello::TOO_OLD, misdirected};
use crate::{Error, ErrorKind};

/// Turns an error of the redis crate into ours. `what` names the command and the lock.
pub(super) fn translate(what: &str, error: RedisError, login: &Login) -> Error {
    refused(what, error, &[], login)
}

/// The same for the reply to the command `sent`: the server's own words are shown where no others say more, unless they
/// repeat an argument.
pub(super) fn translate_reply(what: &str, error: RedisError, sent: &Cmd, login: &Login) -> Error {
    let words = sent.args_iter().filter_map(|word| match word {
        redis::Arg::Simple(bytes) => Some(bytes),
        _ => None,
    });
    refused(what, error, &words.collect::<Vec<_>>(), login)
}

/// `sent` are the words of a command; without any, there was a password among them, or they are not known.
fn refused(what: &str, error: RedisError, sent: &[&[u8]], login: &Login) -> Error {
    let Some(code) = error.code() else {
        return transport(what, error);
    };
    let said = Said::of(code, error.detail().unwrap_or_default());
    let Said { code, words, .. } = &said;
    let denied = (code == "NOPERM").then(|| denied::rule(&said, what, sent, login));
    let by_code = match &denied {
        Some((_, sentence)) => Some((ErrorKind::Refused, Some(sentence.clone()))),
        None => meaning(code).map(|(kind, advice)| (kind, advice.map(ToOwned::to_owned))),
    };
    let (kind, advice) = by_code.unwrap_or_else(|| by_words(words));
    let advice = misdirected::other_kind(code, words).map(ToOwned::to_owned).or(advice);
    let arguments = sent.split_first().map(|(_, arguments)| arguments);
    let why = advice.or_else(|| echo::without(words, arguments?.iter().copied())).unwrap_or_else(|| UNSAID.to_owned());
    let refusal = Error::new(kind, format!("{what} was refused ({code}): {why}"))
        .with_code(code)
        .lacking(denied.map(|(rule, _)| rule));
    // Who prints the source must not print an owner token or a password either.
    let has_secrets = sent.first().is_none_or(|name| name.to_ascii_uppercase().starts_with(b"EVAL"));
    match code.as_str() {
        // Where to is read from it.
        "MOVED" | "ASK" => refusal.with_source(error),
        _ if has_secrets => refusal,
        _ => refusal.with_source(redis::make_extension_error(code.clone(), Some(echo::without_list(words).to_owned()))),
    }
}

const UNSAID: &str = "the server's words are left out, as they may repeat what was sent";

/// A command that could not be sent because there is no connection.
pub(super) fn not_sent(what: &str, error: RedisError, login: &Login) -> Error {
    if error.code().is_some() {
        return translate(what, error, login);
    }
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => Error::new(
            ErrorKind::Refused,
            format!("{what} was refused: the server did not accept the user or password, check the URL"),
        )
        .with_code("WRONGPASS"),
        redis::ErrorKind::Extension if error.to_string().starts_with(TOO_OLD) => {
            let version = error.detail().unwrap_or("older");
            return Error::new(ErrorKind::Refused, format!("{what} was refused: {TOO_OLD}, the server is {version}"))
                .with_code("TOOOLD");
        }
        redis::ErrorKind::RESP3NotSupported => {
            return Error::new(ErrorKind::Refused, format!("{what} was refused (NOPROTO): {NO_RESP3}"))
                .with_code("NOPROTO");
        }
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => Error::new(
            ErrorKind::Protocol,
            format!("{what} got an answer that is not Redis: is the address that of a Redis server?"),
        ),
        redis::ErrorKind::InvalidClientConfig | redis::ErrorKind::Client => match error.detail() {
            Some(sentence) => Error::new(ErrorKind::Invalid, format!("{what} failed: {sentence}")),
            None => Error::new(ErrorKind::Invalid, format!("{what} could not be sent: {error}")),
        },
        _ if error.is_connection_refusal() => {
            Error::new(ErrorKind::Unavailable, format!("{what} did not run: no server answers there, is it running?"))
        }
        _ => Error::new(ErrorKind::Unavailable, format!("{what} did not run: there is no connection ({error})")),
    }
    .with_source(error)
}

/// A connection that could not be made to `address`.
pub(super) fn not_connected(address: &str, what: &str, error: RedisError, login: &Login) -> Error {
    let refused = error.is_connection_refusal();
    let sentence = error.detail().map(str::to_owned);
    let error = not_sent(what, error, login);
    if error.kind() != ErrorKind::Unavailable || error.code().is_some() {
        error
    } else if refused {
        Error::new(ErrorKind::Unavailable, format!("no server answers at {address}, is it running?")).with_source(error)
    } else if let Some(sentence) = sentence {
        Error::new(ErrorKind::Unavailable, format!("{what} failed: {sentence}")).with_source(error)
    } else {
        Error::new(ErrorKind::Unavailable, format!("{what} failed: {}", root(&error)))
    }
}

fn root(error: &Error) -> String {
    let source: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(source), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

/// A command that could not be sent because connecting took so long.
pub(super) fn no_connection(what: &str, waited: Duration) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{what} did not run: no connection within {waited:?}, the server is stopped or out of reach"),
    )
}

/// An error instead of a reply: the command may have run.
fn transport(what: &str, error: RedisError) -> Error {
    let why = match error.kind() {
        redis::ErrorKind::Parse => "the answer was not Redis".to_owned(),
        _ => error.to_string(),
    };
    Error::new(ErrorKind::Unknown, format!("unknown whether {what} ran: the connection broke ({why})"))
        .with_source(error)
}

/// What a code means, for codes that mean one thing.
fn meaning(code: &str) -> Option<(ErrorKind, Option<&'static str>)> {
    use ErrorKind::{Invalid, Refused, ScriptMissing, Unavailable};
    Some(match code {
        "BADARG" => (Invalid, None),
        "NOSCRIPT" => (ScriptMissing, Some("the script is not on this server, run `redlatch load`")),
        "OOM" => (Refused, Some("the server is full, free memory or raise maxmemory; nothing was written")),
        "WRONGTYPE" => (
            Refused,
            Some("the key holds something that is not this lock, use another name or namespace; it was left as it is"),
        ),
        "QUEUEFULL" => (Refused, Some("100000 waiters are in the queue of this lock, try again later")),
        "FENCEEXHAUSTED" => (Refused, Some("the fence has reached 2^53, use another lock name")),
        "READONLY" => (Refused, Some("this server is a read-only replica, connect to the primary")),
        "NOREPLICAS" => (Refused, Some("too few replicas are connected (min-replicas-to-write)")),
        "MISCONF" => (Refused, Some("the server cannot write its data to disk, see its log")),
        "NOAUTH" => (Refused, Some("the server needs a password, put it into the URL: redis://:PASSWORD@HOST")),
        "WRONGPASS" => (Refused, Some("the server did not accept the user or password, check the URL")),
        "NOPROTO" => (Refused, Some(NO_RESP3)),
        "LOADING" => (Unavailable, Some("the server is loading its data, try again in a moment")),
        "BUSY" => (Unavailable, Some("another script keeps the server busy, find it with SLOWLOG")),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            (Refused, Some("this is a node of a Redis Cluster, write redis+cluster:// in the URL or say --cluster"))
        }
        "DENIED" => (Refused, Some("the server is in protected mode: set a password, or connect from its own machine")),
        "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
            (Unavailable, Some("the server's topology is changing, try again"))
        }
        _ => return None,
    })
}

const NO_RESP3: &str = "the server speaks no RESP3: it is older than Redis 6.2, or a proxy is in between; connect to \
                        the server itself";

/// What the words of an error mean whose code says nothing.
fn by_words(words: &str) -> (ErrorKind, Option<String>) {
    use ErrorKind::{Refused, Unavailable};
    let words = words.to_ascii_lowercase();
    let says = |part: &str| words.contains(part);
    let (kind, advice) = if says("max number of clients") {
        (Unavailable, "the server has no connection left, raise maxclients or close idle ones")
    } else if says("script killed by user") {
        (Unavailable, "somebody ended the script with SCRIPT KILL before it wrote anything, try again")
    } else if says("after non deterministic commands") || says("after non-deterministic commands") {
        (Refused, "the server does not replicate what scripts do, CONFIG SET lua-replicate-commands yes")
    } else if says("without any password configured") || says("no password is set") {
        (Refused, "the server has no password, leave it out of the URL")
    } else if says("invalid password") || says("operation not permitted") {
        (Refused, "the server did not accept the user or password, check the URL")
    } else if says("db index") || says("select is not allowed") {
        (Refused, "the server does not have that database, check the number at the end of the URL")
    } else if let Some(lacked) = lacked(&words) {
        return (Refused, Some(lacked));
    } else {
        return (Refused, None);
    };
    (kind, Some(advice.to_owned()))
}

/// What `words`, in lower case, say about a command that the server does not have.
fn lacked(words: &str) -> Option<String> {
    let command = words.contains("command")
        && ["unknown", "unsupported", "not supported", "not allowed", "disabled"]
            .iter()
            .any(|lack| words.contains(lack));
    if !command {
        return None;
    }
    let is_name = |name: &&str| (1..=20).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic());
    let named = words.split(['\'', '`', '"']).nth(1).filter(is_name).map(str::to_ascii_uppercase);
    let named = named.unwrap_or_else(|| "a command that this needs".to_owned());
    Some(format!(
        "this server does not know {named}: it is older than Redis 6.2, it has the command renamed, or it is a proxy"
    ))
}
