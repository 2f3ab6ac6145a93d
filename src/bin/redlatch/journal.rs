//! What happens in `run`, for a program that asked for it with `--status-fd`.

use filedescriptor::FileDescriptor;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::Value;

use crate::{
    outcome::{Cause, Failure},
    pen::Pen,
};

/// A file descriptor of whoever started us; or none.
pub struct Journal(Option<Pen>);

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
        Ok(Self(Some(Pen::new("status-fd", file).map_err(|error| failure(&error))?)))
    }

    /// One line. Nobody has to read it: the command goes on.
    pub fn write(&mut self, event: &Value) {
        if self.0.as_ref().is_some_and(|pen| !pen.write(format!("{event}\n"))) {
            tracing::warn!("--status-fd is not read any more");
        }
    }
}
