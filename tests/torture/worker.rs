//! A process that acquires, uses and gives back locks until it is told that the test is over, or killed.

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use redlatch::{Client, Error, ErrorKind, Fence, Lease};
use serde::{Deserialize, Serialize};

use super::{CLAIM, NAMES};

/// The variable that turns a run of the test binary into a worker.
pub const VARIABLE: &str = "REDLATCH_WORKER";

const TASKS: usize = 4;
const TTLS_MS: [u64; 3] = [300, 600, 1000];
/// A slow machine is not what this is about.
const PATIENCE: Duration = Duration::from_secs(20);
const RESOURCE: &str = include_str!("resource.lua");

/// What a worker is told.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// URL of the server with the locks.
    pub locks: String,
    /// URL of the server with the counters.
    pub resource: String,
    /// File to append one line to for every lease.
    pub log: PathBuf,
    /// Seed of all choices.
    pub seed: u64,
}

struct Worker {
    client: Client,
    resource: MultiplexedConnection,
    who: String,
    log: File,
}

/// Works until the test is over. Ends as well when whoever started this process is gone.
pub fn run(orders: &Orders) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let who = format!("rust/{}", std::process::id());
        let client = Client::builder().label(&who).claim(CLAIM).timeout(PATIENCE).connect(&orders.locks).await.unwrap();
        let resource = redis::Client::open(orders.resource.as_str()).unwrap();
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let resource = resource.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let log = File::options().append(true).create(true).open(&orders.log).unwrap();
        let worker = Arc::new(Worker { client, resource, who, log });
        let mut seeds = fastrand::Rng::with_seed(orders.seed);
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (worker, mut choices) = (Arc::clone(&worker), seeds.fork());
                tokio::spawn(async move { while worker.turn(&mut choices).await {} })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

impl Worker {
    /// One attempt, and one section when it succeeds. False when the test is over.
    async fn turn(&self, choices: &mut fastrand::Rng) -> bool {
        let name = NAMES[choices.usize(..NAMES.len())];
        match self.acquire(name, choices).await {
            Ok(Some(lease)) => self.section(name, lease, choices).await,
            Ok(None) => true,
            Err(error) => {
                self.note(&format!("error acquire: {error}"));
                true
            }
        }
    }

    async fn acquire(&self, name: &str, choices: &mut fastrand::Rng) -> Result<Option<Lease>, Error> {
        let ttl = Duration::from_millis(TTLS_MS[choices.usize(..TTLS_MS.len())]);
        let lock = self.client.mutex(name)?.ttl(ttl)?;
        let patience = Duration::from_micros(choices.u64(1..50_000));
        match choices.u32(..10) {
            0 => Ok(lock.try_acquire().await?.granted()),
            1 => Ok(lock.acquire_within(patience).await?.granted()),
            // The future is dropped wherever it is.
            2 => tokio::time::timeout(patience, lock.acquire()).await.ok().transpose(),
            _ => lock.acquire().await.map(Some),
        }
    }

    /// Adds 1 to the counter in two steps that only the lock makes one, then gives the lease back.
    async fn section(&self, name: &str, lease: Lease, choices: &mut fastrand::Rng) -> bool {
        let fence = lease.fence();
        let read = self.ask(name, fence, None).await;
        let mut last = read;
        if read.accepted {
            match choices.u32(..8000) {
                0 => renewed(&lease).await,
                1..800 => tokio::task::yield_now().await,
                _ => {}
            }
            last = self.ask(name, fence, Some(read.value + 1)).await;
        }
        let verdict = match (last.accepted, lease.is_lost()) {
            (true, false) => "kept",
            (true, true) => "late",
            (false, true) => "stale",
            (false, false) => "stale_while_held",
        };
        let released = release(lease, choices).await;
        self.note(&format!("{name} {fence} {} {} {verdict} {released}", read.now_us, last.now_us));
        !last.over
    }

    async fn ask(&self, name: &str, fence: Fence, value: Option<u64>) -> Answer {
        let mut command = redis::cmd("EVAL");
        command.arg(RESOURCE).arg(3).arg(format!("counter:{name}")).arg(format!("writes:{name}")).arg("over");
        command.arg(fence.get()).arg(&self.who).arg(value);
        let reply: Result<(bool, u64, u64, bool), _> = command.query_async(&mut self.resource.clone()).await;
        let (accepted, now_us, value, over) = reply.expect("the resource answers");
        Answer { accepted, now_us, value, over }
    }

    /// One line in one system call, so that a kill loses at most the line that was not written yet.
    fn note(&self, line: &str) {
        (&self.log).write_all(format!("{line}\n").as_bytes()).expect("the log can be written");
    }
}

#[derive(Clone, Copy)]
struct Answer {
    accepted: bool,
    now_us: u64,
    value: u64,
    over: bool,
}

/// Waits until the lease has been renewed, or is lost.
async fn renewed(lease: &Lease) {
    let mut left = lease.remaining();
    while lease.remaining() <= left && !lease.is_lost() {
        left = lease.remaining();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn release(lease: Lease, choices: &mut fastrand::Rng) -> &'static str {
    if choices.u32(..20) == 0 {
        drop(lease);
        return "dropped";
    }
    let now = Instant::now();
    let sure_until = now + lease.remaining();
    match lease.release().await {
        Ok(()) => "released",
        Err(error) if error.kind() != ErrorKind::Lost => "unknown",
        Err(_) if Instant::now() < sure_until => "lost_while_held",
        Err(_) => "lost",
    }
}
