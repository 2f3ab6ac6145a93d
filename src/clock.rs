//! The only clock that leases are measured with.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::protocol::Moment;

/// Time since boot, suspend included. Wall-clock steps do not touch it.
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment::from_boot(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()))
}

/// tokio's timers stand still while the machine is suspended: how soon after that a sleeper notices.
const LOOK: Duration = Duration::from_secs(1);

/// Sleeps until `moment`, at once when it has passed.
pub(crate) async fn sleep_until(moment: Moment) {
    loop {
        let left = moment.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
