//! The `plain` family beside redis-py's own Lock: one key, both sides compare the owner token before they act.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use redlatch::{Attempt, Client, ErrorKind};

use super::connect;
use crate::support::{Raw, Server};

/// A Python process that runs redis-py, see `driver.py`. It ends when this is dropped.
struct Python {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start(server: &Server) -> Self {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
        INSTALLED.get_or_init(|| {
            let status = Command::new(format!("{FOLDER}/peers/install")).status();
            assert!(status.is_ok_and(|status| status.success()), "tests/peers/install must succeed");
        });
        let mut child = Command::new(format!("{FOLDER}/.venv/bin/python"))
            .arg(format!("{FOLDER}/peers/driver.py"))
            .arg(server.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/peers/install has made tests/.venv");
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

async fn fixture() -> (Server, Client, Python) {
    let server = Server::start(&[]).unwrap();
    let client = Client::connect(&server.url()).await.unwrap();
    let python = Python::start(&server);
    (server, client, python)
}

#[tokio::test]
async fn redlatch_respects_a_lock_of_redis_py() {
    let (_server, client, mut python) = fixture().await;
    let lock = client.plain("stock").unwrap();
    assert_eq!(python.ask("acquire stock 30 0"), "yes");
    match lock.try_acquire().await.unwrap() {
        Attempt::Held(held) => assert!(held.remaining <= Duration::from_secs(30) && !held.remaining.is_zero()),
        Attempt::Granted(_) => panic!("two holders"),
    }
    assert_eq!(python.ask("release stock"), "yes");
    assert!(lock.try_acquire().await.unwrap().granted().is_some());
}

#[tokio::test]
async fn redis_py_respects_a_lock_of_redlatch() {
    let (_server, client, mut python) = fixture().await;
    let lease = client.plain("stock").unwrap().acquire().await.unwrap();
    assert_eq!(python.ask("acquire stock 30 0"), "no");
    lease.release().await.unwrap();
    assert_eq!(python.ask("acquire stock 30 0"), "yes");
}

#[tokio::test]
async fn a_redlatch_waiter_is_granted_after_redis_py_releases() {
    let (_server, client, mut python) = fixture().await;
    assert_eq!(python.ask("acquire stock 30 0"), "yes");
    let lock = client.plain("stock").unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap().release().await });
    assert_eq!(python.ask("release stock"), "yes");
    waiter.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_py_waiter_is_granted_after_redlatch_releases() {
    let (_server, client, mut python) = fixture().await;
    let lease = client.plain("stock").unwrap().acquire().await.unwrap();
    python.order("acquire stock 30 60");
    lease.release().await.unwrap();
    assert_eq!(python.answer(), "yes");
}

#[tokio::test]
async fn neither_side_releases_or_extends_the_lock_of_the_other() {
    let (server, client, mut python) = fixture().await;
    let mut raw = Raw::connect(&server);
    let lock = client.plain("stock").unwrap();

    // redis-py believes that it holds what redlatch has acquired since.
    assert_eq!(python.ask("acquire stock 30 0"), "yes");
    raw.must::<()>(&["DEL", "stock"]);
    let lease = lock.acquire().await.unwrap();
    assert_eq!(python.ask("extend stock 60"), "lost");
    assert_eq!(python.ask("release stock"), "lost");
    assert_eq!(raw.must::<String>(&["GET", "stock"]), lease.owner_token());

    // And the other way round.
    raw.must::<()>(&["DEL", "stock"]);
    assert_eq!(python.ask("acquire stock 30 0"), "yes");
    assert_eq!(lease.extend(Duration::from_secs(60)).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(lease.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(raw.must::<String>(&["GET", "stock"]), python.ask("value stock"));
    assert_eq!(python.ask("owned stock"), "yes");
}

#[tokio::test]
async fn both_sides_extend_their_own_lock_to_the_same_ttl() {
    let (server, client, mut python) = fixture().await;
    let mut raw = Raw::connect(&server);
    assert_eq!(python.ask("acquire stock 30 0"), "yes");
    assert_eq!(python.ask("extend stock 90"), "yes");
    assert!((60_001..=90_000).contains(&raw.must::<u64>(&["PTTL", "stock"])));
    assert_eq!(python.ask("release stock"), "yes");
    let lease = client.plain("stock").unwrap().ttl(Duration::from_secs(30)).unwrap().acquire().await.unwrap();
    lease.extend(Duration::from_secs(90)).await.unwrap();
    assert!((60_001..=90_000).contains(&raw.must::<u64>(&["PTTL", "stock"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_and_rust_count_together_and_lose_nothing() {
    const ROUNDS: u64 = 60;
    let (server, client, python) = fixture().await;
    let mut pythons = [python, Python::start(&server), Python::start(&server)];
    pythons.iter_mut().for_each(|python| python.order(&format!("count stock sold {ROUNDS}")));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (lock, mut counter) = (client.plain("stock").unwrap(), connect(&server).await);
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let lease = lock.acquire().await.unwrap();
                let before: Option<u64> = redis::cmd("GET").arg("sold").query_async(&mut counter).await.unwrap();
                tokio::task::yield_now().await;
                let after = before.unwrap_or(0) + 1;
                redis::cmd("SET").arg("sold").arg(after).exec_async(&mut counter).await.unwrap();
                assert!(!lease.is_lost(), "the machine stood still for longer than the TTL");
                lease.release().await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let count = pythons.len() as u64;
    pythons.iter_mut().for_each(|python| assert_eq!(python.answer(), "yes"));
    assert_eq!(Raw::connect(&server).must::<u64>(&["GET", "sold"]), (count + 4) * ROUNDS);
}
