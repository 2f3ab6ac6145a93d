//! A real nginx with `resty.redlatch`, on a unix socket in a folder of its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Server, signal, which_nginx};

const STARTUP: Duration = Duration::from_secs(10);

/// What to start: the template `tests/nginx/nginx.conf` with its blanks.
#[derive(Clone)]
pub struct Config {
    /// Worker processes.
    pub workers: u32,
    /// `worker_connections`.
    pub connections: u32,
    /// Lua fields of the options of `redlatch.new` that all requests share, as `port = 7000`.
    pub options: String,
    /// More `location` blocks.
    pub locations: String,
    /// More blocks in `http`.
    pub http: String,
    /// More directives outside of `http`.
    pub main: String,
    /// The folder that holds `resty/redlatch.lua`.
    pub lib: PathBuf,
}

impl Config {
    /// Two workers that use this Redis.
    pub fn redis(server: &Server) -> Self {
        Self::new(&format!("socket = \"{}\"", server.socket().display()))
    }

    /// Two workers with these options of `redlatch.new`.
    pub fn new(options: &str) -> Self {
        Self {
            workers: 2,
            connections: 1024,
            options: options.to_owned(),
            locations: String::new(),
            http: String::new(),
            main: String::new(),
            lib: root().join("lua/lib"),
        }
    }

    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    pub fn options(mut self, options: &str) -> Self {
        self.options = format!("{}, {options}", self.options);
        self
    }

    pub fn locations(mut self, locations: &str) -> Self {
        self.locations = locations.to_owned();
        self
    }

    pub fn http(mut self, http: &str) -> Self {
        self.http = http.to_owned();
        self
    }

    pub fn main(mut self, main: &str) -> Self {
        self.main = main.to_owned();
        self
    }

    pub fn lib(mut self, lib: &Path) -> Self {
        self.lib = lib.to_owned();
        self
    }

    fn fill(&self, folder: &Folder) -> String {
        let template = fs::read_to_string(root().join("tests/nginx/nginx.conf")).unwrap();
        let dir = folder.0.to_str().unwrap();
        template
            .replace("@MAIN@", &self.main)
            .replace("@WORKERS@", &self.workers.to_string())
            .replace("@CONNECTIONS@", &self.connections.to_string())
            .replace("@LISTEN@", &format!("unix:{dir}/http.sock"))
            .replace("@DIR@", dir)
            .replace("@LIB@", self.lib.to_str().unwrap())
            .replace("@TESTS@", root().join("tests/nginx").to_str().unwrap())
            .replace("@HTTP@", &self.http)
            .replace("@OPTIONS@", &self.options)
            .replace("@LOCATIONS@", &self.locations)
    }

    pub fn start(&self) -> Nginx {
        let folder = Folder::new();
        let conf = self.fill(&folder);
        Nginx::start(folder, &conf, "http.sock")
    }
}

/// A running nginx; stopped by its pid when dropped. Prints its error log when the test fails.
pub struct Nginx {
    child: Child,
    folder: Folder,
    socket: PathBuf,
}

impl Nginx {
    /// The folder to write `conf` for, for configurations that are not made from the template.
    pub fn folder() -> Folder {
        Folder::new()
    }

    /// The first lines of a nginx that refuses to start.
    pub fn refusal(config: &Config) -> String {
        let folder = Folder::new();
        write(&folder, &config.fill(&folder));
        let stderr = fs::File::create(folder.0.join("stderr")).unwrap();
        let child = nginx(&folder.0).stderr(stderr).spawn().expect("nginx is installed");
        let mut nginx = Self { child, socket: folder.0.join("http.sock"), folder };
        let started = Instant::now();
        let status = loop {
            if let Some(status) = nginx.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < STARTUP, "it does start");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(!status.success());
        nginx.read("stderr")
    }

    /// Starts nginx with `conf`, which listens on the unix socket `socket` inside `folder`.
    pub fn start(folder: Folder, conf: &str, socket: &str) -> Self {
        write(&folder, conf);
        let command = nginx(&folder.0);
        Self::wait_for(command, folder, socket)
    }

    /// The same for a configuration that relies on an installed package and on nginx' defaults.
    pub fn start_installed(folder: Folder, conf: &str, socket: &str) -> Self {
        write(&folder, conf);
        let mut command = nginx(&folder.0);
        command.env("LUA_PATH", format!("{}/lua/lib/?.lua;;", root().display()));
        command.arg("-g").arg(format!("daemon off; user root; pid {}/nginx.pid;", folder.0.display()));
        Self::wait_for(command, folder, socket)
    }

    fn wait_for(mut command: Command, folder: Folder, socket: &str) -> Self {
        let out = fs::File::create(folder.0.join("stderr")).unwrap();
        let child = command.stderr(out).spawn().expect("nginx is installed");
        let mut nginx = Self { child, socket: folder.0.join(socket), folder };
        let started = Instant::now();
        while UnixStream::connect(&nginx.socket).is_err() {
            if nginx.child.try_wait().unwrap().is_some() || started.elapsed() > STARTUP {
                panic!("nginx does not start: {}{}", nginx.read("stderr"), nginx.read("error.log"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        nginx
    }

    /// Answer of `GET path`: status and body. An answer that breaks off has the status 0.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.get_with(path, "")
    }

    /// The same with more headers, each with its line's end.
    pub fn get_with(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = self.send_with(path, headers);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    /// Sends `GET path` and leaves the answer unread.
    pub fn send(&self, path: &str) -> UnixStream {
        self.send_with(path, "")
    }

    /// A connection by which nothing is sent yet.
    pub fn connect(&self) -> UnixStream {
        self.connect_to(&self.socket)
    }

    /// The same for another socket in the folder.
    pub fn connect_to(&self, socket: impl AsRef<Path>) -> UnixStream {
        let stream = UnixStream::connect(self.folder.0.join(socket)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn send_with(&self, path: &str, headers: &str) -> UnixStream {
        let mut stream = self.connect();
        // A worker that is killed breaks off as early as this.
        let _ = stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n{headers}\r\n").as_bytes());
        stream
    }

    /// A request to the handler, see `tests/nginx/README.md`. Values are percent-encoded here.
    pub fn call(&self, op: &str, params: &[(&str, &str)]) -> Value {
        let (status, body) = self.get(&Self::path(op, params));
        assert_eq!(status, 200, "op={op} {params:?}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|err| panic!("{err}: {body}"))
    }

    /// The path of such a request.
    pub fn path(op: &str, params: &[(&str, &str)]) -> String {
        let mut path = format!("/call?op={op}");
        for (param, value) in params {
            path += &format!("&{param}={}", percent_encode(value.as_bytes()));
        }
        path
    }

    /// Reads the configuration again, as `nginx -s reload` does.
    pub fn reload(&self) {
        signal(self.child.id(), "HUP");
    }

    /// Lets the workers end their requests, and waits until they are gone.
    pub fn quit(&self) {
        signal(self.child.id(), "QUIT");
        let asked = Instant::now();
        while !self.workers().is_empty() {
            let states = self.workers().into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")));
            assert!(asked.elapsed() < Duration::from_secs(60), "nginx does not end: {:?}", states.collect::<Vec<_>>());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn error_log(&self) -> String {
        self.read("error.log")
    }

    /// Pids of the workers, those of a replaced generation too.
    pub fn workers(&self) -> Vec<u32> {
        let master = self.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.0.join(file)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let workers = self.workers();
        kill("TERM", self.child.id());
        let asked = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if asked.elapsed() > Duration::from_secs(5) {
                workers.iter().for_each(|&pid| kill("KILL", pid));
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
        if thread::panicking() {
            eprintln!("nginx error log:\n{}", self.error_log());
        }
    }
}

/// A folder that is gone when the test is over.
pub struct Folder(pub PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("redlatch-nginx-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A signal that may come too late.
fn kill(name: &str, pid: u32) {
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status();
}

pub fn percent_encode(bytes: &[u8]) -> String {
    let mut encoded = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

fn write(folder: &Folder, conf: &str) {
    fs::write(folder.0.join("nginx.conf"), which_nginx::with_modules(conf)).unwrap();
}

/// nginx with the `nginx.conf` of a folder.
pub fn nginx(folder: &Path) -> Command {
    let mut command = which_nginx::command();
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(folder.join("nginx.conf"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
