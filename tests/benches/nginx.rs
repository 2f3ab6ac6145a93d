//! `resty.redlatch` in nginx, driven by wrk, beside a keepalive pool that does SET NX PX and compare-and-delete in the
//! same run.
//!
//! `make bench` prints the tables; `REDLATCH_BENCH_SECONDS` sets the seconds per line (3).

#[path = "lines.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod lines;

#[path = "../support/which_nginx.rs"]
mod which_nginx;

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redlatch::private_server::PrivateServer;

const ROUNDS: usize = 5;
const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free").port()
}

struct Nginx {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Nginx {
    fn start(workers: u32, redis: u16, digest: &str, init: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("redlatch-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let root = env!("CARGO_MANIFEST_DIR");
        let conf = fs::read_to_string(format!("{root}/tests/benches/nginx.conf")).expect("the template is there");
        let blanks = [
            ("@WORKERS@", workers.to_string()),
            ("@DIR@", folder.display().to_string()),
            ("@LIB@", format!("{root}/lua/lib")),
            ("@PORT@", redis.to_string()),
            ("@LISTEN@", port.to_string()),
            ("@COMPARE_AND_DELETE@", digest.to_owned()),
            ("@INIT@", init.replace("@DIR@", &folder.display().to_string())),
        ];
        let conf = blanks.iter().fold(conf, |conf, (blank, text)| conf.replace(blank, text));
        fs::write(folder.join("nginx.conf"), which_nginx::with_modules(&conf)).expect("the folder can be written");
        let mut command = which_nginx::command();
        command.arg("-p").arg(&folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(folder.join("nginx.conf"));
        let child = command.stdin(Stdio::null()).spawn().expect("nginx is installed");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "nginx does not start");
        }
        Self { child, folder, port }
    }

    /// Requests per second, and the percentiles of their times in milliseconds.
    fn load(&self, path: &str, clients: u32) -> (f64, BTreeMap<String, f64>) {
        wrk(&[&format!("http://127.0.0.1:{}{path}", self.port)], clients)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let errors = fs::read_to_string(self.folder.join("error.log")).unwrap_or_default();
        if let Some(first) = errors.lines().next() {
            println!("  first of {} lines in the error log: {first}", errors.lines().count());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn seconds() -> u32 {
    std::env::var("REDLATCH_BENCH_SECONDS").map_or(3, |seconds| seconds.parse().expect("a number of seconds"))
}

fn wrk(urls: &[&str], clients: u32) -> (f64, BTreeMap<String, f64>) {
    let children: Vec<Child> = urls
        .iter()
        .map(|url| {
            let args = ["-t1", &format!("-c{clients}"), &format!("-d{}", seconds()), "--latency", url];
            Command::new("wrk").args(args).stdout(Stdio::piped()).spawn().expect("wrk is installed")
        })
        .collect();
    let mut rate = 0.0;
    let mut percentiles = BTreeMap::new();
    for child in children {
        let output = child.wait_with_output().expect("wrk ends");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["Requests/sec:", number] => rate += number.parse::<f64>().expect("a number"),
                [part, time] if part.ends_with('%') => drop(percentiles.insert(part.to_owned(), milliseconds(time))),
                ["Non-2xx", ..] => println!("  {line}"),
                _ => {}
            }
        }
    }
    (rate, percentiles)
}

fn milliseconds(time: &str) -> f64 {
    let at = time.find(|letter: char| letter.is_alphabetic()).unwrap_or(time.len());
    let number: f64 = time[..at].parse().expect("a time");
    number
        * if &time[at..] == "us" {
            0.001
        } else if &time[at..] == "s" {
            1000.0
        } else {
            1.0
        }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    lines::percentile(&values, 0.5)
}

struct Redis {
    connection: redis::Connection,
}

impl Redis {
    fn count(&mut self, section: &str, of: impl Fn(&str) -> Option<u64>) -> u64 {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection).expect("INFO answers");
        info.lines().filter_map(of).sum()
    }

    fn connections(&mut self) -> u64 {
        self.count("stats", |line| line.strip_prefix("total_connections_received:")?.parse().ok())
    }

    /// Commands that clients sent, without those of scripts.
    fn commands(&mut self) -> u64 {
        let sent = ["evalsha", "get", "set", "subscribe", "ping"];
        self.count("commandstats", |line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            sent.contains(&name).then(|| rest.split(',').next()?.parse().ok()).flatten()
        })
    }
}

/// One lease for each request: nobody waits.
fn uncontended(nginx: &Nginx, redis: &mut Redis) {
    println!("\nAcquire and release in each request, 1 worker, medians of {ROUNDS} rounds in turn");
    println!("clients  who       requests/s   x raw   new connections");
    for clients in [1, 16, 256] {
        let paths = ["raw", "mutex", "plain", "pooled"];
        let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut connections: BTreeMap<&str, u64> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for path in paths {
                let before = redis.connections();
                rates.entry(path).or_default().push(nginx.load(&format!("/{path}"), clients).0);
                *connections.entry(path).or_default() += redis.connections() - before;
            }
        }
        let raw = median(rates["raw"].clone());
        for path in paths {
            let rate = median(rates[path].clone());
            println!("{clients:>7}  {path:<9} {rate:>9.0} {:>7.2} {:>17}", rate / raw, connections[path]);
        }
    }
}

fn hot_key(nginx: &Nginx, redis: &mut Redis) {
    println!("\nOne hot key, 16 clients, 2 workers, held for 2 ms");
    nginx.load("/hot", 16);
    let before = redis.commands();
    let (rate, percentiles) = nginx.load("/hot", 16);
    let leases = rate * f64::from(seconds());
    let (p50, p99) = (percentiles["50%"], percentiles["99%"]);
    println!(
        "{rate:.0} leases/s, wait and hold p50 {p50:.1} ms, p99 {p99:.1} ms ({:.2} x p50), {:.2} commands per lease",
        p99 / p50,
        (redis.commands() - before) as f64 / leases
    );
}

fn refill(nodes: &[Nginx; 2], redis: &mut Redis) {
    println!("\nA page that is fresh for 0.5 s and takes 50 ms, 2 nodes of 2 workers, 64 clients");
    let urls = nodes.each_ref().map(|node| format!("http://127.0.0.1:{}/page", node.port));
    let fills = || -> u64 {
        let of = |node: &Nginx| {
            let url = format!("http://127.0.0.1:{}/fills", node.port);
            let script = format!("import urllib.request; print(urllib.request.urlopen('{url}').read().decode())");
            let output = Command::new("python3").args(["-c", &script]).output().expect("python3 is installed");
            String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().unwrap_or(0)
        };
        nodes.iter().map(of).sum()
    };
    wrk(&[&urls[0], &urls[1]], 32);
    let (commands, filled) = (redis.commands(), fills());
    let (rate, _) = wrk(&[&urls[0], &urls[1]], 32);
    let filled = fills() - filled;
    println!(
        "{rate:.0} requests/s, {filled} fills in {} s, {:.1} Redis commands per fill",
        seconds(),
        (redis.commands() - commands) as f64 / filled as f64
    );
}

/// Traces that LuaJIT gave up, once the load goes on for a while.
fn jit(port: u16, digest: &str) {
    let init = r#"require("jit.v").on("@DIR@/jit.log")"#;
    let nginx = Nginx::start(1, port, digest, init);
    let aborted = || {
        let log = fs::read_to_string(nginx.folder.join("jit.log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with("[TRACE ---")).count()
    };
    nginx.load("/mutex", 16);
    let warm = aborted();
    let (rate, _) = nginx.load("/mutex", 16);
    println!(
        "\nLuaJIT gave up {warm} traces while it warmed up, {} in {:.0} requests after that",
        aborted() - warm,
        rate * f64::from(seconds())
    );
}

fn main() {
    // `cargo test --benches` asks every benchmark to do nothing.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let port = free_port();
    let server = PrivateServer::start(&["--bind", "127.0.0.1", "--port", &port.to_string(), "--maxclients", "5000"]);
    let _server = server.expect("redis-server starts");
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("the address is one");
    let mut redis = Redis { connection: client.get_connection().expect("the server answers") };
    let digest: String =
        redis::cmd("SCRIPT").arg("LOAD").arg(COMPARE_AND_DELETE).query(&mut redis.connection).expect("it loads");
    {
        let nginx = Nginx::start(1, port, &digest, "");
        let (rate, _) = nginx.load("/nothing", 16);
        println!("nginx without any lock: {rate:.0} requests/s");
        uncontended(&nginx, &mut redis);
    }
    let nodes = [Nginx::start(2, port, &digest, ""), Nginx::start(2, port, &digest, "")];
    hot_key(&nodes[0], &mut redis);
    refill(&nodes, &mut redis);
    drop(nodes);
    jit(port, &digest);
}
