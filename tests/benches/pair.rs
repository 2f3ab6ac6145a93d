//! What one acquire and one release cost, beside the raw floor in the same run: `SET key owner NX PX` and a
//! compare-and-delete by EVALSHA, on the same server and the same kind of connection.
//!
//! First two tables of ratios, each taken round by round so that a machine whose speed drifts does not favour one
//! side; then the latencies of single pairs.

use std::{
    hint::black_box,
    sync::LazyLock,
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use redlatch::{Client, private_server::PrivateServer};
use tokio::runtime::Runtime;

const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
const ROUNDS: usize = 41;
const PAIRS_PER_ROUND: usize = 1000;

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::start);

struct Fixture {
    runtime: Runtime,
    _server: PrivateServer,
    client: Client,
    raw: Raw,
}

#[derive(Clone)]
struct Raw {
    connection: MultiplexedConnection,
    digest: String,
}

impl Fixture {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        // TCP on loopback, as between an application and a Redis on the same machine.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a port is free").port().to_string();
        let server = PrivateServer::start(&["--bind", "127.0.0.1", "--port", &port]).expect("redis-server starts");
        let url = format!("redis://127.0.0.1:{port}");
        let (client, raw) = runtime.block_on(async {
            let client = Client::connect(&url).await.expect("the client connects");
            let connection = redis::Client::open(url.as_str()).expect("the URL is valid");
            let mut connection = connection.get_multiplexed_async_connection().await.expect("the raw connection opens");
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(COMPARE_AND_DELETE);
            let digest = load.query_async(&mut connection).await.expect("the script loads");
            (client, Raw { connection, digest })
        });
        Self { runtime, _server: server, client, raw }
    }
}

impl Raw {
    async fn pair(&self, key: &str, owner: &str) {
        let mut connection = self.connection.clone();
        let mut set = redis::cmd("SET");
        set.arg(key).arg(owner).arg("NX").arg("PX").arg(10_000);
        set.query_async::<String>(&mut connection).await.expect("SET succeeds");
        let mut delete = redis::cmd("EVALSHA");
        delete.arg(&self.digest).arg(1).arg(key).arg(owner);
        assert_eq!(delete.query_async::<i64>(&mut connection).await.expect("the key is deleted"), 1);
    }

    /// Microseconds that the server has spent in commands of the given names.
    async fn server_us(&self, commands: &[&str]) -> f64 {
        let mut connection = self.connection.clone();
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("INFO answers");
        stats
            .lines()
            .filter(|line| commands.iter().any(|name| line.starts_with(&format!("cmdstat_{name}:"))))
            .filter_map(|line| line.split("usec=").nth(1)?.split(',').next()?.parse::<f64>().ok())
            .sum()
    }
}

async fn mutex_pair(client: &Client, name: &str) {
    let lock = client.mutex(name).expect("the name is valid");
    let lease = lock.try_acquire().await.expect("the server answers").granted().expect("the lock is free");
    lease.release().await.expect("the lease is ours");
}

async fn plain_pair(client: &Client, key: &str) {
    let lock = client.plain(key).expect("the key is valid");
    let lease = lock.try_acquire().await.expect("the server answers").granted().expect("the lock is free");
    lease.release().await.expect("the lease is ours");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Server time of a pair: what INFO commandstats adds up for EVALSHA and SET.
async fn server_time_table(fixture: &Fixture) {
    let (mut raw, mut plain, mut mutex) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(server_time(fixture, &["set", "evalsha"], async || fixture.raw.pair("floor", "owner").await).await);
        plain.push(server_time(fixture, &["evalsha"], async || plain_pair(&fixture.client, "plain").await).await);
        mutex.push(server_time(fixture, &["evalsha"], async || mutex_pair(&fixture.client, "mutex").await).await);
    }
    let ratio = |values: &[f64]| median(values.iter().zip(&plain).map(|(value, plain)| value / plain).collect());
    let (raw_ratio, mutex_ratio) = (ratio(&raw), ratio(&mutex));
    println!("server time of acquire + release, median of {ROUNDS} rounds");
    println!("  {:<38} {:>8}  {:>10}", "", "us/pair", "x plain");
    println!("  {:<38} {:>8.2}  {:>10.2}", "SET NX PX + compare-and-delete", median(raw), raw_ratio);
    println!("  {:<38} {:>8.2}  {:>10.2}", "plain/acquire + plain/release", median(plain), 1.0);
    println!("  {:<38} {:>8.2}  {:>10.2}", "mutex/acquire + mutex/release", median(mutex), mutex_ratio);
}

async fn server_time(fixture: &Fixture, commands: &[&str], pair: impl AsyncFn()) -> f64 {
    let before = fixture.raw.server_us(commands).await;
    for _ in 0..PAIRS_PER_ROUND {
        pair().await;
    }
    (fixture.raw.server_us(commands).await - before) / PAIRS_PER_ROUND as f64
}

/// Pairs per second of tasks that each wait for one reply before they send the next command.
async fn throughput_table(fixture: &'static Fixture) {
    println!("\nthroughput, one connection, each task waits for every reply, median of {ROUNDS} rounds");
    println!(
        "  {:<6} {:>14} {:>14} {:>14} {:>12} {:>12}",
        "tasks", "raw pairs/s", "plain", "mutex", "plain/raw", "mutex/raw"
    );
    for tasks in [1, 16, 64] {
        let (mut raw, mut plain, mut mutex) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            raw.push(
                rate(tasks, |n| {
                    let raw = fixture.raw.clone();
                    async move { raw.pair(&format!("floor{n}"), "owner").await }
                })
                .await,
            );
            plain.push(
                rate(tasks, |n| {
                    let client = fixture.client.clone();
                    async move { plain_pair(&client, &format!("plain{n}")).await }
                })
                .await,
            );
            mutex.push(
                rate(tasks, |n| {
                    let client = fixture.client.clone();
                    async move { mutex_pair(&client, &format!("mutex{n}")).await }
                })
                .await,
            );
        }
        let ratio = |values: &[f64]| median(values.iter().zip(&raw).map(|(value, raw)| value / raw).collect());
        let (plain_ratio, mutex_ratio) = (ratio(&plain), ratio(&mutex));
        println!(
            "  {tasks:<6} {:>14.0} {:>14.0} {:>14.0} {plain_ratio:>12.2} {mutex_ratio:>12.2}",
            median(raw),
            median(plain),
            median(mutex),
        );
    }
    println!();
}

async fn rate<F: Future<Output = ()> + Send + 'static>(
    tasks: usize,
    pair: impl Fn(usize) -> F + Clone + Send + 'static,
) -> f64 {
    let started = Instant::now();
    let pairs = PAIRS_PER_ROUND / tasks;
    let running: Vec<_> = (0..tasks)
        .map(|n| {
            let pair = pair.clone();
            let work = async move {
                for _ in 0..pairs {
                    pair(n).await;
                }
            };
            tokio::spawn(work)
        })
        .collect();
    for task in running {
        task.await.expect("a task ends well");
    }
    (pairs * tasks) as f64 / started.elapsed().as_secs_f64()
}

#[divan::bench(min_time = Duration::from_millis(500))]
fn raw_pair(bencher: divan::Bencher) {
    let fixture = &*FIXTURE;
    bencher.bench(|| fixture.runtime.block_on(black_box(fixture.raw.pair("floor", "owner"))));
}

#[divan::bench(min_time = Duration::from_millis(500))]
fn plain_pair_latency(bencher: divan::Bencher) {
    let fixture = &*FIXTURE;
    bencher.bench(|| fixture.runtime.block_on(black_box(plain_pair(&fixture.client, "plain"))));
}

#[divan::bench(min_time = Duration::from_millis(500))]
fn mutex_pair_latency(bencher: divan::Bencher) {
    let fixture = &*FIXTURE;
    bencher.bench(|| fixture.runtime.block_on(black_box(mutex_pair(&fixture.client, "mutex"))));
}

fn main() {
    let fixture: &'static Fixture = &FIXTURE;
    fixture.runtime.block_on(async {
        server_time_table(fixture).await;
        throughput_table(fixture).await;
    });
    divan::main();
}
