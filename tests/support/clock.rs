//! A wall clock of its own for a real server.

use std::{fs::File, os::unix::fs::FileExt, path::Path, process::Command};

use tempfile::TempDir;

/// A preloaded library that shifts the clock of whoever runs with its environment.
pub struct ClockShim {
    shift: File,
    folder: TempDir,
}

impl ClockShim {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock_shim.c");
        let library = folder.path().join("shim.so");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
        assert!(built.is_ok_and(|status| status.success()), "cc builds the shim");
        let shim = Self { shift: File::create(folder.path().join("clock")).unwrap(), folder };
        shim.set(0);
        shim
    }

    /// Variables that make a program's clock this one.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        vec![("LD_PRELOAD".to_owned(), path("shim.so")), ("REDLATCH_CLOCK".to_owned(), path("clock"))]
    }

    /// From now on the clock is so many microseconds ahead of the real one.
    pub fn set(&self, ahead_us: i64) {
        self.shift.write_all_at(&ahead_us.to_ne_bytes(), 0).unwrap();
    }
}
