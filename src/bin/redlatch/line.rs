//! One line on a terminal that changes while something is waited for. Everything else that is said on stderr takes its
//! place.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use console::{Term, truncate_str};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::{
    opt::{Format, Global},
    voice::put,
    width::columns_of,
};

/// Whether the line is on the terminal now.
static SHOWN: Mutex<bool> = Mutex::new(false);

/// The line is gone when this is dropped.
pub struct Line(());

impl Line {
    /// `None` where there is nobody to look at it, or no way to change it.
    pub fn of(global: &Global) -> Option<Self> {
        let can_change = std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        let is_wanted = !global.quiet && global.format == Format::Human && can_change && Term::stderr().is_term();
        is_wanted.then_some(Self(()))
    }

    /// Shows `text`, as much of it as fits, unless the terminal belongs to another job.
    pub fn show(&self, text: &str) {
        let mut shown = shown();
        if is_in_background() {
            return;
        }
        let Some(columns) = columns_of(&Term::stderr()) else { return };
        let text = truncate_str(text, columns.saturating_sub(1), "\u{2026}");
        put(format!("\r{text}\x1b[K"));
        *shown = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        clear();
    }
}

/// Makes way for something else.
pub fn clear() {
    let mut shown = shown();
    if *shown && !is_in_background() {
        put("\r\x1b[K".to_owned());
    }
    *shown = false;
}

fn is_in_background() -> bool {
    tcgetpgrp(io::stderr()).is_ok_and(|group| group != getpgrp())
}

fn shown() -> MutexGuard<'static, bool> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
