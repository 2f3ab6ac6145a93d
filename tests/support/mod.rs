//! What tests stand on: real servers in folders of their own, stopped by pid, and a proxy that breaks what passes.

mod clock;
pub mod lock;
pub mod nginx;
mod proxy;
mod pty;
mod redis;
mod resp;
pub mod topology;
pub mod which_nginx;

pub use clock::ClockShim;
pub use proxy::{Fault, Proxy};
pub use pty::Pty;
pub use redis::{Raw, Server, signal};
pub use resp::Command;

/// A number that a variable of the environment may set.
pub fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("the variable is a number"))
}

/// To the terminal also when the test succeeds, which the test harness would keep quiet.
pub fn say(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}

/// Waits for a condition, for at most a minute: a hang guard, never a measure.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed().as_secs() < 60, "still waiting: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
