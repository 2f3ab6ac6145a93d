//! The processes under test: Rust workers and an nginx with its workers, replaced when they are killed.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    NAMES,
    worker::{Orders, VARIABLE},
};
use crate::support::{
    Server,
    nginx::{Config, Nginx},
};

const RUST_PROCESSES: usize = 6;
const NGINX_WORKERS: u32 = 3;
const REQUEST_THREADS: usize = 6;
/// What a waiter in nginx that was stopped costs the others: the label of its worker, not of a request, tells who stops.
const NGINX_CLAIM: Duration = Duration::from_millis(100);

/// All processes that use the locks.
pub struct Fleet {
    locks: String,
    resource: String,
    logs: PathBuf,
    workers: HashMap<u32, Child>,
    nginx: Arc<Nginx>,
    requests: Vec<JoinHandle<()>>,
    answers: Arc<Mutex<Vec<String>>>,
    requests_pause: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Fleet {
    /// Starts everything; the logs of the Rust workers go to the folder `logs`. `url` is how they reach `locks`.
    pub fn start(locks: &Server, url: &str, resource: &Server, logs: PathBuf, seeds: &mut fastrand::Rng) -> Self {
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture");
        let nginx = Config::redis(locks).workers(NGINX_WORKERS).locations(&format!(
            "location = /torture {{
                set $locks {}; set $resource {}; set $script {tests}/resource.lua; set $claim {};
                content_by_lua_file {tests}/handler.lua;
            }}",
            locks.socket().display(),
            resource.socket().display(),
            NGINX_CLAIM.as_secs_f64(),
        ));
        let mut fleet = Self {
            locks: url.to_owned(),
            resource: resource.url(),
            logs,
            workers: HashMap::new(),
            nginx: Arc::new(nginx.start()),
            requests: Vec::new(),
            answers: Arc::default(),
            requests_pause: Arc::default(),
            over: Arc::default(),
        };
        (0..RUST_PROCESSES).for_each(|_| fleet.spawn(seeds.u64(..)));
        for _ in 0..REQUEST_THREADS {
            let (nginx, answers) = (fleet.nginx.clone(), fleet.answers.clone());
            let (over, pause) = (fleet.over.clone(), fleet.requests_pause.clone());
            let mut choices = seeds.fork();
            fleet.requests.push(std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if pause.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(10));
                        continue;
                    }
                    let answer = request(&nginx, &mut choices);
                    answers.lock().unwrap().push(answer);
                }
            }));
        }
        fleet
    }

    /// Starts one more Rust worker: this test binary again, with its orders in the environment.
    pub fn spawn(&mut self, seed: u64) {
        let log = self.logs.join(format!("{seed}.log"));
        let orders = Orders { locks: self.locks.clone(), resource: self.resource.clone(), log, seed };
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["torture::worker_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, serde_json::to_string(&orders).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.workers.insert(child.id(), child);
    }

    /// Whether the process that signs as `label` runs.
    pub fn is_alive(&self, label: &str) -> bool {
        match label.split_once('/') {
            Some(("rust", pid)) => self.workers.contains_key(&pid.parse().unwrap()),
            Some(("nginx", pid)) => self.nginx.workers().contains(&pid.parse().unwrap()),
            _ => false,
        }
    }

    /// Forgets a Rust worker that was killed. nginx's master sees to its own.
    pub fn bury(&mut self, pid: u32) -> bool {
        self.workers.remove(&pid).is_some_and(|mut child| child.wait().is_ok())
    }

    /// Panics when a worker has ended by itself: then it found something that must not be.
    pub fn check_running(&mut self) {
        for (pid, child) in &mut self.workers {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("worker {pid} ended before the test was over: {status}");
            }
        }
    }

    /// Whether nginx is to get no more requests for now.
    pub fn pause_requests(&self, pause: bool) {
        self.requests_pause.store(pause, Ordering::Relaxed);
    }

    /// Waits for everybody after the test was declared over; returns what is to be remarked.
    pub fn finish(&mut self, patience: Duration) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        let (asked, mut remarks) = (Instant::now(), Vec::new());
        while !self.workers.is_empty() && asked.elapsed() < patience {
            self.workers.retain(|pid, child| match child.try_wait().unwrap() {
                None => true,
                Some(status) => {
                    if !status.success() {
                        remarks.push(format!("worker {pid} ended with {status}"));
                    }
                    false
                }
            });
            std::thread::sleep(Duration::from_millis(10));
        }
        remarks.extend(self.workers.keys().map(|pid| format!("worker {pid} waits for ever")));
        self.requests.drain(..).for_each(|thread| thread.join().expect("requests end"));
        // Its drivers would keep their subscriptions.
        self.nginx.quit();
        remarks
    }

    /// Every line that the clients wrote down, those of killed ones too.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.answers.lock().unwrap().clone();
        for entry in std::fs::read_dir(&self.logs).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for child in self.workers.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // They share the nginx, which must not outlive the test.
        self.requests.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// One request; the answer of a worker that was killed meanwhile is `killed`.
fn request(nginx: &Nginx, choices: &mut fastrand::Rng) -> String {
    let name = NAMES[choices.usize(..NAMES.len())];
    let ttl = choices.u64(3..11) * 100;
    let wait = if choices.u32(..10) == 0 { 0 } else { choices.u64(1..1500) };
    let path = format!("/torture?name={name}&ttl={}&wait={}&hold=0", ttl as f64 / 1000.0, wait as f64 / 1000.0);
    match nginx.get(&path) {
        (0, _) => "killed".to_owned(),
        (200, line) if line.is_empty() => "killed".to_owned(),
        (200, line) => line,
        (status, text) => format!("error status {status}: {text}"),
    }
}
