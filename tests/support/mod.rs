//! What tests stand on: real servers in folders of their own, stopped by pid, and a proxy that breaks what passes.

pub mod nginx;
mod proxy;
mod redis;
mod resp;

pub use proxy::{Fault, Proxy};
pub use redis::{Raw, Server, signal};
