//! I1 to I8: what callers send that nobody should. The nginx half of it is in tests/nginx/input.rs, keys of names in
//! tests/conformance/keys.txt.

use std::time::Duration;

use redlatch::{Client, ErrorKind, call::AcquireArgs};

use super::assert_bitten;
use crate::{
    cli::Cli,
    support::{Raw, Server},
};

/// Longest lease and names that Redis, shells or people read in a way of their own.
const NAMES: [&[u8]; 9] =
    [b"{", b"}", b"{}", b"*?[a-z]", b"a b", b"\xff\xfe\x01", "größe".as_bytes(), b"%41", b"x:queue"];

#[tokio::test]
async fn i1_names_of_any_bytes_are_one_key_from_rust_and_the_shell_or_refused_before_anything_is_sent() {
    use std::os::unix::ffi::OsStrExt;
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let mut raw = Raw::connect(&server);
    for name in NAMES {
        let lease = client.mutex(name).unwrap().acquire().await.unwrap();
        let seen = std::process::Command::new(env!("CARGO_BIN_EXE_redlatch"))
            .arg("inspect")
            .arg(std::ffi::OsStr::from_bytes(name))
            .env("REDLATCH_URL", server.url())
            .output()
            .unwrap();
        assert!(seen.status.success(), "{}", name.escape_ascii());
        lease.release().await.unwrap();
    }
    assert_eq!(raw.must::<usize>(&["DBSIZE"]), NAMES.len());
    let before = raw.count("evalsha");
    for name in [&b""[..], b"a\0b", b"a\r\nb", &[b'x'; 513], &vec![b'x'; 1 << 20]] {
        let error = client.mutex(name).err().expect("it breaks the rules");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert_eq!(raw.count("evalsha"), before);
}

#[tokio::test]
async fn i2_no_name_is_the_key_of_another_lock() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let leases = [
        client.mutex("x").unwrap().acquire().await.unwrap(),
        client.mutex("x:queue").unwrap().acquire().await.unwrap(),
        client.mutex("redlatch:m1:x").unwrap().acquire().await.unwrap(),
    ];
    let _plain = client.plain("x").unwrap().acquire().await.unwrap();
    assert_eq!(Raw::connect(&server).must::<usize>(&["DBSIZE"]), leases.len() + 1);
}

#[tokio::test]
async fn i3_times_out_of_range_are_refused_here_and_by_the_script() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let long = Duration::from_secs(32 * 24 * 3600);
    for ttl in [Duration::ZERO, Duration::from_nanos(1), long, Duration::MAX] {
        assert_eq!(client.mutex("n").unwrap().ttl(ttl).err().expect("it is out of range").kind(), ErrorKind::Invalid);
    }
    for ttl in ["0", "0s", "-1s", "5", "1e3", " 5", "1.5", "99999999999999999999s"] {
        assert_eq!(Cli::on(&server, &["run", "n", "--ttl", ttl, "--", "true"]).answer().status, 2, "{ttl}");
    }
    // A caller that checks nothing meets the script.
    let mut raw = Raw::connect(&server);
    let script = redlatch::bundle::embedded().unwrap().get("mutex/acquire").unwrap();
    let mut refused = 0;
    for ttl in ["0", "-1", "1.5", "", "9007199254740992", "9223372036854775807"] {
        let words = ["o:1", ttl, "0", "0", "3600000", "label", "0", "3000", "", "0"].map(str::as_bytes);
        let command = [&[b"EVAL", script.source(), b"1", b"redlatch:m1:n"][..], &words].concat();
        let error = raw.run(&command).unwrap_err();
        assert_eq!(error.code(), Some("BADARG"), "{ttl}: {error}");
        refused += 1;
    }
    assert_bitten(refused);
}

#[tokio::test]
async fn i4_a_key_of_another_type_is_refused_and_stays_as_it_is() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["SET", "redlatch:m1:n", "mine"]);
    let error = client.mutex("n").unwrap().try_acquire().await.err().expect("it is no lock");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("WRONGTYPE")));
    assert_eq!(raw.must::<String>(&["GET", "redlatch:m1:n"]), "mine");
    assert_bitten(raw.errors("WRONGTYPE"));
}

/// A script that never ends would keep the server from everybody.
#[tokio::test]
async fn i4_whatever_a_lock_holds_every_script_ends() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::try_open(&server.url()).unwrap();
    let bundle = redlatch::bundle::embedded().unwrap();
    let waiter = ["o:1", "1000", "0", "0", "3600000", "label", "1000", "1000", "", "0"];
    let calls: [(&str, &[&str]); 6] = [
        ("mutex/acquire", &waiter),
        ("mutex/acquire", &waiter[..6]),
        ("mutex/extend", &["o:1", "1000", "3600000"]),
        ("mutex/release", &["o:1"]),
        ("mutex/inspect", &["1000"]),
        ("mutex/force_release", &[]),
    ];
    // As numbers: 0, the smallest, huge ones of both signs, and none at all; long enough for a queue or not.
    let mut answered = 0;
    for byte in [0, 1, b'x', 0x7e, 0xfe, 0xff] {
        for length in [1, 58, 99, 400] {
            for (name, args) in calls {
                raw.must::<()>(&["DEL", "redlatch:m1:n"]);
                let state = vec![byte; length];
                raw.run(&[b"HSET", b"redlatch:m1:n", b"state", &state, b"place:1", b"short"]).unwrap();
                let words = args.iter().map(|word| word.as_bytes());
                let command = [b"EVAL", bundle.get(name).unwrap().source(), b"1", b"redlatch:m1:n"].into_iter();
                if let Err(error) = raw.run(&command.chain(words).collect::<Vec<_>>()) {
                    assert!(!error.is_io_error(), "{name} of {length} times {byte}: {error}");
                }
                answered += 1;
            }
        }
    }
    assert_bitten(answered);
}

#[tokio::test]
async fn i6_owner_tokens_have_a_length_and_no_two_are_the_same() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let caller = client.caller();
    for owner in ["", "a b", &"x".repeat(129)] {
        let args = AcquireArgs {
            owner,
            ttl: Duration::from_secs(1),
            queue: Duration::from_secs(1),
            claim: Duration::from_secs(1),
            not_after_us: None,
            fence_floor: None,
            retention: Duration::from_secs(3600),
            label: "",
            inbox: "",
            inbox_here: false,
        };
        let error = caller.acquire(b"redlatch:m1:n", &args).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, Some("BADARG")), "{owner:?}");
    }
    let mut tokens = std::collections::HashSet::new();
    for _ in 0..5 {
        let client = Client::connect(&server.url()).await.unwrap();
        for _ in 0..20 {
            let lease = client.mutex("n").unwrap().acquire().await.unwrap();
            assert!(tokens.insert(lease.owner_token().to_owned()));
            lease.release().await.unwrap();
        }
    }
    // 128 random bits and a counter.
    assert!(tokens.iter().all(|token| token.split(':').next().is_some_and(|id| id.len() == 32)));
}

#[tokio::test]
async fn i7_a_fence_that_cannot_rise_any_more_is_a_definite_error() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    drop(client.mutex("n").unwrap().acquire().await.unwrap());
    client.settle().await;
    Raw::connect(&server).edit_lock("redlatch:m1:n", |lock| lock.fence = 9_007_199_254_740_991);
    let error = client.mutex("n").unwrap().try_acquire().await.err().expect("there is no higher fence");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("FENCEEXHAUSTED")), "{error}");
    assert_bitten(Raw::connect(&server).errors("FENCEEXHAUSTED"));
}

#[tokio::test]
async fn i8_one_client_that_asks_twice_waits_for_itself_unless_it_says_that_the_lease_is_shared() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let lease = lock.acquire().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().granted().is_none());
    lease.release().await.unwrap();
    let shared = redlatch::Reentrant::new(lock);
    let outer = shared.acquire().await.unwrap();
    let inner = shared.acquire().await.unwrap();
    assert_eq!(outer.fence(), inner.fence());
}
