//! `load --watch`: it repairs, tells, and goes on doing so whatever reaches its port.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    Cli, Running,
    fleet::{count, present},
    until,
};
use crate::support::topology::{Member, Replicated, Watched};

/// `load --watch` with its metrics.
struct Watch {
    running: Running,
    metrics: String,
}

impl Watch {
    fn start(url: &str) -> Self {
        let words = ["load", "--watch=200ms", "--timeout", "400ms", "--metrics-addr", "127.0.0.1:0"];
        Self::of(Cli::at(url, &words))
    }

    fn of(cli: Cli) -> Self {
        let running = cli.start();
        running.says("/ready\n");
        Self { metrics: address_of(&running.stderr()), running }
    }

    fn get(&self, path: &str) -> (u16, String) {
        get(&self.metrics, path)
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Where it says that its metrics are.
fn address_of(told: &str) -> String {
    told.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned()
}

fn get(address: &str, path: &str) -> (u16, String) {
    let text = rest(sent(address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()));
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn it_repairs_after_a_flush_a_restart_and_on_a_new_replica_and_tells() {
    let mut servers = Replicated::start(1, &[]);
    let url = servers.primary.url();
    let watch = Watch::start(&url);
    until("both servers have all scripts", || [&servers.primary, &servers.replicas[0]].map(present) == [count(); 2]);
    until("it is ready", || watch.get("/ready") == (200, "ok\n".to_owned()));
    servers.replicas[0].raw().must::<()>(&["SCRIPT", "FLUSH"]);
    until("the replica is repaired", || present(&servers.replicas[0]) == count());
    servers.primary.kill();
    until("it is not ready, and says because of whom", || {
        let (code, text) = watch.get("/ready");
        code == 503 && text.contains(&servers.primary.address())
    });
    assert_eq!(watch.get("/live"), (200, "ok\n".to_owned()), "only the server is down");
    let missing = |server: &Member| format!("redlatch_watch_node_missing{{node=\"{}\"", server.address());
    let metrics = watch.get("/metrics").1;
    assert!(!metrics.contains(&missing(&servers.primary)), "what it lacks is unknown: {metrics}");
    servers.primary.start_again();
    until("the primary is repaired", || present(&servers.primary) == count());
    let port = servers.primary.port.to_string();
    servers.replicas.push(Member::start(&["--replicaof", "127.0.0.1", &port]));
    until("the new replica is found", || present(&servers.replicas[1]) == count());
    until("it is ready again", || watch.get("/ready").0 == 200);
    assert!(watch.metric("redlatch_watch_loaded_total") >= 5.0 * count() as f64);
    assert!(watch.metric("redlatch_watch_longest_gap_seconds") > 0.0);
    assert!(watch.metric("redlatch_watch_rounds_total") > 3.0);
    let up = format!("redlatch_watch_node_up{{node=\"{}\",role=\"replica\"}}", servers.replicas[1].address());
    assert_eq!(watch.metric(&up), 1.0);
    assert_eq!(watch.get("/nothing").0, 404);
    watch.running.signal("TERM");
    let told = watch.running.answer();
    assert_eq!(told.status, 0, "{told:?}");
    let flushed = format!("{} (replica): loaded {}, missing for at most", servers.replicas[0].address(), count());
    assert!(told.stdout.contains(&flushed), "{told:?}");
    assert!(
        told.stdout.contains(&format!("{} (primary) answers again: loaded {}\n", servers.primary.address(), count())),
        "{told:?}"
    );
}

#[test]
fn it_follows_a_switch_of_the_primary_and_callers_find_every_script() {
    let mut watched = Watched::start(&[]);
    let watch = Watch::start(&watched.url());
    until("all have all scripts", || watched.servers.iter().all(|server| present(server) == count()));
    let first = watched.primary();
    watched.servers[first].kill();
    let second = watched.switched_from(first);
    // The dead one comes back as a replica, without scripts.
    watched.servers[first].start_again();
    until("it follows the new primary", || !watched.servers[first].is_primary());
    until("it has all scripts", || present(&watched.servers[first]) == count());
    assert_eq!(Cli::at(&watched.url(), &["run", "n", "--", "true"]).answer().status, 0);
    assert_eq!(watched.servers[second].raw().errors("NOSCRIPT"), 0);
    let switched = format!("{} is primary now, it was replica\n", watched.servers[second].address());
    until("it tells of the switch", || watch.running.stdout().contains(&switched));
    watch.running.signal("INT");
    assert_eq!(watch.running.answer().status, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_the_right_to_load_work_through_flush_and_restart_as_long_as_somebody_watches() {
    let mut server = Member::start(&[]);
    let rules = Cli::at(&server.url(), &["acl", "print", "strict"]).must();
    let give = |server: &Member| {
        let words = ["ACL", "SETUSER", "app", "on", ">pw"].into_iter().chain(rules.split_whitespace());
        server.raw().must::<()>(&words.collect::<Vec<_>>());
    };
    give(&server);
    let watch = Watch::start(&server.url());
    until("the scripts are there", || present(&server) == count());
    let url = format!("redis://app:pw@{}", server.address());
    let client = redlatch::Client::builder().strict(true).connect(&url).await.unwrap();
    let works = async |client: &redlatch::Client| {
        let started = std::time::Instant::now();
        loop {
            match client.mutex("n").unwrap().acquire().await {
                Ok(lease) => return drop(lease),
                Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    works(&client).await;
    server.raw().must::<()>(&["SCRIPT", "FLUSH"]);
    works(&client).await;
    server.kill();
    server.start_again();
    give(&server);
    works(&client).await;
    assert_eq!(server.raw().count("eval") + server.raw().errors("NOPERM"), 0);
    watch.running.signal("TERM");
    assert_eq!(watch.running.answer().status, 0);
}

/// What strangers send. None of it is a request that has an answer with 200, and most of it never ends.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let get = |rest: &str| format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{rest}").into_bytes();
    vec![
        ("nothing", Vec::new()),
        ("half a request", b"GET /met".to_vec()),
        ("headers without an end", get("")),
        ("a huge body that is announced", get("Content-Length: 99999999999999\r\n\r\n")),
        ("a body beyond all numbers", get("Content-Length: 999999999999999999999999\r\n\r\n")),
        ("a negative body", get("Content-Length: -1\r\n\r\n")),
        ("a body that never comes", get("Content-Length: 10\r\n\r\nabc")),
        ("a body without an end", [get("Transfer-Encoding: chunked\r\n\r\n"), b"5\r\nabcde\r\n".repeat(1000)].concat()),
        ("two lengths", get("Content-Length: 1\r\nContent-Length: 2\r\n\r\na")),
        ("one long header", [get("X: "), vec![b'x'; 1 << 20]].concat()),
        ("many headers", [get(""), b"X: y\r\n".repeat(100_000)].concat()),
        ("a long path", [b"GET /".to_vec(), vec![b'x'; 1 << 20]].concat()),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50)),
        ("zeros", vec![0; 100_000]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("Redis", b"*1\r\n$4\r\nPING\r\n".to_vec()),
        ("a POST", b"POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a tunnel", b"CONNECT localhost:22 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("an upgrade", get("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n")),
    ]
}

/// A connection over which `bytes` were sent, as far as they were taken.
fn sent(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = stream.write_all(bytes);
    stream
}

/// What comes back until the server has closed the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection is closed");
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn whatever_is_sent_to_its_port_is_refused_in_time_while_it_answers_others_and_repairs() {
    let server = Member::start(&[]);
    let watch = Watch::start(&server.url());
    until("the scripts are there", || present(&server) == count());
    let open: Vec<_> = nonsense().into_iter().map(|(what, bytes)| (what, sent(&watch.metrics, &bytes))).collect();
    server.raw().must::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(watch.get("/live").0, 200);
    until("it repairs meanwhile", || present(&server) == count());
    until("and says so", || watch.get("/ready").0 == 200);
    for (what, stream) in open {
        let text = rest(stream);
        let refused = text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4");
        assert!(refused, "{what}: {text}");
    }
    assert_eq!(watch.get("/metrics").0, 200);
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_left_at_a_deadline() {
    let server = Member::start(&[]);
    let watch = Watch::start(&server.url());
    let mut slow = sent(&watch.metrics, b"GET /metrics HTTP/1.1\r\nX: ");
    until("it is closed although it goes on sending", || {
        std::thread::sleep(Duration::from_millis(50));
        slow.write_all(b"x").is_err()
    });
}

#[test]
fn hundreds_of_half_requests_leave_descriptors_for_the_watch_and_for_who_asks() {
    let server = Member::start(&[]);
    let mut cli = Cli::at(&server.url(), &["load", "--watch=200ms", "--metrics-addr", "127.0.0.1:0"]);
    let words: Vec<_> = cli.command.get_args().map(ToOwned::to_owned).collect();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(cli.command.get_program()).args(words);
    limited.env("REDLATCH_URL", server.url());
    cli.command = limited;
    let watch = Watch::of(cli);
    until("the scripts are there", || present(&server) == count());
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", watch.running.pid())).unwrap().count();
    let before = descriptors();
    let half: Vec<_> = (0..600).map(|_| sent(&watch.metrics, b"GET /metrics HTTP/1.1\r\n")).collect();
    // A quarter of 64 is for connections, a few are for the watch's own.
    let most = (0..500).map(|_| descriptors()).max();
    assert!(most < Some(before + 16 + 8), "{before}, then {most:?}");
    assert_eq!(watch.get("/live").0, 200);
    server.raw().must::<()>(&["SCRIPT", "FLUSH"]);
    until("it repairs meanwhile", || present(&server) == count());
    assert_eq!(watch.get("/metrics").0, 200);
    drop(half);
}

#[test]
fn it_answers_again_after_no_connection_could_be_accepted() {
    let server = Member::start(&[]);
    let watch = Watch::start(&server.url());
    let limit = |descriptors: &str| {
        let pid = watch.running.pid().to_string();
        let words = ["--pid", &pid, &format!("--nofile={descriptors}:")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    };
    assert_eq!(watch.get("/live").0, 200);
    limit("3");
    let waiting: Vec<_> = (0..100).map(|_| sent(&watch.metrics, b"GET /live HTTP/1.1\r\n\r\n")).collect();
    until("it finds no descriptor for its server either", || watch.running.stdout().contains("Too many open files"));
    limit("1024");
    for stream in waiting {
        drop(stream);
    }
    assert_eq!(watch.get("/live").0, 200);
    until("it looks again", || watch.get("/ready").0 == 200);
}

#[test]
fn it_answers_get_and_head_once_a_connection() {
    let server = Member::start(&[]);
    let watch = Watch::start(&server.url());
    let ask = |method: &str, path: &str| {
        let stream = sent(&watch.metrics, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        // Half of the connection is closed, as some clients do that have no more to say.
        stream.shutdown(Shutdown::Write).unwrap();
        rest(stream)
    };
    let get = ask("GET", "/live?verbose");
    assert!(get.starts_with("HTTP/1.1 200 OK\r\n") && get.ends_with("\r\n\r\nok\n"), "{get}");
    let head = ask("HEAD", "/live");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-length: 3\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "ANYTHING"] {
        let text = ask(method, "/live");
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("allow: GET, HEAD\r\n"), "{text}");
    }
    for path in ["/", "/health", "/live/", "/../live"] {
        assert!(ask("GET", path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    for _ in 0..20 {
        let length = 50_000;
        let head = format!("POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        let mut text = String::new();
        let answered = sent(&watch.metrics, &[head, vec![b'x'; length]].concat()).read_to_string(&mut text);
        assert!(
            answered.is_ok() && text.starts_with("HTTP/1.1 405 "),
            "what is not read costs no answer: {answered:?}"
        );
    }
    let twice = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let text = rest(sent(&watch.metrics, &twice));
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
}

#[test]
fn a_loop_that_is_stuck_is_not_alive() {
    let server = Member::start(&[]);
    let words = ["load", "--watch=10ms", "--timeout", "10ms", "--metrics-addr", "127.0.0.1:0"];
    let mut cli = Cli::at(&server.url(), &words);
    // Nobody reads what it tells, and the pipe has no place left.
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    cli.command.stdout(writer);
    let mut process = cli.command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    let mut stderr = std::io::BufReader::new(process.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut told).unwrap();
    until("it is not alive", || get(&address_of(&told), "/live").0 == 503);
    assert_eq!(get(&address_of(&told), "/ready").0, 503);
    process.kill().unwrap();
    process.wait().unwrap();
    drop(reader);
}

#[test]
fn it_ends_when_it_has_something_to_tell_and_nobody_reads_any_more() {
    let server = Member::start(&[]);
    let mut watch = Command::new("sh");
    watch.args(["-c", "{ \"$0\" load --watch=100ms; echo ended >&2; } | head -1", env!("CARGO_BIN_EXE_redlatch")]);
    let mut shell =
        watch.env("REDLATCH_URL", server.url()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut raw = server.raw();
    until("it ends", || {
        raw.must::<()>(&["SCRIPT", "FLUSH"]);
        shell.try_wait().unwrap().is_some()
    });
    let mut told = String::new();
    shell.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "ended\n");
}
