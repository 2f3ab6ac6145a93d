//! Somebody who listens to an inbox.

use std::time::{Duration, Instant};

use crate::support::Server;

/// A connection that listens to one channel.
pub struct Subscriber {
    connection: redis::Connection,
}

impl Subscriber {
    pub fn new(server: &Server, channel: &str) -> Self {
        let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        connection.send_packed_command(&redis::cmd("SUBSCRIBE").arg(channel).get_packed_command()).unwrap();
        connection.recv_response().unwrap();
        Self { connection }
    }

    /// The messages before `end`.
    pub fn until(&mut self, end: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            let (_, _, message): (String, String, String) =
                redis::from_redis_value(self.connection.recv_response().unwrap()).unwrap();
            if message == end {
                return heard;
            }
            heard.push(message);
        }
        panic!("no end of the messages: {heard:?}");
    }
}
