//! The same errors from the server that the tests run with.

use redlatch::{Client, Error, ErrorKind};

use super::said;
use crate::support::{Server, topology::Member};

/// One acquire at `url`.
async fn acquire(url: &str) -> Result<(), Error> {
    Client::connect(url).await?.mutex("k")?.try_acquire().await.map(|_| ())
}

#[track_caller]
fn assert_said(outcome: Result<(), Error>, kind: ErrorKind, code: &str) {
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{error}");
    assert_eq!(said::forbidden(&error.to_string()), None, "{error}");
}

#[tokio::test]
async fn a_server_in_trouble_refuses_with_the_code_of_its_trouble() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    let url = server.url();
    acquire(&url).await.unwrap();
    let key: Vec<String> = raw.must(&["KEYS", "*"]);
    raw.must::<()>(&["SET", &key[0], "x"]);
    assert_said(acquire(&url).await, ErrorKind::Refused, "WRONGTYPE");
    raw.must::<()>(&["DEL", &key[0]]);
    raw.must::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_said(acquire(&url).await, ErrorKind::Refused, "OOM");
    raw.must::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    raw.must::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_said(acquire(&url).await, ErrorKind::Refused, "NOREPLICAS");
    raw.must::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    raw.must::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_said(acquire(&url).await, ErrorKind::Refused, "READONLY");
}

#[tokio::test]
async fn whatever_the_acl_denies_is_a_denial() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    acquire(&server.url()).await.unwrap();
    let users = [
        ("command", vec!["+@all", "-hset", "~*"]),
        ("read", vec!["+@all", "-hget", "~*"]),
        ("clock", vec!["+@all", "-time", "~*"]),
        ("key", vec!["+@all", "~other*"]),
        ("script", vec!["+@all", "-evalsha", "~*"]),
    ];
    for (user, rules) in users {
        raw.must::<()>(&[&["ACL", "SETUSER", user, "on", ">s3cret", "&*"], &rules[..]].concat());
        let url = server.url().replace("redis://", &format!("redis://{user}:s3cret@"));
        assert_said(acquire(&url).await, ErrorKind::Refused, "NOPERM");
    }
}

#[tokio::test]
async fn a_command_that_the_server_does_not_have_is_named_and_nothing_is_repeated() {
    for renamed in ["HELLO", "EVALSHA", "TIME", "HSET"] {
        let server = Server::start(&["--requirepass", "s3cret", "--rename-command", renamed, ""]).unwrap();
        let Err(error) = acquire(&format!("{}?pass=s3cret", server.url())).await else {
            assert_eq!(renamed, "HELLO", "it was not missed");
            continue;
        };
        assert_eq!(said::forbidden(&super::shown(&error)), None, "{error:?}");
        // Valkey 9 tells strangers nothing but that it does not know them.
        let says_nothing = renamed == "HELLO" && error.code() == Some("NOAUTH");
        assert!(says_nothing || error.to_string().contains("does not know"), "{error}");
    }
}
