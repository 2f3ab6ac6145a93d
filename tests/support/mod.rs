//! What tests stand on: real servers in folders of their own, stopped by pid.

mod redis;

pub use redis::{Raw, Server, signal};
