//! What each error of a server means for a caller, and what to do about it.

use std::time::Duration;

use redis::RedisError;

use crate::{Error, ErrorKind};

/// Turns an error of the redis crate into ours. `what` names the command and the lock.
pub(super) fn translate(what: &str, error: RedisError) -> Error {
    let Some(code) = error.code() else {
        return transport(what, error);
    };
    let detail = error.detail().unwrap_or_default();
    let (code, detail) = unwrap_script_error(code, detail);
    let (kind, advice) = meaning(&code, &detail);
    let message = match advice {
        Some(advice) => format!("{what} was refused ({code}): {advice}"),
        None => format!("{what} was refused ({code}): {}", plain(&detail)),
    };
    Error::new(kind, message).with_code(&code).with_source(error)
}

/// A server's words, without anything that a terminal obeys.
fn plain(detail: &str) -> String {
    let shown = |character: char| match character {
        '\'' | '"' | '\\' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    detail.chars().map(shown).collect()
}

/// A command that could not be sent because there is no connection.
pub(super) fn not_sent(what: &str, error: RedisError) -> Error {
    if error.code().is_some() {
        return translate(what, error);
    }
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => Error::new(
            ErrorKind::Refused,
            format!("{what} was refused: the server did not accept the user or password, check the URL"),
        ),
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => Error::new(
            ErrorKind::Protocol,
            format!("{what} got an answer that is not Redis: is the address that of a Redis server?"),
        ),
        redis::ErrorKind::InvalidClientConfig | redis::ErrorKind::Client => {
            Error::new(ErrorKind::Invalid, format!("{what} could not be sent: {error}"))
        }
        _ if error.is_connection_refusal() => {
            Error::new(ErrorKind::Unavailable, format!("{what} did not run: no server answers there, is it running?"))
        }
        _ => Error::new(ErrorKind::Unavailable, format!("{what} did not run: there is no connection ({error})")),
    }
    .with_source(error)
}

/// A connection that could not be made to `address`.
pub(super) fn not_connected(address: &str, what: &str, error: RedisError) -> Error {
    let refused = error.is_connection_refusal();
    let error = not_sent(what, error);
    if error.kind() != ErrorKind::Unavailable || error.code().is_some() {
        error
    } else if refused {
        Error::new(ErrorKind::Unavailable, format!("no server answers at {address}, is it running?")).with_source(error)
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

/// Redis 6.2 wraps what a command inside a script said; 7.0 gives an ACL denial the code ERR.
fn unwrap_script_error(code: &str, detail: &str) -> (String, String) {
    if code == "ERR" && detail.contains("executing the script can't run this command") {
        return ("NOPERM".to_owned(), detail.to_owned());
    }
    if code == "ERR"
        && let Some((_, inner)) = detail.split_once("@user_script:")
        && let Some((_, inner)) = inner.split_once(": ")
        && let Some((inner_code, inner_detail)) = inner.trim_start_matches('-').split_once(' ')
        && inner_code.bytes().all(|byte| byte.is_ascii_uppercase())
    {
        return (inner_code.to_owned(), inner_detail.to_owned());
    }
    (code.to_owned(), detail.to_owned())
}

fn meaning(code: &str, detail: &str) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{Invalid, Refused, ScriptMissing, Unavailable};
    match code {
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
        "NOPERM" => (
            Refused,
            Some(
                "the server's ACL denies the command, a script or its key; grant the user +evalsha, the commands \
                  that `redlatch show` lists under effects, and the keys of the namespace",
            ),
        ),
        "LOADING" => (Unavailable, Some("the server is loading its data, try again in a moment")),
        "BUSY" => (Unavailable, Some("another script keeps the server busy, find it with SLOWLOG")),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            (Refused, Some("this is a node of a Redis Cluster, write redis+cluster:// in the URL or say --cluster"))
        }
        "DENIED" => (Refused, Some("the server is in protected mode: set a password, or connect from its own machine")),
        "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
            (Unavailable, Some("the server's topology is changing, try again"))
        }
        "ERR" if detail.contains("max number of clients") => {
            (Unavailable, Some("the server has no connection left, raise maxclients or close idle ones"))
        }
        _ => (Refused, None),
    }
}
