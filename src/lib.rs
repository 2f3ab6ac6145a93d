//! Distributed locks on Redis: leases with a FIFO queue, a fencing token and a loss signal.
//!
//! ```
//! # use std::time::Duration;
//! # redlatch::private_server::with_server(async |url| {
//! let client = redlatch::Client::connect(&url).await?;
//! let lease = client.mutex("orders/42")?.acquire().await?;
//! // Send the fence along with every write, so that the resource can refuse a holder that came too late.
//! println!("holding orders/42 with fence {}", lease.fence());
//! lease.release().await?;
//! # Ok(()) });
//! ```
//!
//! # Layout
//!
//! - [`bundle`]: the embedded scripts as values.
//! - [`call`]: one EVALSHA on one key: routing, healing and typed replies.
//! - [`protocol`]: when a waiter asks again and when a lease ends, without I/O or clock.
//! - the client: [`Client`], [`Lock`], [`Lease`] on tokio; [`Lock::with`], [`acquire_all`] and [`Reentrant`] on top of it.
//! - [`blocking`]: the same for programs without tokio.
//!
//! # What it tells
//!
//! Attempts, extends and releases are `tracing` spans (`acquire`, `extend`, `release`, at level debug, with the name of
//! the lock); what goes wrong in the background is an event at level warn. A program that tells people takes an [`Event`]
//! for each place in the queue, each renewal and each failed one: [`ClientBuilder::events`]. With a recorder of the `metrics` crate
//! installed, it counts and measures, times in seconds:
//!
//! | metric | what |
//! |---|---|
//! | `redlatch_wait_seconds` | from the start of an attempt to its lease |
//! | `redlatch_hold_seconds` | from a grant to its end: release, drop or loss |
//! | `redlatch_hand_off_seconds` | from a hand-off on the server to the waiter that has it, by the server's clock as replies tell it |
//! | `redlatch_grants_to_nobody_total` | leases that went to a waiter of this client which had given up |
//! | `redlatch_lost_total` | leases lost |
//! | `redlatch_renewal_lateness_seconds` | how much later than planned a renewal was sent: a busy runtime |
//! | `redlatch_script_reloads_total` | scripts that a server lacked |
//!
//! # Guarantees
//!
//! - Two leases of one lock never overlap in server time, as long as the server keeps its data and its clock does not
//!   jump forward.
//! - [`Fence`]s rise with every grant, also through expiry, restart and data loss, unless the server has forgotten the
//!   lock, by loss or when its retention is over, and its clock steps back; [`Lock::fence_floor`] covers that too.
//! - A retry acts on its own acquisition only: scripts are idempotent per owner token.
//! - The deadline of a [`Lease`] is proven by this machine's boot-time clock from before the request was sent.
//! - [`Lease::lost`] completes at the local deadline at the latest, with or without a server.
//!
//! # Invariants
//!
//! Scripts decide, the client carries. Nothing here computes who holds a lock.

#![warn(missing_docs)]

pub mod bundle;
pub mod call;
mod client;
mod clock;
mod error;
mod fence;
mod measure;
#[doc(hidden)]
pub mod private_server;
pub mod protocol;

pub use call::{Name, Namespace};
pub use client::{
    Attempt, Client, ClientBuilder, Event, Held, Lease, Lock, Mutex, Plain, Reentrant, Share, acquire_all, blocking,
};
pub use error::{Error, ErrorKind};
pub use fence::Fence;
