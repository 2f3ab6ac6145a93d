//! What the server's clock shows, as far as its replies tell.

use super::Moment;

/// The server's time in the last reply, and when that came.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerClock(Option<(u64, Moment)>);

impl ServerClock {
    /// A reply that came at `now` says that it is `server_us`, in microseconds since 1970.
    pub fn learn(&mut self, server_us: u64, now: Moment) {
        self.0 = Some((server_us, now));
    }

    /// Whether a reply has told it.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// The server's time at `moment`, or a little earlier, because the reply had travelled for a while; `None` when no
    /// reply has told it yet.
    pub fn at(&self, moment: Moment) -> Option<u64> {
        self.0.map(|(server_us, then)| {
            server_us.saturating_add(u64::try_from(moment.since(then).as_micros()).unwrap_or(u64::MAX))
        })
    }
}
