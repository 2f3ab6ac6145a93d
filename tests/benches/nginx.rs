//! `resty.redlatch` in nginx, driven by wrk, beside a keepalive pool that does SET NX PX and compare-and-delete in the
//! same run; also behind TLS, and in a cluster of one node.
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
    fn start(workers: u32, servers: &Servers, digest: &str, init: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("redlatch-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let root = env!("CARGO_MANIFEST_DIR");
        let conf = fs::read_to_string(format!("{root}/tests/benches/nginx.conf")).expect("the template is there");
        let blanks = [
            ("@WORKERS@", workers.to_string()),
            ("@DIR@", folder.display().to_string()),
            ("@LIB@", format!("{root}/lua/lib")),
            ("@PORT@", servers.port.to_string()),
            ("@TLS_PORT@", servers.tls_port.to_string()),
            ("@CLUSTER_PORT@", servers.cluster_port.to_string()),
            ("@CERTIFICATE@", servers.certificates.path().join("server.crt").display().to_string()),
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

/// One server that speaks with and without TLS, and one that is a cluster.
struct Servers {
    port: u16,
    tls_port: u16,
    cluster_port: u16,
    certificates: tempfile::TempDir,
    _processes: [PrivateServer; 2],
}

impl Servers {
    fn start() -> Self {
        let [port, tls_port, cluster_port, bus_port] = [(); 4].map(|()| free_port());
        let certificates = tempfile::tempdir().expect("a folder can be made");
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]);
        openssl.args(["-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.crt"]);
        let openssl = openssl.current_dir(certificates.path()).stderr(Stdio::null()).status();
        assert!(openssl.expect("openssl is installed").success());
        let (certificate, key) = (certificates.path().join("server.crt"), certificates.path().join("server.key"));
        let text = |path: &PathBuf| path.display().to_string();
        let start = |port: u16, more: &[&str]| {
            let port = port.to_string();
            let options = [&["--bind", "127.0.0.1", "--port", &port, "--maxclients", "5000"], more].concat();
            PrivateServer::start(&options).expect("redis-server starts")
        };
        let (tls_text, certificate, key) = (tls_port.to_string(), text(&certificate), text(&key));
        let tls = ["--tls-port", &tls_text, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let one = start(port, &[&tls[..], &["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"]].concat());
        let bus = bus_port.to_string();
        let cluster = start(
            cluster_port,
            &["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "127.0.0.1"],
        );
        let mut node = connection(cluster_port);
        redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).exec(&mut node).expect("it takes all slots");
        let state = |node: &mut redis::Connection| -> String {
            redis::cmd("CLUSTER").arg("INFO").query(node).expect("the node answers")
        };
        let asked = Instant::now();
        while !state(&mut node).contains("cluster_state:ok") {
            assert!(asked.elapsed() < Duration::from_secs(30), "the cluster does not form");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, tls_port, cluster_port, certificates, _processes: [one, cluster] }
    }
}

fn connection(port: u16) -> redis::Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("the address is one");
    client.get_connection().expect("the server answers")
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
    println!("clients  who        requests/s   x raw  x clear text   new connections");
    for clients in [1, 16, 256] {
        let paths = ["raw", "raw_tls", "mutex", "tls", "cluster", "plain", "pooled", "pooled_tls"];
        let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut connections: BTreeMap<&str, u64> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for path in paths {
                let before = redis.connections();
                rates.entry(path).or_default().push(nginx.load(&format!("/{path}"), clients).0);
                *connections.entry(path).or_default() += redis.connections() - before;
            }
        }
        let of = |path: &str| median(rates[path].clone());
        for path in paths {
            // What the same does with one server and without TLS.
            let clear = match path {
                "tls" | "cluster" => format!("{:.2}", of(path) / of("mutex")),
                "raw_tls" => format!("{:.2}", of(path) / of("raw")),
                "pooled_tls" => format!("{:.2}", of(path) / of("pooled")),
                _ => String::new(),
            };
            let (rate, raw, connections) = (of(path), of("raw"), connections[path]);
            println!("{clients:>7}  {path:<10} {rate:>10.0} {:>7.2} {clear:>13} {connections:>17}", rate / raw);
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
fn jit(servers: &Servers, digest: &str) {
    let init = r#"require("jit.v").on("@DIR@/jit.log")"#;
    let nginx = Nginx::start(1, servers, digest, init);
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
    let servers = Servers::start();
    let mut redis = Redis { connection: connection(servers.port) };
    let digest: String =
        redis::cmd("SCRIPT").arg("LOAD").arg(COMPARE_AND_DELETE).query(&mut redis.connection).expect("it loads");
    {
        let nginx = Nginx::start(1, &servers, &digest, "");
        let (rate, _) = nginx.load("/nothing", 16);
        println!("nginx without any lock: {rate:.0} requests/s");
        uncontended(&nginx, &mut redis);
    }
    let nodes = [Nginx::start(2, &servers, &digest, ""), Nginx::start(2, &servers, &digest, "")];
    hot_key(&nodes[0], &mut redis);
    refill(&nodes, &mut redis);
    drop(nodes);
    jit(&servers, &digest);
}
