//! redlatch beside the code that users run today: what that code gets wrong, and that it does not happen here.
//!
//! The flawed code is written anew, command by command, so that each test can stop it where it hurts.

mod fair_queue;
mod flash_sale;
mod pid_owner;
mod polling;
mod redis_py;
mod two_commands;

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::Server;

/// A connection for what a lock protects; patient, because a slow machine is not what these tests are about.
async fn connect(server: &Server) -> MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}
