//! `redlatch demo`: a flash sale with and without the lock, on a private server.

use crate::{
    opt::{DemoOptions, Global},
    outcome::{Cause, Failure, Outcome},
};

/// Runs the sale.
pub async fn run(options: &DemoOptions, _global: &Global) -> Result<Outcome, Failure> {
    let DemoOptions { clients, stock } = options;
    Err(Failure::new(Cause::Usage, format!("the demo for {clients} clients and stock {stock:?} is not there yet")))
}
