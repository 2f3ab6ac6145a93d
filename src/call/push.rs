//! Whether a server's messages can reach a connection, and what its refusals say about that.

use redis::{AsyncConnectionConfig, Client, ProtocolVersion, RedisError, RedisResult, aio::MultiplexedConnection};

/// Connects to the server of `client`. One that has no RESP3, or a proxy that hides it, is spoken to in RESP2, in which
/// no messages come beside replies: `silent` is for that.
pub(super) async fn open(
    client: &Client,
    config: &AsyncConnectionConfig,
    silent: &AsyncConnectionConfig,
) -> RedisResult<(MultiplexedConnection, bool)> {
    match client.get_multiplexed_async_connection_with_config(config).await {
        Ok(redis) => Ok((redis, true)),
        Err(error) if lacks_resp3(&error, client.get_connection_info().redis_settings().password().is_some()) => {
            tracing::warn!("the server has no RESP3 (HELLO 3): waiters poll, as no messages reach them");
            let info = client.get_connection_info();
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
            let client = Client::open(info.clone().set_redis_settings(settings))?;
            Ok((client.get_multiplexed_async_connection_with_config(silent).await?, false))
        }
        Err(error) => Err(error),
    }
}

/// Whether `error` says that there is no HELLO, or no third version of the protocol. To somebody without a login Valkey
/// 9 says NOAUTH about a command that it does not know: then the password that was sent with HELLO did not count.
fn lacks_resp3(error: &RedisError, has_password: bool) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error.code() == Some("NOAUTH") && has_password
        || is_unknown(error)
}

/// Whether a refusal of SUBSCRIBE holds for as long as the connection does: the user has no right to it, or the server
/// has no such command. Any other passes, and would leave a connection without an inbox behind.
pub(super) fn is_denied(error: &RedisError) -> bool {
    let said = error.detail().unwrap_or_default().to_ascii_lowercase();
    error.code() == Some("NOPERM") || said.contains("permission") || said.contains("acl") || is_unknown(error)
}

fn is_unknown(error: &RedisError) -> bool {
    let said = error.detail().unwrap_or_default().to_ascii_lowercase();
    error.code().is_some()
        && ["unknown command", "unsupported command", "not supported", "command not allowed"]
            .iter()
            .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &'static str) -> RedisError {
        let line = format!("-{text}\r\n");
        redis::parse_redis_value(line.as_bytes()).and_then(redis::Value::extract_error).unwrap_err()
    }

    #[test]
    fn a_refusal_that_passes_is_no_denial() {
        for (text, denied) in [
            ("NOPERM No permissions to access a channel", true),
            ("NOPERM no", true),
            ("ERR this user has no permissions to access one of the channels used as arguments", true),
            ("ERR denied by ACL", true),
            ("ERR unknown command 'SUBSCRIBE', with args beginning with: 'x'", true),
            ("ERR unsupported command 'subscribe'", true),
            ("BUSY Redis is busy running a script.", false),
            ("LOADING Redis is loading the dataset in memory", false),
            ("NOAUTH Authentication required.", false),
            ("ERR max number of clients reached", false),
        ] {
            assert_eq!(is_denied(&said(text)), denied, "{text}");
        }
    }

    #[test]
    fn resp3_is_lacking_where_hello_or_its_version_is_refused() {
        for (text, lacks) in [
            ("NOPROTO unsupported protocol version", true),
            ("ERR unknown command `HELLO`, with args beginning with: `3`, ", true),
            ("ERR 'hello' command is not supported", true),
            ("ERR command not allowed", true),
            ("WRONGPASS invalid username-password pair or user is disabled.", false),
            ("NOAUTH Authentication required.", false),
        ] {
            assert_eq!(lacks_resp3(&said(text), false), lacks, "{text}");
        }
        assert!(lacks_resp3(&said("NOAUTH Authentication required."), true));
        assert!(lacks_resp3(&(redis::ErrorKind::RESP3NotSupported, "no").into(), false));
    }
}
