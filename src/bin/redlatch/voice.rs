//! Everything that is said on stderr passes here, in order.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::pen::Pen;

/// Who writes, while nobody may wait for stderr.
static PEN: Mutex<Option<Pen>> = Mutex::new(None);

/// As long as this lives nobody waits for a stderr that stands still.
pub struct Voice(());

impl Voice {
    pub fn without_waiting() -> Self {
        // A copy, because who writes to the one of the runtime keeps everybody else from it.
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        *pen() = stderr.and_then(|stderr| Pen::new("stderr", File::from(stderr))).ok();
        Self(())
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        let last = pen().take();
        drop(last);
    }
}

/// Says it. A stderr that is closed is no reason to stop.
pub fn put(text: String) {
    match &*pen() {
        Some(pen) => drop(pen.write(text)),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// For the log, a line at a time.
pub struct Log {
    /// Whether its lines look like those that are said.
    pub is_story: bool,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        crate::line::clear();
        let who = if self.is_story { "redlatch: " } else { "" };
        put(format!("{who}{}", String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pen() -> MutexGuard<'static, Option<Pen>> {
    PEN.lock().unwrap_or_else(PoisonError::into_inner)
}
