//! The `redlatch` command line: deploys the scripts, runs commands under a lock, shows who holds what.

mod acl;
mod acquire;
mod ask;
mod bench;
mod child;
mod completions;
mod damaged;
mod demo;
mod doctor;
mod duration;
mod end;
mod environment;
mod exec;
mod export;
mod extend;
mod fleet;
mod force_release;
mod granted;
mod guard;
mod health;
mod held;
mod help;
mod hold;
mod http;
mod inspect;
mod journal;
mod label;
mod line;
mod load;
mod ls;
mod man;
mod opt;
mod outcome;
mod output;
mod owner_file;
mod patience;
mod pen;
mod product;
mod release;
mod renewals;
mod reserve;
mod rights;
mod run;
mod scripts;
mod server;
mod show;
mod signals;
mod status;
mod story;
mod supervise;
mod table;
mod usage;
mod verify;
mod voice;
mod wait;
mod watch;
mod width;

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
};

use nix::libc;
use opt::{Options, Verb};
use outcome::{Cause, Failure, Outcome, Verdict};

fn main() -> ExitCode {
    let options = match Options::parsed(std::env::args_os()) {
        Ok(options) => options,
        Err(error) => return usage::answer(error),
    };
    let global = &options.global;
    output::prepare(global);
    if let Verb::Run(_) = options.verb {
        signals::let_write();
    }
    let result = in_runtime(&options).map_err(|mut failure| {
        if failure.cause.is_of_the_server() {
            failure.problem.node = global.node();
        }
        failure
    });
    let exit_code = exit_code(&result);
    let command = options.verb.word();
    match output::print(global, command, &result, exit_code, &mut *output::data_stream(command)) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            output::say(&output::unwritten(&error));
            ExitCode::from(OUTPUT)
        }
        _ => {
            if let Some(signal) = ended_by(&result) {
                signals::end_by(signal);
            }
            ExitCode::from(exit_code)
        }
    }
}

/// The signal that ended the command, or the wait for it: this program ends by the same.
fn ended_by(result: &Result<Outcome, Failure>) -> Option<u8> {
    match result {
        Ok(Outcome { verdict: Verdict::Signalled(signal), .. })
        | Err(Failure { cause: Cause::Interrupted(signal), .. }) => Some(*signal),
        _ => None,
    }
}

/// How many threads there may be at once beside the first: one that renews, one that writes, one that looks up names.
const THREADS: usize = 3;

/// Output could not be written.
const OUTPUT: u8 = 74;

/// The exit code: decided here and nowhere else.
fn exit_code(result: &Result<Outcome, Failure>) -> u8 {
    match result {
        Ok(outcome) => match outcome.verdict {
            Verdict::Fine => 0,
            Verdict::Different => 1,
            Verdict::Held(code) | Verdict::Exited(code) => code,
            Verdict::Signalled(signal) => 128 + signal,
            Verdict::Partly => 75,
            Verdict::Lost => 76,
        },
        Err(failure) => match failure.cause {
            Cause::Usage => 2,
            Cause::Bundle => 65,
            Cause::Unavailable | Cause::Unknown => 69,
            Cause::Lost => 76,
            Cause::Denied => 77,
            Cause::Configuration => 78,
            Cause::Output => OUTPUT,
            Cause::NotExecutable => 126,
            Cause::NotFound => 127,
            Cause::Interrupted(signal) => 128 + signal,
        },
    }
}

fn in_runtime(options: &Options) -> Result<Outcome, Failure> {
    room_for_threads().map_err(|error| io_failure("starting a thread", &error))?;
    // A worker beside this thread renews leases even while this one writes to a terminal that stands still.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| io_failure("starting the runtime", &error))?;
    let result = runtime.block_on(perform(options));
    runtime.shutdown_background();
    result
}

/// Fails where the runtime would panic: it starts threads when it needs them.
fn room_for_threads() -> io::Result<()> {
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        threads.push((
            std::thread::Builder::new().spawn(move || {
                let _ = ended.recv();
            })?,
            end,
        ));
    }
    for (thread, end) in threads {
        drop(end);
        let _ = thread.join();
    }
    Ok(())
}

fn io_failure(what: &str, error: &io::Error) -> Failure {
    let failure = |cause| Failure::new(cause, format!("{what} failed: {error}"));
    match limit_behind(error) {
        Some(limit) => failure(Cause::Configuration).hint(limit),
        None => failure(Cause::Unavailable),
    }
}

/// What to do about an error that says that this user or this machine has too much of something already.
fn limit_behind(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EAGAIN | libc::ENOMEM => {
            Some("raise the limit on processes and threads (ulimit -u, pids.max) or on memory")
        }
        libc::EMFILE | libc::ENFILE => Some("raise the limit on open files (ulimit -n)"),
        _ => None,
    }
}

async fn perform(options: &Options) -> Result<Outcome, Failure> {
    let global = &options.global;
    match &options.verb {
        Verb::Load(options) => load::load(options, global).await,
        Verb::Status(options) => status::status(options, global).await,
        Verb::Verify(options) => verify::verify(options, global).await,
        Verb::Scripts => scripts::scripts(),
        Verb::Show(options) => show::show(options),
        Verb::Acl(verb) => acl::acl(verb, global).await,
        Verb::Doctor(options) => doctor::doctor(options, global).await,
        Verb::Bench(options) => bench::bench(options, global).await,
        Verb::Export(options) => export::export(options, global),
        Verb::Run(options) => run::run(options, global).await,
        Verb::Guard(options) => guard::guard(options).await,
        Verb::Exec(options) => exec::exec(options),
        Verb::Acquire(options) => acquire::acquire(options, global).await,
        Verb::Extend(options) => extend::extend(options, global).await,
        Verb::Release(options) => release::release(options, global).await,
        Verb::Inspect(options) => inspect::inspect(options, global).await,
        Verb::Ls(options) => ls::ls(options, global).await,
        Verb::ForceRelease(options) => force_release::force_release(options, global).await,
        Verb::Completions(options) => Ok(completions::completions(options)),
        Verb::Man(options) => man::man(options),
        Verb::Demo(options) => demo::run(options, global).await,
    }
}

impl Verb {
    /// How the verb is called, for the JSON object.
    fn word(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Status(_) => "status",
            Self::Verify(_) => "verify",
            Self::Scripts => "scripts",
            Self::Show(_) => "show",
            Self::Acl(_) => "acl",
            Self::Doctor(_) => "doctor",
            Self::Bench(_) => "bench",
            Self::Export(_) => "export",
            Self::Run(_) => "run",
            Self::Guard(_) => "guard",
            Self::Exec(_) => "exec",
            Self::Acquire(_) => "acquire",
            Self::Extend(_) => "extend",
            Self::Release(_) => "release",
            Self::Inspect(_) => "inspect",
            Self::Ls(_) => "ls",
            Self::ForceRelease(_) => "force-release",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
            Self::Demo(_) => "demo",
        }
    }
}
