//! The command line as a black box: exit code, stdout and stderr, compared in full wherever they are the same each time.

mod acl;
mod bundle;
mod doctor;
mod fleet;
mod help;
mod json;
mod leaks;
mod lease;
mod load;
mod owner;
mod promise;
mod run;
mod story;
mod terminal;
mod trouble;
mod urls;
mod watch;
mod width;

use std::{
    ffi::OsStr,
    fmt,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use serde_json::{Value, json};

pub use crate::support::until;
use crate::support::{Raw, Server, signal};

/// One call of the program, without any setting of whoever runs the tests.
pub struct Cli {
    command: Command,
    input: Vec<u8>,
}

/// What the program did.
#[derive(PartialEq, Eq)]
pub struct Answer {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The program while it runs.
pub struct Running {
    process: Child,
    readers: Option<[JoinHandle<()>; 2]>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Cli {
    /// Against no server in particular.
    pub fn new(words: &[&str]) -> Self {
        Self::program(env!("CARGO_BIN_EXE_redlatch"), words)
    }

    /// Another program, that starts it.
    pub fn program(program: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program);
        for name in ["REDLATCH_URL", "REDIS_URL", "REDLATCH_PASSWORD", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.args(words);
        Self { command, input: Vec::new() }
    }

    /// Against `server`.
    pub fn on(server: &Server, words: &[&str]) -> Self {
        Self::at(&server.url(), words)
    }

    /// Against the server at `url`.
    pub fn at(url: &str, words: &[&str]) -> Self {
        Self::new(words).env("REDLATCH_URL", url)
    }

    pub fn env(mut self, name: &str, value: &(impl AsRef<OsStr> + ?Sized)) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = self.command.spawn().expect("the program starts");
        // A program that does not read its stdin may have closed it.
        let _ = process.stdin.take().expect("stdin is a pipe").write_all(&self.input);
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = [
            collect(process.stdout.take().expect("stdout is a pipe"), &stdout),
            collect(process.stderr.take().expect("stderr is a pipe"), &stderr),
        ];
        Running { process, readers: Some(readers), stdout, stderr }
    }

    #[track_caller]
    pub fn answer(self) -> Answer {
        self.start().answer()
    }

    /// Stdout of a call that must succeed without a word on stderr.
    #[track_caller]
    pub fn must(self) -> String {
        let answer = self.answer();
        assert_eq!((answer.status, answer.stderr.as_str()), (0, ""), "{answer:?}");
        answer.stdout
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("the program can be waited for").is_some()
    }

    #[track_caller]
    pub fn answer(mut self) -> Answer {
        let mut status = None;
        until("the program ends", || {
            status = self.process.try_wait().expect("the program can be waited for");
            status.is_some()
        });
        let status = status.expect("the program has ended");
        let readers = self.readers.take().expect("nobody has read");
        until("nobody has its stdout and stderr any more", || readers.iter().all(JoinHandle::is_finished));
        Answer {
            status: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
        }
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until stderr has `words`.
    #[track_caller]
    pub fn says(&self, words: &str) {
        until(words, || text(&self.stderr).contains(words));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static, bytes: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let bytes = Arc::clone(bytes);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            bytes.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    })
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8(bytes.lock().unwrap().clone()).expect("the output is UTF-8")
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}\n---", self.status, self.stdout, self.stderr)
    }
}

pub fn answer(status: i32, stdout: &str, stderr: &str) -> Answer {
    Answer { status, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

/// Calls twice what goes wrong: people are told `expected`, and programs the same word by word in the one JSON object,
/// with the code and the node (or "") of each problem.
#[track_caller]
pub fn assert_fails(url: &str, words: &[&str], expected: &Answer, problems: &[(&str, &str)]) {
    // What is different each time is written as #.
    let seen = |text: &str| if expected.stderr.contains('#') { blurred(text) } else { text.to_owned() };
    let call = |words: &[&str]| if url.is_empty() { Cli::new(words) } else { Cli::at(url, words) }.answer();
    let told = call(words);
    assert_eq!(&Answer { stderr: seen(&told.stderr), ..told }, expected, "{words:?}");

    let (own, command) = words.split_at(words.iter().position(|word| *word == "--").unwrap_or(words.len()));
    let told = call(&[own, &["--format", "json"], command].concat());
    let (object, other) = if words[0] == "run" { (&told.stderr, &told.stdout) } else { (&told.stdout, &told.stderr) };
    assert_eq!((told.status, other.as_str()), (expected.status, ""), "{words:?}");
    let mut object: Value = serde_json::from_str(object).unwrap_or_else(|_| panic!("{words:?} {told:?}"));
    let data = object["data"].take();
    match expected.status {
        // An answer, which is no, or was overtaken.
        1 | 75 | 76 => {}
        _ => assert!(data.is_null() || problems[0].0 == "held", "{words:?} {data}"),
    }
    for error in object["errors"].as_array_mut().unwrap() {
        error["message"] = seen(error["message"].as_str().unwrap()).into();
    }
    let errors: Vec<_> = complaints(&expected.stderr)
        .into_iter()
        .zip(problems)
        .map(|((message, hint), (code, node))| {
            json!({ "code": code, "node": Some(node).filter(|node| !node.is_empty()), "message": message, "hint": hint })
        })
        .collect();
    assert_eq!(errors.len(), problems.len(), "{words:?}");
    assert_eq!(
        object,
        json!({
            "format_version": 1, "command": words[0], "ok": expected.status == 0, "exit_code": expected.status, "data": null,
            "errors": errors,
        }),
        "{words:?}"
    );
}

/// Messages on stderr with their hints.
fn complaints(stderr: &str) -> Vec<(String, Option<String>)> {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(usage) = stderr.strip_prefix("error: ") {
        let (message, hint) = usage.split_once("\n\n").unwrap_or((usage, ""));
        return vec![(one_line(message), Some(one_line(hint)))];
    }
    let mut complaints = Vec::new();
    for line in stderr.lines() {
        if let Some(message) = line.strip_prefix("redlatch: ") {
            complaints.push((message.to_owned(), None));
        } else if let (Some(hint), Some(last)) = (line.strip_prefix("  hint: "), complaints.last_mut()) {
            last.1 = Some(hint.to_owned());
        } else {
            panic!("neither a message nor a hint: {line}");
        }
    }
    complaints
}

/// The text of `path` once it is there and its line is complete.
#[track_caller]
pub fn line_of(path: &Path) -> String {
    let mut text = String::new();
    until(&format!("{path:?} has a line"), || {
        text = std::fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text.trim_end().to_owned()
}

/// The text with every number replaced by `#`: for what is different each time.
pub fn blurred(text: &str) -> String {
    let mut blurred = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if blurred.ends_with('#') => {}
            '0'..='9' => blurred.push('#'),
            other => blurred.push(other),
        }
    }
    blurred
}

/// A folder that is gone after the test.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

/// Who holds what [`hold`] leaves held.
pub const HOLDER: &str = "by hand";

/// Leaves `name` held for an hour and returns the file with the owner token.
#[track_caller]
pub fn hold(server: &Server, name: &str, folder: &Path) -> String {
    let file = folder.join(format!("owner of {name}")).to_str().expect("the path is UTF-8").to_owned();
    Cli::on(server, &["acquire", name, "--ttl", "1h", "--label", HOLDER, "--owner-file", &file]).must();
    file
}

/// How many wait for the lock.
#[track_caller]
pub fn waiters(server: &Server, name: &str) -> usize {
    let fields: Vec<String> = Raw::connect(server).must(&["HKEYS", &format!("redlatch:m1:{name}")]);
    fields.iter().filter(|field| field.starts_with("waiter:")).count()
}

/// Whether the lock is held now.
#[track_caller]
pub fn is_held(server: &Server, name: &str) -> bool {
    Cli::on(server, &["inspect", name]).answer().status == 0
}

/// A field of the server's INFO.
pub fn info(raw: &mut Raw, field: &str) -> Option<String> {
    let info: String = raw.must(&["INFO"]);
    info.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
}

/// What the server is, as `status` and `doctor` say it.
pub fn product(raw: &mut Raw) -> String {
    match info(raw, "valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", info(raw, "redis_version").expect("it has a version")),
    }
}

/// Major and minor number of the server's own version.
pub fn version(raw: &mut Raw) -> (u32, u32) {
    let product = product(raw);
    let mut numbers = product.split([' ', '.']).skip(1).map(|number| number.parse().expect("it is a number"));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A server in front of `server` that changes what it answers.
pub fn behind(server: &Server, change: fn(&mut [u8])) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let target = server.socket();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&target).unwrap());
            pass(client.try_clone().unwrap(), server.try_clone().unwrap(), |_| {});
            pass(server, client, change);
        }
    });
    format!("redis://{address}")
}

fn pass(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static, change: fn(&mut [u8])) {
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            change(&mut buffer[..length]);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
}

/// Whether the process is there and not just waiting to be reaped.
pub fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
