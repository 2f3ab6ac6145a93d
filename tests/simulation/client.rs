//! A simulated process with its own clock: what its tasks do is decided by the client's own state machines.

use std::time::Duration;

use redlatch::{
    Fence,
    protocol::{Acquiring, Moment, Releasing, ServerClock, Tenure, Terms},
};

/// A process: one client id, one connection, one inbox.
pub struct Client {
    pub id: String,
    /// Its clock: a base, and how many millionths it runs fast.
    base_us: u64,
    fast: i64,
    /// Number of the connection; what comes by another one is not heard.
    pub connection: u64,
    pub is_connected: bool,
    pub stopped_until: u64,
    pub server_clock: ServerClock,
    /// When its last bytes arrive at the server, and the server's last bytes here: later ones come later.
    pub to_server: u64,
    pub from_server: u64,
    owners: u64,
    /// Since when it has been connected and awake, in true time.
    pub steady_since: u64,
    pub tasks: Vec<Task>,
}

#[derive(Default)]
pub struct Task {
    pub lock: usize,
    pub state: State,
    pub question: Option<Open>,
    /// Tells the timer that is meant from those before.
    pub timer: u64,
}

/// A question without answer yet.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub number: u64,
    pub sent: Moment,
    /// The same in true time.
    pub sent_us: u64,
    pub ttl: Duration,
}

#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "there are a dozen of them")]
pub enum State {
    #[default]
    Idle,
    /// `heard`: when the last question was sent whose answer gave the lease or a place; `joined`: when a place was
    /// first known.
    Acquiring {
        owner: String,
        terms: Terms,
        acquiring: Acquiring,
        waits: bool,
        heard: u64,
        joined: Option<u64>,
    },
    /// `proven`: when the last question was sent whose answer proves the lease. `late`: as for a release.
    Holding {
        owner: String,
        fence: Fence,
        tenure: Tenure,
        until: Moment,
        proven: u64,
        late: Option<Moment>,
    },
    /// `late`: until when an acquire may still take effect that this release does not wait for.
    Releasing {
        owner: String,
        releasing: Releasing,
        late: Option<Moment>,
    },
    Done,
}

impl Client {
    pub fn new(id: String, connection: u64, rng: &mut fastrand::Rng, now: u64, tasks: Vec<Task>) -> Self {
        Self {
            id,
            base_us: rng.u64(1_000_000..10_000_000_000),
            // A tenth of what the margin allows, as clocks of real machines do not even come near.
            fast: rng.i64(-700..=700),
            connection,
            is_connected: true,
            stopped_until: 0,
            server_clock: ServerClock::default(),
            to_server: now,
            from_server: now,
            owners: 0,
            steady_since: now,
            tasks,
        }
    }

    /// What its clock shows at the true time `now`, in microseconds.
    pub fn moment(&self, now: u64) -> Moment {
        let shift = now as i64 * self.fast / 1_000_000;
        Moment::from_boot(Duration::from_micros(self.base_us + now.saturating_add_signed(shift)))
    }

    /// The first true time at which its clock shows `moment`, or a little later.
    pub fn true_time(&self, moment: Moment) -> u64 {
        let local = moment.since(Moment::from_boot(Duration::from_micros(self.base_us))).as_micros() as i64;
        (local - local * self.fast / (1_000_000 + self.fast)) as u64 + 2
    }

    pub fn next_owner(&mut self) -> String {
        self.owners += 1;
        format!("{}:{}", self.id, self.owners)
    }

    pub fn task_of(&self, owner: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.owner() == Some(owner))
    }

    pub fn inbox(&self) -> String {
        format!("inbox:{}", self.id)
    }
}

impl Task {
    pub fn owner(&self) -> Option<&str> {
        match &self.state {
            State::Acquiring { owner, .. } | State::Holding { owner, .. } | State::Releasing { owner, .. } => {
                Some(owner)
            }
            State::Idle | State::Done => None,
        }
    }
}
