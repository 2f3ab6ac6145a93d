//! What happens in `run`, for a program that asked for it with `--status-fd`.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
};

use nix::fcntl::OFlag;
use serde_json::Value;

use crate::outcome::{Cause, Failure};

/// A file descriptor of whoever started us; or none.
pub struct Journal(Option<File>);

impl Journal {
    /// Opens the descriptor anew, so that closing ours leaves theirs alone.
    pub fn open(descriptor: Option<i32>) -> Result<Self, Failure> {
        let open = |descriptor| {
            // A pipe that nobody empties must not stop this program, which has a command to watch.
            let nonblocking = OFlag::O_NONBLOCK.bits();
            OpenOptions::new()
                .append(true)
                .custom_flags(nonblocking)
                .open(format!("/proc/self/fd/{descriptor}"))
                .map_err(|error| {
                    Failure::new(Cause::Configuration, format!("--status-fd {descriptor} cannot be written: {error}"))
                })
        };
        Ok(Self(descriptor.map(open).transpose()?))
    }

    /// One line. Nobody has to read it: the command goes on.
    pub fn write(&mut self, event: &Value) {
        if let Some(file) = &mut self.0
            && let Err(error) = writeln!(file, "{event}")
        {
            tracing::warn!(%error, "--status-fd cannot be written any more");
            self.0 = None;
        }
    }
}
