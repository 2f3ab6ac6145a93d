//! Counts the instructions that a real redis-server spends on each usual path of the scripts.
//!
//! callgrind (valgrind) counts the same in every run, however busy the machine is. Counting is switched on only around
//! a pipeline of calls, each on a lock of its own that was brought into its state before.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::{Cmd, Connection};
use redlatch::bundle;

/// Calls that are counted together.
const CALLS: usize = 200;
/// How often that is done: the median leaves out what the server does besides, a few times a second.
const ROUNDS: usize = 3;
/// Places of a queue on the paths that have one.
const WAITERS: usize = 8;
/// As long as those of a client: 32 hexadecimal digits and a number.
const CLIENT: &str = "4f9e8c1db2a37765e0d1c2b3a4958677";
const INBOX: &str = "redlatch:inbox:4f9e8c1db2a37765e0d1c2b3a4958677";
const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

/// What one path costs.
pub struct Count {
    pub path: &'static str,
    pub instructions: f64,
    /// As a multiple of `SET NX PX` and compare-and-delete in the same run.
    pub ratio: f64,
}

/// Runs all paths.
pub fn counts() -> Vec<Count> {
    let mut server = Counted::start();
    let mut counts: Vec<(&'static str, f64)> = Vec::new();
    server.raw(&mut counts);
    server.plain(&mut counts);
    server.mutex(&mut counts);
    server.queue(&mut counts);
    let of = |name: &str| counts.iter().find(|(path, _)| *path == name).expect("the path was counted").1;
    let sums = [
        ("raw pair", of("raw SET NX PX") + of("raw compare-and-delete")),
        ("plain pair", of("plain/acquire granted") + of("plain/release released")),
        ("mutex pair", of("mutex/acquire granted") + of("mutex/release released")),
        ("mutex turn", of("mutex/acquire queued, first call") + of("mutex/release handed off, 8 wait")),
    ];
    let raw = sums[0].1;
    counts.extend(sums);
    counts.into_iter().map(|(path, instructions)| Count { path, instructions, ratio: instructions / raw }).collect()
}

/// A redis-server under callgrind, with a subscriber of the inbox.
struct Counted {
    process: Child,
    folder: PathBuf,
    connection: Connection,
    _subscriber: Connection,
    dumps: usize,
}

impl Counted {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("redlatch-counts-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder).expect("a folder for the server");
        let process = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=counts"])
            .args(["redis-server", "--port", "0", "--save", "", "--hz", "1", "--unixsocket", "redis.sock"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("valgrind starts");
        let socket = folder.join("redis.sock");
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "redis-server does not start under valgrind");
            std::thread::sleep(Duration::from_millis(20));
        }
        let client = redis::Client::open(format!("unix://{}", socket.display())).expect("the URL is valid");
        let mut connection = client.get_connection().expect("the server accepts");
        let mut subscriber = client.get_connection().expect("the server accepts");
        redis::cmd("SUBSCRIBE").arg(INBOX).exec(&mut subscriber).expect("the inbox is subscribed");
        for script in bundle::embedded().expect("the bundle is whole").scripts() {
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query::<String>(&mut connection);
            assert_eq!(load.expect("the script loads"), script.digest().as_str());
        }
        Self { process, folder, connection, _subscriber: subscriber, dumps: 0 }
    }

    fn raw(&mut self, counts: &mut Vec<(&'static str, f64)>) {
        let load = |server: &mut Self, source: &str| -> String {
            redis::cmd("SCRIPT").arg("LOAD").arg(source).query(&mut server.connection).expect("the script loads")
        };
        let (delete, nothing) = (load(self, COMPARE_AND_DELETE), load(self, "return 1"));
        let evalsha = |digest: &str, lock: usize, arguments: &[&str]| {
            let mut command = redis::cmd("EVALSHA");
            command.arg(digest).arg(1).arg(key("raw", lock)).arg(arguments);
            command
        };
        let owner = owner(1);
        let set = |lock| redis::cmd("SET").arg(key("raw", lock)).arg(&owner).arg("NX").arg("PX").arg(10_000).clone();
        counts.push(("raw SET NX PX", self.count(set)));
        counts.push(("raw compare-and-delete", self.count(|lock| evalsha(&delete, lock, &[&owner]))));
        counts.push(("a script that does nothing, 1 argument", self.count(|lock| evalsha(&nothing, lock, &["0"]))));
        let ten = ["0"; 10];
        counts.push(("a script that does nothing, 10 arguments", self.count(|lock| evalsha(&nothing, lock, &ten))));
    }

    fn plain(&mut self, counts: &mut Vec<(&'static str, f64)>) {
        let on = |verb: &'static str, who: usize| move |lock| call("plain", verb, lock, &[("owner", &owner(who))]);
        counts.push(("plain/acquire granted", self.count(on("acquire", 1))));
        counts.push(("plain/acquire held", self.count(on("acquire", 2))));
        counts.push(("plain/extend extended", self.count(on("extend", 1))));
        counts.push(("plain/release released", self.count(on("release", 1))));
    }

    /// Nobody waits. Every lock was held once before, as in steady use.
    fn mutex(&mut self, counts: &mut Vec<(&'static str, f64)>) {
        let on = |verb: &'static str, who: usize| move |lock| call("mutex", verb, lock, &[("owner", &owner(who))]);
        for verb in ["acquire", "release"] {
            self.prepare(on(verb, 1));
        }
        counts.push(("mutex/acquire granted", self.count(on("acquire", 2))));
        counts.push(("mutex/acquire held", self.count(on("acquire", 3))));
        counts.push(("mutex/extend extended", self.count(on("extend", 2))));
        counts.push(("mutex/release released", self.count(on("release", 2))));
        counts.push(("mutex/release released before", self.count(on("release", 2))));
        self.prepare(on("acquire", 4));
        counts.push(("mutex/force_release released", self.count(on("force_release", 0))));
    }

    /// Eight wait.
    fn queue(&mut self, counts: &mut Vec<(&'static str, f64)>) {
        let on = |verb: &'static str, who: usize| move |lock| call("queue", verb, lock, &[("owner", &owner(who))]);
        let wait = |who: usize| {
            move |lock| {
                let waiting = [("owner", &*owner(who)), ("queue_ms", "60000"), ("inbox", INBOX), ("inbox_here", "1")];
                call("queue", "acquire", lock, &waiting)
            }
        };
        self.prepare(on("acquire", 1));
        (2..2 + WAITERS - 1).for_each(|who| self.prepare(wait(who)));
        let last = 1 + WAITERS;
        counts.push(("mutex/acquire queued, first call", self.count(wait(last))));
        counts.push(("mutex/acquire queued, heartbeat", self.count(wait(last))));
        counts.push(("mutex/inspect of 8 waiters", self.count(on("inspect", 0))));
        self.prepare(wait(last + 1));
        counts.push(("mutex/release left", self.count(on("release", last + 1))));
        counts.push(("mutex/release handed off, 8 wait", self.count(on("release", 1))));
        counts.push(("mutex/force_release handed off", self.count(on("force_release", 0))));
    }

    /// Runs the call on every lock.
    fn prepare(&mut self, call: impl Fn(usize) -> Cmd) {
        self.run(0..CALLS * ROUNDS, &call);
    }

    /// The same, counted; per call.
    fn count(&mut self, call: impl Fn(usize) -> Cmd) -> f64 {
        let mut counts = [0.0; ROUNDS];
        for (round, count) in counts.iter_mut().enumerate() {
            self.control(&["-i", "on"]);
            self.run_at_once(round * CALLS..(round + 1) * CALLS, &call);
            self.control(&["-d"]);
            self.control(&["-i", "off"]);
            *count = self.dumped() / CALLS as f64;
        }
        counts.sort_by(f64::total_cmp);
        counts[ROUNDS / 2]
    }

    fn run(&mut self, locks: std::ops::Range<usize>, call: &impl Fn(usize) -> Cmd) {
        let mut pipeline = redis::pipe();
        locks.for_each(|lock| {
            pipeline.add_command(call(lock));
        });
        pipeline.query::<Vec<redis::Value>>(&mut self.connection).expect("every call succeeds");
    }

    /// The same, with all calls in the server's socket before it reads the first: how it reads and writes them does
    /// not depend on who is faster.
    fn run_at_once(&mut self, locks: std::ops::Range<usize>, call: &impl Fn(usize) -> Cmd) {
        let commands: Vec<u8> = locks.clone().flat_map(|lock| call(lock).get_packed_command()).collect();
        self.signal("-STOP");
        self.connection.send_packed_command(&commands).expect("the socket takes all calls");
        self.signal("-CONT");
        for _ in locks {
            self.connection.recv_response().expect("every call succeeds");
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {name}");
    }

    /// What the latest dump adds up to. A dump begins the next count.
    fn dumped(&mut self) -> f64 {
        self.dumps += 1;
        let dump = self.folder.join(format!("counts.{}", self.dumps));
        let dump = fs::read_to_string(dump).expect("callgrind has written its counts");
        let total = dump.lines().find_map(|line| line.strip_prefix("totals: ")).expect("they have a sum");
        total.trim().parse().expect("it is a number")
    }

    fn control(&mut self, words: &[&str]) {
        let pid = self.process.id().to_string();
        let done = Command::new("callgrind_control").args(words).arg(pid).output().expect("callgrind_control runs");
        assert!(done.status.success(), "callgrind_control {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn owner(number: usize) -> String {
    format!("{CLIENT}:{number}")
}

fn key(kind: &str, lock: usize) -> String {
    format!("redlatch:m1:{kind}/{lock:05}")
}

/// A call of the newest version of `family`'s script; `queue` is a mutex with waiters.
fn call(kind: &str, verb: &str, lock: usize, given: &[(&str, &str)]) -> Cmd {
    let family = if kind == "queue" { "mutex" } else { kind };
    let bundle = bundle::embedded().expect("the bundle is whole");
    let script = bundle.get(&format!("{family}/{verb}")).expect("the script is in the bundle");
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.digest().as_str()).arg(1).arg(key(kind, lock));
    for argument in &script.header().args {
        if argument.meaning.starts_with("waiters only") && !given.iter().any(|(name, _)| *name == "queue_ms") {
            continue;
        }
        let given = given.iter().find(|(name, _)| *name == argument.name);
        command.arg(given.map_or_else(|| usual(&argument.name), |(_, value)| value));
    }
    command
}

/// What a client sends where nothing else is said.
fn usual(argument: &str) -> &'static str {
    match argument {
        // Long enough for a server that callgrind makes fifty times slower.
        "ttl_ms" => "600000",
        "queue_ms" | "inbox_here" => "0",
        "claim_ms" => "60000",
        // Far in the future, and as long as a time of now.
        "not_after_us" => "4102444800000000",
        "fence_floor" => "1700000000000000",
        "retention_ms" => "3600000",
        "label" => "worker@host-17",
        "inbox" => "",
        "max_waiters" => "8",
        other => panic!("the counts do not know the argument {other}"),
    }
}
