//! What happens in a run, in order of time.

use std::rc::Rc;

use super::{server::Reply, world::Call};

/// What happens at a moment. Numbers of connections, questions and timers are never used twice in a run.
pub enum Event {
    Arrive { connection: u64, client: usize, task: usize, question: u64, call: Rc<Call> },
    Reply { connection: u64, client: usize, task: usize, question: u64, call: Rc<Call>, reply: Reply },
    Message { connection: u64, client: usize, payload: Vec<u8> },
    GiveUp { client: usize, task: usize, question: u64 },
    Timer { client: usize, task: usize, timer: u64 },
    Cancel { client: usize, task: usize, owner: String },
    Noticed { client: usize, connection: u64 },
    Connected { client: usize, connection: u64 },
    Forgotten { channel: Vec<u8>, connection: u64 },
    Fault,
}

impl Event {
    /// The process in which it happens, which may be stopped.
    pub fn process(&self) -> Option<usize> {
        match *self {
            Self::Reply { client, .. }
            | Self::Message { client, .. }
            | Self::GiveUp { client, .. }
            | Self::Timer { client, .. }
            | Self::Cancel { client, .. }
            | Self::Noticed { client, .. }
            | Self::Connected { client, .. } => Some(client),
            Self::Arrive { .. } | Self::Forgotten { .. } | Self::Fault => None,
        }
    }
}

pub struct Entry {
    pub at: u64,
    pub order: u64,
    pub event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
