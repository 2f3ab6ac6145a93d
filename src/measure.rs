//! What the client measures, for whatever recorder of the `metrics` crate the program installs.
//!
//! Times are in seconds. There are no labels: names of locks are without bound.

use std::time::Duration;

use metrics::{counter, histogram};

/// From the start of an attempt to its lease.
pub fn waited(time: Duration) {
    histogram!("redlatch_wait_seconds").record(time);
}

/// From the grant of a lease to its end here, by a release, a drop or its loss.
pub fn held(time: Duration) {
    histogram!("redlatch_hold_seconds").record(time);
}

/// From a hand-off on the server to the waiter that has its lease, by the server's clock as its replies tell it.
pub fn handed_off(time: Duration) {
    histogram!("redlatch_hand_off_seconds").record(time);
}

/// A lease went to a waiter of this client that had given up; it is released at once.
pub fn granted_to_nobody() {
    counter!("redlatch_grants_to_nobody_total").increment(1);
}

/// A lease is lost.
pub fn lost() {
    counter!("redlatch_lost_total").increment(1);
}

/// How much later than planned a renewal was sent.
pub fn renewed_late(time: Duration) {
    histogram!("redlatch_renewal_lateness_seconds").record(time);
}

/// The server lacked a script, and this client loaded it.
pub fn reloaded() {
    counter!("redlatch_script_reloads_total").increment(1);
}
