//! A session of its own on a real pseudo-terminal, with somebody who types.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use super::{Server, signal, until};

/// A program that leads a session on a terminal.
pub struct Pty {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// How much of the screen was looked at by [`Pty::shows`].
    seen: usize,
    process: Child,
}

impl Pty {
    /// Starts `words`, with the address of `server` and a `redlatch` on the path.
    pub fn start(server: &Server, words: &[&str]) -> Self {
        Self::of_width(200, &server.url(), words)
    }

    /// The same on a terminal of so many columns.
    pub fn of_width(columns: u16, url: &str, words: &[&str]) -> Self {
        let size = nix::pty::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).expect("there is a pseudo-terminal");
        let slave = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_redlatch")).parent().expect("it is in a folder");
        let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("PATH is text"));
        let process = Command::new("setsid")
            .arg("--ctty")
            .args(words)
            .env("REDLATCH_URL", url)
            .env("PATH", path)
            .env("TERM", "vt100")
            .env("PS1", "> ")
            .env_remove("LESS")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("setsid starts");
        let screen = Arc::default();
        show(pty.master.try_clone().expect("a descriptor"), &screen);
        Self { keyboard: File::from(pty.master), screen, seen: 0, process }
    }

    /// A shell with job control.
    pub fn shell(server: &Server) -> Self {
        let mut pty = Self::start(server, &["bash", "--norc", "--noprofile", "--noediting", "-i"]);
        pty.shows("> ");
        pty
    }

    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Ctrl and a letter.
    pub fn ctrl(&mut self, letter: u8) {
        self.keyboard.write_all(&[letter & 0x1f]).expect("the terminal takes it");
    }

    /// Waits until the screen shows `words`, after what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, words: &str) {
        let mut found = None;
        let screen = Arc::clone(&self.screen);
        let seen = self.seen;
        let _what = Shown(&screen);
        until(words, || {
            let text = screen.lock().unwrap();
            found = text[seen..].windows(words.len()).position(|part| part == words.as_bytes());
            found.is_some()
        });
        self.seen += found.unwrap_or_default() + words.len();
    }

    /// All that was shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// All that was shown, once the terminal is closed.
    #[track_caller]
    pub fn text(&self) -> String {
        super::until("nobody has the terminal any more", || Arc::strong_count(&self.screen) == 1);
        self.screen()
    }

    /// Waits for the end of the program: its exit code, or minus the signal.
    #[track_caller]
    pub fn status(&mut self) -> i32 {
        let mut status = None;
        let screen = Arc::clone(&self.screen);
        let _what = Shown(&screen);
        until("the leader of the session ends", || {
            status = self.process.try_wait().expect("it can be waited for");
            status.is_some()
        });
        let status = status.expect("it has ended");
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            // The kernel tells the foreground of its session.
            signal(self.process.id(), "KILL");
            let _ = self.process.wait();
        }
    }
}

/// Says what was on the screen when a test fails.
struct Shown<'a>(&'a Mutex<Vec<u8>>);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            super::say(&format!("--- screen\n{}\n---", String::from_utf8_lossy(&self.0.lock().unwrap())));
        }
    }
}

fn show(master: OwnedFd, screen: &Arc<Mutex<Vec<u8>>>) {
    let (mut master, screen) = (File::from(master), Arc::clone(screen));
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // Fails when nobody has the terminal open any more.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            screen.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
}
