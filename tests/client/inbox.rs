//! Whether messages reach a client belongs to its connection, each one anew.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redlatch::{Client, ErrorKind, Lock};

use crate::support::{Command, Fault, Proxy, Raw, Server};

const KEY: &str = "redlatch:m1:n";
const ACQUIRE: &str = "mutex/acquire";

/// Takes the lock again and again, until `stop`: the queue in front of the client under test is never empty for long.
pub fn contend(server: &Server, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let contend = async |url: String, stop: Arc<AtomicBool>| {
        let lock = Client::connect(&url).await.unwrap().mutex("n").unwrap();
        while !stop.load(Ordering::Relaxed) {
            let lease = lock.acquire().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            lease.release().await.unwrap();
        }
    };
    (0..3).map(|_| tokio::spawn(contend(server.url(), Arc::clone(stop)))).collect()
}

/// A client whose inbox is subscribed.
pub async fn with_inbox(url: &str) -> Lock<redlatch::Mutex> {
    let client = Client::connect(url).await.unwrap();
    let lock = client.mutex("n").unwrap();
    lock.acquire().await.unwrap().release().await.unwrap();
    lock
}

/// What the acquires that pass a proxy say of the inbox: whether it is subscribed.
#[derive(Clone, Default)]
pub struct Said {
    heard: Arc<Mutex<Vec<bool>>>,
    /// In a cluster it is subscribed on another node.
    elsewhere: bool,
}

impl Said {
    pub fn elsewhere(elsewhere: bool) -> Self {
        Self { elsewhere, ..Self::default() }
    }

    pub fn note(&self, command: &Command) {
        if let Some(window) = command.argument(ACQUIRE, "queue_ms")
            && window != "0"
        {
            let here = command.argument(ACQUIRE, "inbox_here") == Some("1");
            let named = command.argument(ACQUIRE, "inbox") != Some("");
            self.heard.lock().unwrap().push(if self.elsewhere { named && !here } else { named && here });
        }
    }

    pub fn take(&self) -> Vec<bool> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_refused_for_now_is_made_again_and_the_waiter_is_served() {
    for refusal in [
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "LOADING Redis is loading the dataset in memory",
        "NOAUTH Authentication required.",
        "ERR something new",
    ] {
        let server = Server::start(&[]).unwrap();
        let proxy = Proxy::start(&server);
        let lock = with_inbox(&proxy.url()).await;
        let stop = Arc::new(AtomicBool::new(false));
        let contenders = contend(&server, &stop);
        let (said, left) = (Said::default(), AtomicU64::new(3));
        proxy.rule({
            let said = said.clone();
            move |command| {
                said.note(command);
                let is_refused = command.is("SUBSCRIBE")
                    && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
                is_refused.then_some(Fault::Refuse(refusal))
            }
        });
        proxy.cut();
        for _ in 0..3 {
            let attempt = lock.acquire_within(Duration::from_secs(60)).await;
            let lease = match attempt {
                Ok(attempt) => attempt.granted().expect("the queue moves on"),
                // A server that wants a password is not waited for.
                Err(error) if error.kind() == ErrorKind::Refused => continue,
                Err(error) => panic!("{refusal}: {error}"),
            };
            lease.release().await.unwrap();
        }
        let lease = lock.acquire_within(Duration::from_secs(60)).await.unwrap().granted().expect("the queue moves on");
        lease.release().await.unwrap();
        assert_eq!(proxy.bites(), 3, "{refusal}");
        assert!(said.take().iter().all(|here| *here), "no connection without its inbox is used: {refusal}");
        stop.store(true, Ordering::Relaxed);
        for contender in contenders {
            contender.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_whose_first_subscription_is_refused_is_made_again() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let lock = Client::connect(&proxy.url()).await.unwrap().mutex("n").unwrap();
    let (subscribed, connected) = (AtomicU64::default(), Arc::new(AtomicU64::default()));
    let made = Arc::clone(&connected);
    proxy.rule(move |command| {
        // With its arguments it is the first command of a connection.
        made.fetch_add(u64::from(command.is("HELLO") && command.len() > 1), Ordering::Relaxed);
        let is_first = command.is("SUBSCRIBE") && subscribed.fetch_add(1, Ordering::Relaxed) == 0;
        is_first.then_some(Fault::Refuse("BUSY Redis is busy running a script."))
    });
    lock.acquire().await.unwrap().release().await.unwrap();
    assert_eq!((proxy.bites(), connected.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_served_after_a_real_script_kept_the_server_busy_while_it_connected() {
    let server = Server::start(&["--busy-reply-threshold", "1"]).unwrap();
    let proxy = Proxy::start(&server);
    let lock = with_inbox(&proxy.url()).await;
    let url = server.url();
    let mut admin = Raw::connect(&server);
    let busy = std::thread::spawn(move || {
        Raw::open(&url).run(&[b"EVAL", b"while true do end", b"0"]).expect_err("it is killed");
    });
    while !matches!(admin.run(&[b"GET", b"x"]), Err(error) if error.code() == Some("BUSY")) {}
    let refused = Arc::new(AtomicU64::default());
    proxy.rule({
        let refused = Arc::clone(&refused);
        move |command| {
            refused.fetch_add(u64::from(command.is("SUBSCRIBE")), Ordering::Relaxed);
            None
        }
    });
    proxy.cut();
    let waiter = tokio::spawn(async move { (lock.acquire_within(Duration::from_secs(60)).await, lock) });
    while refused.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    admin.must::<()>(&["SCRIPT", "KILL"]);
    busy.join().unwrap();
    let (attempt, lock) = waiter.await.unwrap();
    attempt.unwrap().granted().expect("nobody holds it").release().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let contenders = contend(&server, &stop);
    for _ in 0..3 {
        let attempt = lock.acquire_within(Duration::from_secs(60)).await.unwrap();
        attempt.granted().expect("the queue moves on").release().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for contender in contenders {
        contender.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_acl_without_the_channel_waiters_poll_and_a_later_connection_has_its_inbox_again() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let mut admin = Raw::connect(&server);
    admin.must::<()>(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]);
    let said = Said::default();
    proxy.rule({
        let said = said.clone();
        move |command| {
            said.note(command);
            None
        }
    });
    let lock = with_inbox(&proxy.url().replace("redis://", "redis://app:secret@")).await;
    assert!(said.take().iter().all(|here| *here));
    let stop = Arc::new(AtomicBool::new(false));
    let contenders = contend(&server, &stop);
    let expect = async |here: bool| {
        for number in 0..4 {
            let attempt = lock.acquire_within(Duration::from_secs(60)).await.unwrap();
            attempt.granted().expect("the queue moves on").release().await.unwrap();
            // The first question may have been made up before the cut was noticed.
            if number == 0 {
                said.take();
            }
        }
        let said = said.take();
        assert!(!said.is_empty() && said.iter().all(|said| *said == here), "{here}: {said:?}");
    };
    // Takes the connection away from who has subscribed.
    admin.must::<()>(&["ACL", "SETUSER", "app", "resetchannels"]);
    proxy.cut();
    expect(false).await;
    admin.must::<()>(&["ACL", "SETUSER", "app", "&*"]);
    proxy.cut();
    expect(true).await;
    admin.must::<()>(&["ACL", "SETUSER", "app", "-subscribe"]);
    proxy.cut();
    expect(false).await;
    stop.store(true, Ordering::Relaxed);
    for contender in contenders {
        contender.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_or_proxy_without_resp3_serves_waiters_that_poll() {
    for refusal in [
        "NOPROTO unsupported protocol version",
        "ERR unknown command 'HELLO', with args beginning with: '3'",
        "ERR unknown command `HELLO`, with args beginning with: `3`, ",
        "ERR unsupported command 'hello'",
    ] {
        let server = Server::start(&["--requirepass", "canary"]).unwrap();
        let proxy = Proxy::start(&server);
        let said = Said::default();
        proxy.rule({
            let said = said.clone();
            move |command| {
                said.note(command);
                command.is("HELLO").then_some(Fault::Refuse(refusal))
            }
        });
        let client = Client::connect(&proxy.url().replace("redis://", "redis://:canary@")).await.unwrap();
        let lock = client.mutex("n").unwrap();
        let held = lock.acquire().await.unwrap();
        let waiter = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await.unwrap().fence() }
        });
        while client.caller().inspect(KEY.as_bytes(), 0).await.unwrap().places == 0 {
            tokio::task::yield_now().await;
        }
        let fence = held.fence();
        held.release().await.unwrap();
        assert!(waiter.await.unwrap() > fence);
        assert!(proxy.bites() > 0 && said.take().iter().all(|here| !*here), "{refusal}");
    }
}

#[tokio::test]
async fn a_server_whose_hello_is_renamed_serves_the_client() {
    for (password, login) in [("", ""), ("s3cret", "?pass=s3cret")] {
        let server = Server::start(&["--rename-command", "HELLO", "", "--requirepass", password]).unwrap();
        let client = Client::connect(&format!("{}{login}", server.url())).await.unwrap();
        let lock = client.mutex("n").unwrap();
        let held = lock.acquire().await.unwrap();
        assert!(lock.try_acquire().await.unwrap().granted().is_none());
        held.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_waiter_without_an_inbox_asks_often() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    raw.must::<()>(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "resetchannels", "+@all"]);
    let url = format!("{}?user=app&pass=secret", server.url());
    let client = Client::builder().claim(Duration::from_secs(60)).connect(&url).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    let asked = raw.count("evalsha");
    // With an inbox it would ask each twenty seconds.
    let asks = async {
        while raw.count("evalsha") < asked + 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asks).await.expect("it asks often");
    held.release().await.unwrap();
    waiter.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_waiter_whose_connection_breaks_asks_at_once() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().claim(Duration::from_secs(60)).connect(&proxy.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    while client.caller().inspect(KEY.as_bytes(), 0).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    let mut raw = Raw::connect(&server);
    // By itself it would ask each twenty seconds.
    let asks = async {
        for _ in 0..5 {
            let asked = raw.count("evalsha");
            proxy.cut();
            while raw.count("evalsha") == asked {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asks).await.expect("a message may be lost");
    held.release().await.unwrap();
    waiter.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn the_head_of_the_queue_asks_at_once_when_it_is_told_to() {
    let server = Server::start(&[]).unwrap();
    let client = Client::builder().claim(Duration::from_secs(60)).connect(&server.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(600)).unwrap();
    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    while client.caller().inspect(KEY.as_bytes(), 0).await.unwrap().places == 0 {
        tokio::task::yield_now().await;
    }
    let mut raw = Raw::connect(&server);
    let (owner, inbox) = (super::forged::waiter_of(&held), super::forged::inbox_of(&held));
    // By itself it would ask each twenty seconds.
    let told = async {
        for _ in 0..5 {
            let asked = raw.count("evalsha");
            raw.must::<u64>(&["PUBLISH", &inbox, &format!("{owner} 0 0")]);
            while raw.count("evalsha") == asked {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("it asks when it is told to");
    assert!(!waiter.is_finished());
    held.release().await.unwrap();
    waiter.await.unwrap().release().await.unwrap();
}
