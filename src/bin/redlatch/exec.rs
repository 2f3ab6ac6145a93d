//! The first step of the command of `run`, in the process that becomes the command: it ties its life to that of its
//! [`guard`](crate::guard), so that a command never goes on without one.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::Command,
};

use clap::Args;
use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{close, getppid},
};
use serde_json::Value;

use crate::{
    io_failure, limit_behind,
    outcome::{Cause, Failure, Outcome, Verdict},
};

/// Options of `exec`.
#[derive(Args)]
pub struct ExecOptions {
    /// The process without which the command must not run
    pub parent: i32,
    /// A file descriptor that is not the command's
    #[arg(long)]
    pub close: Option<i32>,
    /// A file descriptor for the number of the error when the command cannot be started
    #[arg(long)]
    pub report: i32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// The exit code of a process that did not become the command. The program that started it tells why.
const NOT_STARTED: u8 = 127;

/// Becomes the command. Returns only when that failed.
pub fn exec(options: &ExecOptions) -> Result<Outcome, Failure> {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return Err(Failure::new(Cause::Configuration, format!("the command cannot be tied to this program: {error}")));
    }
    // It may have been killed before that.
    if getppid().as_raw() != options.parent {
        return Err(Failure::new(Cause::Interrupted(9), "the program that guards the command is gone"));
    }
    // Opened anew it ends with this program, while what we were given would become the command's.
    let report = File::options().write(true).open(format!("/proc/self/fd/{}", options.report));
    for descriptor in options.close.into_iter().chain([options.report]) {
        if let Err(error) = close(descriptor) {
            return Err(Failure::new(
                Cause::Configuration,
                format!("file descriptor {descriptor} cannot be closed: {error}"),
            ));
        }
    }
    let [program, arguments @ ..] = options.command.as_slice() else {
        return Err(Failure::new(Cause::Usage, "there is no command"));
    };
    let error = Command::new(program).args(arguments).exec();
    let number = error.raw_os_error().unwrap_or_default();
    match report.and_then(|mut report| write!(report, "{number}")) {
        Ok(()) => Ok(Outcome::new("", Value::Null).verdict(Verdict::Exited(NOT_STARTED))),
        Err(_) => Err(not_started(program, &error)),
    }
}

/// Why `program` did not start, in the exit codes of a shell.
pub fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    if limit_behind(error).is_some() {
        return io_failure(&format!("starting {program:?}"), error);
    }
    let (cause, what) = match error.kind() {
        io::ErrorKind::NotFound => (Cause::NotFound, "is not found"),
        _ => (Cause::NotExecutable, "cannot be executed"),
    };
    Failure::new(cause, format!("{program:?} {what}: {error}"))
}
