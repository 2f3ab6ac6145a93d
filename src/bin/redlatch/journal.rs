//! What happens in `run`, for a program that asked for it with `--status-fd`.

use std::{
    fs::File,
    io::Write,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use filedescriptor::FileDescriptor;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::Value;

use crate::outcome::{Cause, Failure};

/// How many lines may wait for a reader that is slow.
const QUEUE: usize = 1000;
/// How long the end of this program may wait for that reader.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A file descriptor of whoever started us; or none.
pub struct Journal(Option<Pen>);

/// A thread that writes, because a pipe that nobody empties must not stop this program, which has a command to watch.
struct Pen {
    lines: Option<SyncSender<String>>,
    done: Receiver<()>,
}

impl Journal {
    /// Takes the descriptor as it is: a file, a pipe or a socket, and for a file the place where its owner is.
    pub fn open(descriptor: Option<i32>) -> Result<Self, Failure> {
        let Some(descriptor) = descriptor else { return Ok(Self(None)) };
        let failure = |error: &dyn std::fmt::Display| {
            Failure::new(Cause::Configuration, format!("--status-fd {descriptor} cannot be written: {error}"))
        };
        let copy = FileDescriptor::dup(&descriptor).map_err(|_| failure(&"it is not open"))?;
        let flags = fcntl(&copy, FcntlArg::F_GETFL).map_err(|error| failure(&error))?;
        if OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY {
            return Err(failure(&"it is open for reading"));
        }
        let file = copy.as_file().map_err(|error| failure(&error))?;
        let (lines, queue) = sync_channel(QUEUE);
        let (ended, done) = sync_channel(0);
        thread::Builder::new()
            .name("status-fd".to_owned())
            .spawn(move || {
                write(file, &queue);
                drop(ended);
            })
            .map_err(|error| failure(&error))?;
        Ok(Self(Some(Pen { lines: Some(lines), done })))
    }

    /// One line. Nobody has to read it: the command goes on.
    pub fn write(&mut self, event: &Value) {
        let sent = self.0.as_ref().and_then(|pen| Some(pen.lines.as_ref()?.try_send(format!("{event}\n")).is_ok()));
        if sent == Some(false) {
            tracing::warn!("--status-fd is not read any more");
        }
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.lines = None;
        // Ends with an error when the thread is through, which is what we wait for.
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}

fn write(mut file: File, queue: &Receiver<String>) {
    for line in queue {
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "--status-fd cannot be written any more");
            return;
        }
    }
}
