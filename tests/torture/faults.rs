//! Kills and stops holders and waiters, and counts how often that really hit one.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redlatch::Client;

use super::{NAMES, fleet::Fleet};
use crate::support::signal;

/// Longer than any lease.
const STOP: Duration = Duration::from_millis(1200);

/// What was done to whom.
#[derive(Debug, Default)]
pub struct Faults {
    pub holders_killed: u32,
    pub waiters_killed: u32,
    pub holders_stopped: u32,
    pub waiters_stopped: u32,
    /// Those of the killed that were nginx workers.
    pub nginx_killed: u32,
    /// When a process was killed, by its label; microseconds since 1970, not later than the kill.
    pub deaths: HashMap<String, u64>,
}

/// The labels of holders and of waiters, over all locks.
#[derive(Default)]
struct Roles {
    holders: Vec<String>,
    waiters: Vec<String>,
}

impl Faults {
    /// Whether every kind of fault has hit somebody.
    pub fn have_bitten(&self) -> bool {
        [self.holders_killed, self.waiters_killed, self.holders_stopped, self.nginx_killed]
            .iter()
            .all(|&count| count > 0)
    }

    /// Hits one process that holds or waits, if there is one.
    pub async fn strike(&mut self, client: &Client, fleet: &mut Fleet, choices: &mut fastrand::Rng) {
        let roles = Roles::read(client).await;
        let stop = choices.u32(..4) == 0;
        let targets = if choices.bool() { roles.holders } else { roles.waiters };
        let Some(target) = choices.choice(targets).filter(|label| fleet.is_alive(label)) else { return };
        let (kind, pid) = target.split_once('/').expect("labels are kind/pid");
        let pid: u32 = pid.parse().expect("labels end with a pid");
        // Stopped first, so that what it holds and waits for is still so when the kill comes.
        signal(pid, "STOP");
        let roles = Roles::read(client).await;
        let (holds, waits) = (roles.holders.contains(&target), roles.waiters.contains(&target));
        if stop && kind == "rust" {
            self.holders_stopped += u32::from(holds);
            self.waiters_stopped += u32::from(waits);
            tokio::time::sleep(STOP).await;
            signal(pid, "CONT");
            return;
        }
        self.holders_killed += u32::from(holds);
        self.waiters_killed += u32::from(waits);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
        self.deaths.insert(target.clone(), u64::try_from(now.as_micros()).expect("not that late"));
        self.nginx_killed += u32::from(kind == "nginx");
        signal(pid, "KILL");
        if fleet.bury(pid) {
            fleet.spawn(choices.u64(..));
        }
    }
}

impl Roles {
    async fn read(client: &Client) -> Self {
        let mut roles = Self::default();
        for name in NAMES {
            let key = format!("redlatch:m1:{name}");
            let lock = client.caller().inspect(key.as_bytes(), 200).await.expect("inspect succeeds");
            let text = |label: Vec<u8>| String::from_utf8(label).expect("labels are text");
            if lock.held {
                roles.holders.push(text(lock.label));
            }
            let in_time = lock.waiters.into_iter().filter(|place| !place.window.is_zero());
            roles.waiters.extend(in_time.map(|place| text(place.label)));
        }
        roles
    }
}
