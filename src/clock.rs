//! The only clock that leases are measured with.

use rustix::time::{ClockId, clock_gettime};

use crate::protocol::Moment;

/// Time since boot, suspend included. Wall-clock steps do not touch it.
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment::from_boot(std::time::Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    ))
}

/// Sleeps until `moment`, at once when it has passed.
pub(crate) async fn sleep_until(moment: Moment) {
    // tokio's timer stands still during a suspend, so look again after waking.
    loop {
        let left = moment.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}
