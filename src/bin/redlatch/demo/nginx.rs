//! A private nginx with the Lua module, whose requests buy at the flash sale.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use include_dir::{Dir, include_dir};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

static LUA: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/lua/lib");
const MODULES: &str = "/usr/lib/nginx/modules";

/// A running nginx in a folder of its own; both are gone when this is dropped.
pub struct Nginx {
    process: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts nginx with `workers` workers. `settings` reach `shop.lua` through the environment, so that a password
    /// is in no file and in no process list.
    ///
    /// # Errors
    ///
    /// When nginx or its Lua module is not there, or refuses the configuration.
    pub async fn start(workers: usize, settings: &serde_json::Value) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("redlatch-demo-{}", uuid::Uuid::new_v4().simple()));
        let started = Self::start_in(&folder, workers, settings).await;
        if started.is_err() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        started
    }

    async fn start_in(folder: &Path, workers: usize, settings: &serde_json::Value) -> io::Result<Self> {
        std::fs::create_dir_all(folder.join("lua"))?;
        LUA.extract(folder.join("lua"))?;
        std::fs::write(folder.join("lua/shop.lua"), include_str!("shop.lua"))?;
        std::fs::write(folder.join("nginx.conf"), configuration(workers))?;
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder)
            .args(["-c", "nginx.conf", "-e", "error.log"])
            // nginx takes the path of a Unix socket from where it was started.
            .current_dir(folder)
            .env("REDLATCH_DEMO", settings.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let nginx = Self { process: command.spawn()?, folder: folder.to_owned() };
        nginx.wait_until_ready().await?;
        Ok(nginx)
    }

    async fn wait_until_ready(&self) -> io::Result<()> {
        for _ in 0..500 {
            if UnixStream::connect(self.socket()).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let log = std::fs::read_to_string(self.folder.join("error.log")).unwrap_or_default();
        Err(io::Error::other(log.lines().last().unwrap_or("nginx did not start").to_owned()))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("nginx.sock")
    }

    /// Sends one GET request and returns the body of its answer.
    pub async fn get(&self, path: &str) -> io::Result<serde_json::Value> {
        let mut stream = UnixStream::connect(self.socket()).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: demo\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body)
            .map_err(|_| io::Error::other(format!("nginx answered {:?}", answer.lines().next().unwrap_or_default())))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The workers end with their master; nothing of this server is worth a graceful stop.
        if let Some(pid) = self.process.id() {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn configuration(workers: usize) -> String {
    let modules: String = ["ndk_http_module.so", "ngx_http_lua_module.so"]
        .iter()
        .map(|file| Path::new(MODULES).join(file))
        .filter(|path| path.exists())
        .map(|path| format!("load_module {};\n", path.display()))
        .collect();
    // A master that runs as root would give its workers to a user who cannot reach this private folder.
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    include_str!("nginx.conf")
        .replace("# load_module\n", &modules)
        .replace("# user\n", user)
        .replace("WORKERS", &workers.to_string())
}
