//! The command line as types: what every verb takes. The options of a verb stand in its own file. What an option means
//! is said there, once; `--help` shows it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::{
    acl::AclVerb, acquire::AcquireOptions, bench::BenchOptions, completions::CompletionsOptions, demo::DemoOptions,
    doctor::DoctorOptions, duration, exec::ExecOptions, export::ExportOptions, extend::ExtendOptions,
    force_release::ForceReleaseOptions, guard::GuardOptions, help, inspect::InspectOptions, load::LoadOptions,
    ls::LsOptions, man::ManOptions, release::ReleaseOptions, run::RunOptions, show::ShowOptions, status::StatusOptions,
    verify::VerifyOptions,
};

/// Distributed locks on Redis.
#[derive(Parser)]
#[command(name = "redlatch", version, max_term_width = 100, after_help = after_help())]
pub struct Options {
    /// What every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Options {
    /// What `words` mean, the first of which is the program.
    pub fn parsed(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = help::command();
        let mut matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

fn after_help() -> String {
    format!("{URLS}\n{EXIT_CODES}")
}

/// The forms of a URL.
const URLS: &str = "\
URLs (default: redis://127.0.0.1:6379):
  redis://[USER@]HOST[:PORT][/DB]      one server; rediss for TLS
  unix:///PATH                         one server, by its socket
  redis+sentinel://HOST[:PORT],…/NAME  the primary that sentinels call NAME
  redis+cluster://HOST[:PORT],…        the Redis Cluster of these nodes
";

/// What each exit code says.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    ok
  1    checked and different: script missing, not held, file differs
  2    usage
  65   the bundle is corrupt or a server has another digest
  69   no server is reachable or able to answer
  74   output could not be written
  75   held by another, or the wait is over (see `run -E`); or partly done
  76   lease lost while the command ran, or before extend or release
  77   the server's ACL denies it
  78   configuration: URL, password, file, kind of server
  126  the command of `run` is not executable, 127: not found
  128+n  the command of `run` was ended by signal n; else its own exit code";

/// Options that every verb takes.
#[derive(Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// Server [env: REDLATCH_URL, REDIS_URL]
    ///
    /// redis://[USER@]HOST[:PORT][/DB], unix:///PATH, redis+sentinel://HOST[:PORT],…/NAME or
    /// redis+cluster://HOST[:PORT],…; rediss instead of redis for TLS. Without it redis://127.0.0.1:6379.
    ///
    /// A password is refused here, because every user of the machine can read it in the process list. It may stand in
    /// the environment variable.
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The URL is that of a Redis Cluster
    ///
    /// Of any of its nodes.
    #[arg(long, global = true, conflicts_with = "sentinel")]
    pub cluster: bool,
    /// Ask this sentinel for the primary
    ///
    /// May be given several times.
    #[arg(long, global = true, value_name = "HOST[:PORT]", requires = "master")]
    pub sentinel: Vec<String>,
    /// What the sentinels call the primary
    #[arg(long, global = true, value_name = "NAME", requires = "sentinel")]
    pub master: Option<String>,
    /// CA certificates [default: the system's]
    ///
    /// File with the certificates that servers must be signed by.
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate to show to servers
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Its first line is the password
    ///
    /// REDLATCH_PASSWORD in the environment has the password itself.
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// For connecting and each command
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TIMEOUT)]
    pub timeout: Duration,
    /// Prefix of keys and channels
    #[arg(long, global = true, value_name = "TEXT", default_value = "redlatch")]
    pub namespace: String,
    /// stdout
    ///
    /// For people, as one JSON object, or as one JSON object a line. That of `run` goes to stderr: stdout is its command's.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Colour
    ///
    /// On auto there is colour on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what happens, twice for more
    ///
    /// Connected to what, waiting behind whom, under which fence, each renewal, the release.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What stdout is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// People.
    Human,
    /// One JSON object.
    Json,
    /// One JSON object a line.
    Jsonl,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// One file each.
#[derive(Subcommand)]
pub enum Verb {
    /// Load every script of the bundle that a server lacks
    ///
    /// On the primaries and all replicas: one that is promoted has them already.
    Load(LoadOptions),
    /// Show which scripts each server has
    Status(StatusOptions),
    /// Check the embedded scripts, and that the servers have them
    ///
    /// Their bytes against SHA1SUMS, their headers against their code.
    Verify(VerifyOptions),
    /// List the scripts of the bundle
    Scripts,
    /// Show one script: its contract, its bytes or its digest
    Show(ShowOptions),
    /// The least rights that a user of the server needs
    #[command(subcommand)]
    Acl(AclVerb),
    /// Look for what endangers locks, and say what to do about it
    ///
    /// Changes nothing. Exit code 1 when something is wrong or a check could not be made, with --strict also when something
    /// could be better.
    Doctor(DoctorOptions),
    /// Measure acquire and release on the servers
    ///
    /// Beside the least that any lock costs. Keys are those of a namespace of their own and are gone a minute later.
    Bench(BenchOptions),
    /// Write the bundle in the form that another caller reads
    Export(ExportOptions),
    /// Run a command while holding a lease
    ///
    /// The lease is renewed until the command ends and then given back. When it cannot be kept, the command and all
    /// that it started are stopped before the lease ends, so that they are gone before another holder can start; the same
    /// when this program itself is killed or stopped. Signals are forwarded, and this program ends as its command ends: by
    /// its exit code, or by the same signal. It cannot be suspended while it holds a lease.
    ///
    /// The command has this program's environment, stdin, stdout and stderr, and the terminal when it asks for it. It
    /// finds REDLATCH_NAME, REDLATCH_FENCE and REDLATCH_HELD in its environment, but not REDLATCH_PASSWORD, nor a
    /// password in REDLATCH_URL, unless --pass-url.
    Run(RunOptions),
    /// Ends the command of `run` with its lease, whatever becomes of `run`
    #[command(hide = true)]
    Guard(GuardOptions),
    /// The first step of the command of `run`, in its own process
    #[command(hide = true)]
    Exec(ExecOptions),
    /// Acquire a lease and leave it held
    ///
    /// For scripts that cannot wrap their work in `run`. Nobody renews it: extend it before its TTL ends. Who has the owner token can extend and release it.
    Acquire(AcquireOptions),
    /// Make a lease that `acquire` left held last longer
    ///
    /// It lasts its TTL from now, or longer if it does already.
    Extend(ExtendOptions),
    /// Give back a lease that `acquire` left held
    Release(ReleaseOptions),
    /// Show who holds a lock and who waits
    ///
    /// Exit code 1 when nobody holds it.
    Inspect(InspectOptions),
    /// List the locks that are held
    Ls(LsOptions),
    /// End the lease of whoever holds a lock
    ///
    /// The lock is handed to the next waiter.
    ///
    /// The holder hears of it at its next renewal and goes on until then: make sure that it is gone, or that the resource
    /// checks the fence, which is raised.
    ForceRelease(ForceReleaseOptions),
    /// Print the completions for a shell
    Completions(CompletionsOptions),
    /// Print the manual page of redlatch or of one verb
    Man(ManOptions),
    /// Show a flash sale with and without the lock
    ///
    /// On a private server, unless --url names one.
    Demo(DemoOptions),
}
