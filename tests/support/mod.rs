//! What tests stand on: real servers in folders of their own, stopped by pid.

pub mod nginx;
mod redis;

pub use redis::{Raw, Server, signal};
