//! What `load --watch` tells of itself: metrics for Prometheus, and whether all is well.

use std::{
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tiny_http::{Header, Method, Request, Response, Server};

use crate::outcome::{Cause, Failure};

/// A server after a round.
pub struct Node {
    /// Where it is.
    pub address: String,
    /// What it is for the others.
    pub role: &'static str,
    /// Whether it answered.
    pub up: bool,
    /// How many scripts were missing and were loaded.
    pub loaded: usize,
    /// For how long they can have been missing, when that is known.
    pub gap: Option<Duration>,
}

/// What is known after the last round. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
    /// A round that is older means that nobody looks any more.
    stale: Duration,
}

#[derive(Default)]
struct State {
    rounds: u64,
    last: Option<Instant>,
    loaded: u64,
    nodes: Vec<Node>,
    longest_gap: Duration,
    /// Why no server could be asked at all.
    trouble: Option<String>,
}

impl Health {
    /// A round that ended longer than `stale` ago is no news.
    pub fn new(stale: Duration) -> Self {
        Self { state: Arc::default(), stale }
    }

    /// What a round found.
    pub fn learn(&self, nodes: Vec<Node>) {
        let mut state = self.state();
        state.rounds += 1;
        state.last = Some(Instant::now());
        state.loaded += nodes.iter().map(|node| node.loaded as u64).sum::<u64>();
        let gaps = nodes.iter().filter_map(|node| node.gap);
        state.longest_gap = gaps.fold(state.longest_gap, Duration::max);
        state.nodes = nodes;
        state.trouble = None;
    }

    /// A round that could not ask for the servers.
    pub fn unreachable(&self, address: &str, why: &str) {
        let mut state = self.state();
        state.rounds += 1;
        state.last = Some(Instant::now());
        state.nodes.iter_mut().for_each(|node| node.up = false);
        state.trouble = Some(format!("{address}: {why}"));
    }

    /// Answers on `address` from a thread of its own. Returns the address, whose port may have been chosen.
    pub fn serve(&self, address: &str) -> Result<SocketAddr, Failure> {
        let failed =
            |why: String| Failure::new(Cause::Configuration, format!("--metrics-addr {address} cannot be used: {why}"));
        let server = Server::http(address).map_err(|error| failed(error.to_string()))?;
        let bound = server.server_addr().to_ip().ok_or_else(|| failed("it is not an address".to_owned()))?;
        let health = self.clone();
        std::thread::Builder::new()
            .name("redlatch-metrics".to_owned())
            .spawn(move || {
                for request in server.incoming_requests() {
                    if let Err(error) = health.answer(request) {
                        tracing::debug!(%error, "a request for metrics was not answered");
                    }
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        Ok(bound)
    }

    fn answer(&self, request: Request) -> std::io::Result<()> {
        let known = matches!(request.method(), Method::Get | Method::Head);
        let (code, text) = match request.url().split('?').next() {
            Some("/metrics") if known => (200, self.metrics()),
            Some("/health") if known => match self.trouble() {
                None => (200, "ok\n".to_owned()),
                Some(trouble) => (503, trouble + "\n"),
            },
            _ => (404, "there are /metrics and /health\n".to_owned()),
        };
        let response = Response::from_string(text).with_status_code(code);
        request.respond(match Header::from_bytes("Content-Type", "text/plain; version=0.0.4; charset=utf-8") {
            Ok(header) => response.with_header(header),
            Err(()) => response,
        })
    }

    /// Why callers cannot rely on their scripts.
    fn trouble(&self) -> Option<String> {
        let state = self.state();
        let Some(last) = state.last else { return Some("nobody has looked yet".to_owned()) };
        if last.elapsed() > self.stale {
            return Some(format!("nobody has looked for {} s", last.elapsed().as_secs()));
        }
        let silent: Vec<_> = state.nodes.iter().filter(|node| !node.up).map(|node| node.address.as_str()).collect();
        let of_nodes = (!silent.is_empty()).then(|| format!("no answer from {}", silent.join(", ")));
        state.trouble.clone().or(of_nodes)
    }

    fn metrics(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &mut dyn Iterator<Item = String>| {
            let _ = writeln!(text, "# HELP redlatch_{name} {help}\n# TYPE redlatch_{name} {kind}");
            samples.for_each(|sample| {
                let _ = writeln!(text, "redlatch_{name}{sample}");
            });
        };
        let one = |value: String| std::iter::once(format!(" {value}"));
        family("watch_rounds_total", "counter", "Looks at all servers.", &mut one(state.rounds.to_string()));
        family(
            "watch_loaded_total",
            "counter",
            "Scripts that were missing and loaded.",
            &mut one(state.loaded.to_string()),
        );
        let age = state.last.map_or(f64::NAN, |last| last.elapsed().as_secs_f64());
        family("watch_last_round_age_seconds", "gauge", "Time since the last look ended.", &mut one(age.to_string()));
        let gap = state.longest_gap.as_secs_f64();
        let help = "The longest that scripts can have been missing.";
        family("watch_longest_gap_seconds", "gauge", help, &mut one(gap.to_string()));
        let labels = |node: &Node| {
            let address = node.address.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{{node=\"{address}\",role=\"{}\"}}", node.role)
        };
        let up = state.nodes.iter().map(|node| format!("{} {}", labels(node), u8::from(node.up)));
        family("watch_node_up", "gauge", "Whether the server answered the last look.", &mut { up });
        let loaded = state.nodes.iter().map(|node| format!("{} {}", labels(node), node.loaded));
        family("watch_node_missing", "gauge", "Scripts that the last look found missing.", &mut { loaded });
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
