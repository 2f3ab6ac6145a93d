//! A private redis-server, and a raw connection to it that knows nothing of redlatch.

use std::process::Command;

pub use redlatch::private_server::PrivateServer as Server;

/// A plain Redis connection: what a caller without our client sees.
pub struct Raw {
    connection: redis::Connection,
    /// Where to connect again when the server cuts the connection, as one does whose role changes.
    again: Option<String>,
}

impl Raw {
    /// Connects to `server`.
    pub fn connect(server: &Server) -> Self {
        Self::open(&server.url())
    }

    /// Connects to `url`.
    pub fn open(url: &str) -> Self {
        let client = redis::Client::open(url).expect("the URL is valid");
        Self { connection: client.get_connection().expect("the server accepts"), again: None }
    }

    /// The same with errors, with replies that must come within seconds, and for servers whose role changes.
    pub fn try_open(url: &str) -> redis::RedisResult<Self> {
        let limit = std::time::Duration::from_secs(5);
        let connection = redis::Client::open(url)?.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        Ok(Self { connection, again: Some(url.to_owned()) })
    }

    /// Runs one command given as words.
    pub fn run(&mut self, words: &[&[u8]]) -> Result<redis::Value, redis::RedisError> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        match (command.query(&mut self.connection), &self.again) {
            (Err(error), Some(url)) if error.is_io_error() && !error.is_timeout() => {
                self.connection = Self::try_open(url)?.connection;
                command.query(&mut self.connection)
            }
            (outcome, _) => outcome,
        }
    }

    /// Runs one command of text words that must succeed.
    #[track_caller]
    pub fn must<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let value = self.run(&words).expect("the command succeeds");
        redis::from_redis_value(value).expect("the reply has the expected type")
    }

    /// The server's clock.
    pub fn now_ms(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = self.must(&["TIME"]);
        seconds * 1000 + micros / 1000
    }

    /// How often the server ran a command, named in lower case; scripts' own commands count too.
    pub fn count(&mut self, command: &str) -> u64 {
        let stats: String = self.must(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// How often the server answered with an error of this code.
    pub fn errors(&mut self, code: &str) -> u64 {
        let stats: String = self.must(&["INFO", "errorstats"]);
        let count = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{code}:count=")));
        count.map_or(0, |count| count.parse().expect("it is a number"))
    }
}

/// Sends a signal by pid.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}
