//! What `load --watch` tells of itself: metrics for Prometheus, whether it is alive, and whether callers can rely on it.

use std::{
    fmt::Write,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use tokio::net::TcpListener;

use crate::{
    http::{self, Page},
    outcome::{Cause, Failure},
};

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
    /// A loop that has not turned for so long is stuck.
    stuck: Duration,
}

#[derive(Default)]
struct State {
    rounds: u64,
    /// When the loop last turned.
    turned: Option<Instant>,
    /// When a round last ended.
    last: Option<Instant>,
    loaded: u64,
    nodes: Vec<Node>,
    longest_gap: Duration,
    /// Why no server could be asked at all.
    trouble: Option<String>,
}

impl Health {
    /// A loop that does not turn for longer than `stuck` will not turn again.
    pub fn new(stuck: Duration) -> Self {
        let state = State { turned: Some(Instant::now()), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), stuck }
    }

    /// The loop turns: a round begins.
    pub fn turn(&self) {
        self.state().turned = Some(Instant::now());
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
    pub fn unreachable(&self, why: &str) {
        let mut state = self.state();
        state.rounds += 1;
        state.last = Some(Instant::now());
        state.nodes.iter_mut().for_each(|node| node.up = false);
        state.trouble = Some(why.to_owned());
    }

    /// Answers on `address` from now on. Returns the address, whose port may have been chosen.
    pub async fn serve(&self, address: &str) -> Result<SocketAddr, Failure> {
        let failed = |error: io::Error| {
            Failure::new(Cause::Configuration, format!("--metrics-addr {address} cannot be used: {error}"))
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let health = self.clone();
        tokio::spawn(http::serve(listener, move |path| health.page(path)));
        Ok(bound)
    }

    fn page(&self, path: &str) -> Page {
        let answer = |trouble: Option<String>| match trouble {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble + "\n"),
        };
        match path {
            "/metrics" => (StatusCode::OK, self.metrics()),
            "/live" => answer(self.stuck()),
            "/ready" => answer(self.stuck().or_else(|| self.trouble())),
            _ => (StatusCode::NOT_FOUND, "there are /metrics, /live and /ready\n".to_owned()),
        }
    }

    /// That the loop does not turn any more, which only a new start can mend.
    fn stuck(&self) -> Option<String> {
        let since = self.state().turned?.elapsed();
        (since > self.stuck).then(|| format!("nobody has looked for {} s", since.as_secs()))
    }

    /// Why callers cannot rely on their scripts, although somebody looks.
    fn trouble(&self) -> Option<String> {
        let state = self.state();
        if state.last.is_none() {
            return Some("nobody has looked yet".to_owned());
        }
        let silent: Vec<_> = state.nodes.iter().filter(|node| !node.up).map(|node| node.address.as_str()).collect();
        let of_nodes = (!silent.is_empty()).then(|| format!("not known to have every script: {}", silent.join(", ")));
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
        // What a server lacks that does not answer is unknown, which is not 0.
        let loaded = state.nodes.iter().filter(|node| node.up).map(|node| format!("{} {}", labels(node), node.loaded));
        family("watch_node_missing", "gauge", "Scripts that the last look found missing.", &mut { loaded });
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
