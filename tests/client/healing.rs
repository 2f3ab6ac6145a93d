//! Scripts that are missing: loaded and run in one write, without EVAL, as often as it takes and no more.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use redlatch::{Client, Error, ErrorKind};

use super::fixture;
use crate::support::{Command, Fault, Proxy, Raw, Server};

/// Flushes the scripts again and again, without a pause.
async fn flush(url: String) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    loop {
        redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut connection).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_a_storm_of_script_flush_reaches_no_caller_and_nobody_sends_eval() {
    let (server, client) = fixture().await;
    let storm = [tokio::spawn(flush(server.url())), tokio::spawn(flush(server.url()))];
    // With long names a script and its call do not fit into one read of the server.
    let names = (0..8).map(|number| format!("{}{number}", "n".repeat(if number < 4 { 1 } else { 500 })));
    let callers: Vec<_> = names
        .map(|name| {
            let lock = client.mutex(name).unwrap();
            tokio::spawn(async move {
                for _ in 0..100 {
                    lock.acquire().await.unwrap().release().await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    storm.iter().for_each(tokio::task::JoinHandle::abort);
    let mut raw = Raw::connect(&server);
    let bites = raw.errors("NOSCRIPT");
    println!("1600 calls met {bites} times NOSCRIPT");
    assert!(bites > 0);
    assert_eq!(raw.count("eval"), 0);
}

/// A client behind a proxy that plays `faults` for EVALSHA and SCRIPT LOAD, and how often they were sent.
struct Played {
    _server: Server,
    _proxy: Proxy,
    client: Client,
    sent: Arc<[AtomicU64; 2]>,
}

impl Played {
    async fn new(fault: impl Fn(&Command, u64) -> Option<Fault> + Send + 'static) -> Self {
        let server = Server::start(&[]).unwrap();
        let proxy = Proxy::start(&server);
        let client = Client::connect(&proxy.url()).await.unwrap();
        let sent: Arc<[AtomicU64; 2]> = Arc::default();
        let counts = Arc::clone(&sent);
        proxy.rule(move |command| {
            let loads = command.is("SCRIPT") && command.words().get(1).is_some_and(|word| word == b"LOAD");
            let kind = if command.is("EVALSHA") { 0 } else { loads.then_some(1)? };
            fault(command, counts[kind].fetch_add(1, Ordering::Relaxed))
        });
        Self { _server: server, _proxy: proxy, client, sent }
    }

    /// The outcome of one try, with how often EVALSHA and SCRIPT LOAD were sent for it.
    async fn attempt(&self) -> (Result<(), Error>, [u64; 2]) {
        let outcome = self.client.mutex("n").unwrap().try_acquire().await.map(|attempt| {
            // What gives it back is none of what is counted.
            std::mem::forget(attempt);
        });
        (outcome, [0, 1].map(|kind| self.sent[kind].load(Ordering::Relaxed)))
    }
}

/// How often one call loads a script.
const LOADS: u64 = 4;
const MISSING: Fault = Fault::Refuse("NOSCRIPT No matching script.");

#[tokio::test]
async fn a_missing_script_is_loaded_and_run_in_one_write() {
    let played = Played::new(|command, count| (command.is("EVALSHA") && count == 0).then_some(MISSING)).await;
    let (outcome, sent) = played.attempt().await;
    outcome.unwrap();
    assert_eq!(sent, [2, 1]);
}

#[tokio::test]
async fn a_script_that_is_lost_again_is_loaded_again_a_bounded_number_of_times() {
    let played = Played::new(|command, count| (command.is("EVALSHA") && count < 4).then_some(MISSING)).await;
    let (outcome, sent) = played.attempt().await;
    outcome.unwrap();
    assert_eq!(sent, [5, LOADS]);
    let played = Played::new(|command, _| command.is("EVALSHA").then_some(MISSING)).await;
    let (outcome, sent) = played.attempt().await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ScriptMissing);
    assert_eq!(sent, [5, LOADS]);
}

#[tokio::test]
async fn who_may_not_load_runs_what_another_has_loaded_meanwhile() {
    let denied = Fault::Refuse("NOPERM this user has no permissions to run the 'script|load' command");
    let played = Played::new(move |command, count| match command.is("EVALSHA") {
        true => (count == 0).then_some(MISSING),
        false => Some(denied),
    })
    .await;
    let (outcome, sent) = played.attempt().await;
    outcome.unwrap();
    assert_eq!(sent, [2, 1]);
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_told() {
    let other = Fault::Answer("$40\r\n0123456789012345678901234567890123456789\r\n");
    let played = Played::new(move |command, _| Some(if command.is("EVALSHA") { MISSING } else { other })).await;
    let (outcome, sent) = played.attempt().await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bundle, "{error}");
    assert_eq!(sent, [2, 1]);
}

#[tokio::test]
async fn calls_that_miss_a_script_at_once_load_it_once() {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["SCRIPT", "FLUSH"]);
    raw.must::<()>(&["CONFIG", "RESETSTAT"]);
    let calls: Vec<_> = (0..50)
        .map(|number| {
            let lock = client.mutex(format!("n{number}")).unwrap();
            tokio::spawn(async move { lock.try_acquire().await.unwrap().granted().unwrap() })
        })
        .collect();
    let mut leases = Vec::new();
    for call in calls {
        leases.push(call.await.unwrap());
    }
    assert!(raw.errors("NOSCRIPT") > 1);
    assert_eq!(raw.count("script|load"), 1);
}

#[tokio::test]
async fn strict_never_loads_a_script() {
    let (server, _) = fixture().await;
    let client = Client::builder().strict(true).connect(&server.url()).await.unwrap();
    Raw::connect(&server).must::<()>(&["SCRIPT", "FLUSH"]);
    let error = client.mutex("n").unwrap().try_acquire().await.err().unwrap();
    let said = (
        ErrorKind::ScriptMissing,
        "mutex/acquire of \"redlatch:m1:n\" was refused (NOSCRIPT): the script is not on this server, run \
         `redlatch load`"
            .to_owned(),
    );
    assert_eq!((error.kind(), error.to_string()), said);
}

#[tokio::test]
async fn a_caller_without_the_right_to_load_works_when_scripts_are_loaded() {
    let (server, _) = fixture().await;
    Raw::connect(&server).must::<()>(&[
        "ACL",
        "SETUSER",
        "caller",
        "on",
        ">secret",
        "~redlatch:*",
        "-@all",
        "+evalsha",
        "+hget",
        "+hset",
        "+hdel",
        "+time",
        "+pexpireat",
        "+hello",
    ]);
    let client = Client::connect(&format!("{}?user=caller&pass=secret", server.url())).await.unwrap();
    let lock = client.mutex("n").unwrap();
    let held = lock.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap().fence() }
    });
    let fence = held.fence();
    held.release().await.unwrap();
    assert!(waiting.await.unwrap() > fence);
    // What is missing then is the script, and not a right.
    Raw::connect(&server).must::<()>(&["SCRIPT", "FLUSH"]);
    let error = lock.try_acquire().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ScriptMissing, "{error}");
    assert!(error.to_string().contains("and this user may not load it: run `redlatch load`"), "{error}");
}
