//! A redis-server of our own, for the demo, the tests and the examples in the documentation.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A redis-server on a Unix socket in a folder of its own; both are gone when this is dropped.
pub struct PrivateServer {
    process: Child,
    folder: PathBuf,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

impl PrivateServer {
    /// Starts `redis-server` with `options` and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// When the program is not there or does not start within ten seconds.
    pub fn start(options: &[&str]) -> std::io::Result<Self> {
        Self::start_in(Vec::new(), options)
    }

    /// The same with variables of its environment.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_in(environment: Vec<(String, String)>, options: &[&str]) -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("redlatch-{}", uuid::Uuid::new_v4().simple()));
        // Nobody else on this machine may reach the server: it has no password.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let process = match spawn(&folder, &environment, &options) {
            Ok(process) => process,
            Err(error) => {
                std::fs::remove_dir_all(&folder)?;
                return Err(error);
            }
        };
        let server = Self { process, folder, options, environment };
        server.wait()?;
        Ok(server)
    }

    /// Starts the server again with what it has left in its folder, after it was killed or told to stop.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_again(&mut self) -> std::io::Result<()> {
        self.process.wait()?;
        let _ = std::fs::remove_file(self.socket());
        self.process = spawn(&self.folder, &self.environment, &self.options)?;
        self.wait()
    }

    fn wait(&self) -> std::io::Result<()> {
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                return Err(std::io::Error::other("redis-server did not start within 10 s"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

fn spawn(folder: &Path, environment: &[(String, String)], options: &[String]) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no"])
        .args(["--unixsocket", "redis.sock", "--unixsocketperm", "700"])
        .args(options)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs an example without a runtime against a private server.
pub fn with_server_blocking(example: impl FnOnce(String) -> Result<(), crate::Error>) {
    let server = PrivateServer::start(&[]).expect("redis-server starts");
    example(server.url()).expect("the example succeeds");
}

/// Runs an example against a private server.
pub fn with_server(example: impl AsyncFnOnce(String) -> Result<(), crate::Error>) {
    let server = PrivateServer::start(&[]).expect("redis-server starts");
    tokio::runtime::Runtime::new()
        .expect("a runtime starts")
        .block_on(example(server.url()))
        .expect("the example succeeds");
}
