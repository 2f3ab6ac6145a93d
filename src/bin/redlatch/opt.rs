//! The command line as types. What an option means is said here, once; `--help` shows it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::duration;

/// Distributed locks on Redis: deploy the scripts, run commands under a lock, see who holds what.
#[derive(Parser)]
#[command(name = "redlatch", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Options {
    /// What every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    ok
  1    checked and different: script missing, not held, file differs
  2    usage
  65   the bundle is corrupt or a server has another digest
  69   no server is reachable or able to answer
  74   output could not be written
  75   held by another, or the wait is over (`run -E` overrides); or done on some servers only
  76   lease lost while the command ran, or before extend or release
  77   the server's ACL denies it
  78   configuration: URL, password, file, kind of server
  126  the command of `run` is not executable, 127: not found
  128+n  the command of `run` was ended by signal n; otherwise its own exit code";

/// Options that every verb takes.
#[derive(Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// Server: redis://[USER@]HOST[:PORT][/DB], unix:///PATH, redis+sentinel://HOST[:PORT],…/NAME or
    /// redis+cluster://HOST[:PORT],…; rediss for TLS [env: REDLATCH_URL, then REDIS_URL; default:
    /// redis://127.0.0.1:6379]
    ///
    /// A password is refused here, because every user of the machine can read it in the process list. It may stand in
    /// the environment variable.
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The URL names a node of a Redis Cluster
    #[arg(long, global = true, conflicts_with = "sentinel")]
    pub cluster: bool,
    /// Ask this sentinel where the primary is; may be given several times
    #[arg(long, global = true, value_name = "HOST[:PORT]", requires = "master")]
    pub sentinel: Vec<String>,
    /// What the sentinels call the primary
    #[arg(long, global = true, value_name = "NAME", requires = "sentinel")]
    pub master: Option<String>,
    /// File with the certificate authorities that servers must be signed by [default: those of the system]
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// File with the certificate to show to servers
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// File with the key of that certificate
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// File whose first line is the password [env for the password itself: REDLATCH_PASSWORD]
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The longest that connecting and each command may take
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TIMEOUT)]
    pub timeout: Duration,
    /// Prefix of all keys and channels
    #[arg(long, global = true, value_name = "TEXT", default_value = "redlatch")]
    pub namespace: String,
    /// What stdout is written for: people, one JSON object, or one JSON object a line
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
    /// Colour: auto means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what happens on the connection; twice for more
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
    /// Preload every script of the bundle that a server lacks: on the primaries and all replicas
    Load(LoadOptions),
    /// Show which scripts each server has
    Status(StatusOptions),
    /// Check the embedded scripts against SHA1SUMS and their headers, and that the server has them
    Verify(VerifyOptions),
    /// List the scripts of the bundle
    Scripts,
    /// Show one script: its contract, its bytes or its digest
    Show(ShowOptions),
    /// The least rights that a user of the server needs
    #[command(subcommand)]
    Acl(AclVerb),
    /// Look for what endangers locks on the servers, and say what to do about it
    ///
    /// Changes nothing. What the user may not see is unknown, which is not a failure. Exit code 1 when something is
    /// wrong, with --strict also when something could be better.
    Doctor(DoctorOptions),
    /// Measure acquire and release on the servers, beside the least that any lock costs
    ///
    /// Keys are those of a namespace of their own and are gone a minute later.
    Bench(BenchOptions),
    /// Write the bundle in the form that another caller reads
    Export(ExportOptions),
    /// Run a command while holding a lease
    ///
    /// The lease is renewed until the command ends and then given back. When it cannot be kept, the command and all
    /// that it started in its process group are stopped before the lease ends, so that they are gone before another
    /// holder can start. TERM, INT, HUP and QUIT are forwarded to the process group.
    ///
    /// When this program itself is killed, the command is killed too; what it started in turn is not (Linux can do no
    /// better). The command finds REDLATCH_NAME and REDLATCH_FENCE in its environment and reads this program's stdin. What it
    /// leaves running in the background when it ends is not protected any more.
    Run(RunOptions),
    /// The first step of the command of `run`, in its own process
    #[command(hide = true)]
    Exec(ExecOptions),
    /// Acquire a lease and leave it held, for scripts that cannot wrap their work in `run`
    ///
    /// Nobody renews it: extend it before its TTL ends. Who has the owner token can extend and release it.
    Acquire(AcquireOptions),
    /// Make a lease that `acquire` left held last its TTL from now, or longer if it does already
    Extend(ExtendOptions),
    /// Give back a lease that `acquire` left held
    Release(ReleaseOptions),
    /// Show who holds a lock and who waits; exit code 1 when nobody holds it
    Inspect(InspectOptions),
    /// List the locks that are held
    Ls(LsOptions),
    /// End the lease of whoever holds it and hand the lock to the next waiter
    ///
    /// The holder hears of it at its next renewal and goes on until then: make sure that it is gone, or that the resource
    /// checks the fence, which is raised.
    ForceRelease(ForceReleaseOptions),
    /// Print the completions for a shell
    Completions(CompletionsOptions),
    /// Print the manual page of redlatch or of one verb
    Man(ManOptions),
    /// Show a flash sale with and without the lock, on a private server
    Demo(DemoOptions),
}

/// Options of `load`.
#[derive(Args)]
pub struct LoadOptions {
    /// Only say what would be loaded
    #[arg(long)]
    pub dry_run: bool,
    /// Exit with 0 also when some servers could not be reached, as long as one was
    #[arg(long)]
    pub allow_partial: bool,
    /// Stay, and look again and again: after a restart, SCRIPT FLUSH, a switch of the primary or a new server, scripts
    /// are back within this time
    #[arg(long, value_name = "INTERVAL", value_parser = duration::parse, num_args = 0..=1, require_equals = true,
        default_missing_value = "10s", conflicts_with = "dry_run")]
    pub watch: Option<Duration>,
    /// With --watch: answer /metrics for Prometheus and /health on this address
    #[arg(long, value_name = "HOST:PORT", requires = "watch")]
    pub metrics_addr: Option<String>,
}

/// Options of `status`.
#[derive(Args)]
pub struct StatusOptions {
    /// Exit with 1 when a script is missing on a server, or a server does not answer
    #[arg(long)]
    pub check: bool,
    /// Also show which versions of redlatch the connected callers are of
    #[arg(long)]
    pub callers: bool,
}

/// Options of `verify`.
#[derive(Args)]
pub struct VerifyOptions {
    /// Do not ask a server
    #[arg(long)]
    pub offline: bool,
    /// Also check this folder of scripts against the SHA1SUMS in it
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// What to do with rights.
#[derive(Subcommand)]
pub enum AclVerb {
    /// Print rules for ACL SETUSER: redis-cli ACL SETUSER app on '>password' $(redlatch acl print caller)
    Print(AclPrintOptions),
    /// Ask the servers whether a user has the rights, with ACL DRYRUN (Redis 7.0)
    Check(AclCheckOptions),
}

/// Options of `acl print`.
#[derive(Args)]
pub struct AclPrintOptions {
    /// What the user does
    #[arg(default_value = "caller")]
    pub role: Role,
    /// Keys of plain locks, with * ? and [] as in Redis; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub plain: Vec<String>,
}

/// Options of `acl check`.
#[derive(Args)]
pub struct AclCheckOptions {
    /// The user
    pub user: String,
    /// What it is to be able to do.
    #[command(flatten)]
    pub grants: AclPrintOptions,
}

/// What a user of the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Takes locks, and loads scripts where they are missing.
    Caller,
    /// Runs load, status, verify, acl and doctor.
    Deployer,
    /// Takes locks, and can neither load nor write scripts: `load --watch` has to keep them there.
    Strict,
}

/// Options of `doctor`.
#[derive(Args)]
pub struct DoctorOptions {
    /// Also fail on what could be better
    #[arg(long)]
    pub strict: bool,
    /// Whose rights to check [default: the user that is logged in]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Options of `bench`.
#[derive(Args)]
pub struct BenchOptions {
    /// How many tasks take locks at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// How many locks they share [default: as many as clients, so that nobody waits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub locks: Option<u32>,
    /// How long each lease is held
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true,
        default_value = "0s")]
    pub hold: Duration,
    /// How long each part of the measurement takes
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = "3s")]
    pub duration: Duration,
}

/// Options of `show`.
#[derive(Args)]
pub struct ShowOptions {
    /// The script, for instance mutex/acquire or mutex/acquire@v1; without a version the newest one
    #[arg(value_name = "NAME[@vN]")]
    pub script: String,
    /// Print the bytes of the script and nothing else
    #[arg(long, conflicts_with = "digest")]
    pub raw: bool,
    /// Print the digest and nothing else
    #[arg(long)]
    pub digest: bool,
}

/// Options of `export`.
#[derive(Args)]
pub struct ExportOptions {
    /// Form of the artefact
    #[arg(long = "as", value_name = "FORM")]
    pub form: Form,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write nothing; exit with 1 when the file differs
    #[arg(long, requires = "out")]
    pub check: bool,
}

/// Form of an artefact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The Lua module that nginx loads.
    Lua,
    /// Every script with its contract as JSON.
    Json,
    /// Digests in the format of `sha1sum -c`.
    Sha1sums,
    /// Commands for `redis-cli`, which loads all scripts when it reads them from stdin.
    RedisCli,
    /// Rules for ACL SETUSER, for a caller that loads what is missing.
    Acl,
    /// JSON schema of what --format json prints.
    Schema,
}

/// Options of `run`.
#[derive(Args)]
pub struct RunOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Ask once and do not wait
    #[arg(short = 'n', long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Wait at most that long; without -n and -w it waits for ever
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub wait: Option<Duration>,
    /// Exit code when the lease was not acquired
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 75)]
    pub conflict_exit_code: u8,
    /// Length of the lease, renewed after each third of it
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TTL)]
    pub ttl: Duration,
    /// Time between --signal and KILL when the lease cannot be kept [default: a quarter of the TTL, at most 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_or_zero, allow_hyphen_values = true)]
    pub grace: Option<Duration>,
    /// What the command is sent first when the lease cannot be kept
    #[arg(long, value_name = "SIGNAL", value_parser = crate::signals::parse, default_value = "TERM")]
    pub signal: nix::sys::signal::Signal,
    /// Do not renew: the command has one TTL
    #[arg(long)]
    pub no_renew: bool,
    /// What happens to the command when the lease cannot be kept
    #[arg(long, value_name = "WHAT", default_value = "kill")]
    pub on_lost: OnLost,
    /// Write what happens to this file descriptor, one JSON object a line: acquired, lost, stopped, exited, released
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(1..))]
    pub status_fd: Option<i32>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

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

/// What happens to the command of `run` when the lease cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnLost {
    /// It is stopped before the lease ends.
    Kill,
    /// It goes on, unprotected; `run` says so and ends with 76.
    Warn,
}

/// Options of `acquire`.
#[derive(Args)]
pub struct AcquireOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Length of the lease
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TTL)]
    pub ttl: Duration,
    /// Wait at most that long; without it the server is asked once
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub wait: Option<Duration>,
    /// Where the owner token is written, readable by its owner only; needed unless --format json
    #[arg(long, value_name = "FILE")]
    pub owner_file: Option<PathBuf>,
}

/// Options of `extend`.
#[derive(Args)]
pub struct ExtendOptions {
    /// The name that was acquired
    pub name: OsString,
    /// Least length of the lease from now
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true,
        default_value = duration::TTL)]
    pub ttl: Duration,
    /// The file that `acquire` wrote
    #[arg(long, value_name = "FILE")]
    pub owner_file: PathBuf,
}

/// Options of `release`.
#[derive(Args)]
pub struct ReleaseOptions {
    /// The name that was acquired
    pub name: OsString,
    /// The file that `acquire` wrote
    #[arg(long, value_name = "FILE")]
    pub owner_file: PathBuf,
}

/// Options of `inspect`.
#[derive(Args)]
pub struct InspectOptions {
    /// What is protected: 1 to 512 bytes
    pub name: OsString,
    /// Show it again whenever holder or waiters have changed, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// How many waiters to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub waiters: u32,
}

/// Options of `ls`.
#[derive(Args)]
pub struct LsOptions {
    /// Which names, with * ? and [] as in Redis
    #[arg(default_value = "*")]
    pub pattern: OsString,
    /// Also locks that nobody holds, which the server still remembers for their fence
    #[arg(long)]
    pub all: bool,
    /// Stop after that many locks
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// Options of `force-release`.
#[derive(Args)]
pub struct ForceReleaseOptions {
    /// The name of the lock
    pub name: OsString,
    /// Do it, although the holder may still be at work
    #[arg(long)]
    pub yes: bool,
    /// Why, for whoever reads the output later
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Options of `completions`.
#[derive(Args)]
pub struct CompletionsOptions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Args)]
pub struct ManOptions {
    /// A verb, for instance run
    pub verb: Option<String>,
}

/// Options of `demo`.
#[derive(Args)]
pub struct DemoOptions {
    /// How many buyers come at once: half of them Rust tasks, half requests to nginx
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// How many pieces there are; may be given several times
    #[arg(long, value_name = "N", default_values_t = [1, 50], value_parser = clap::value_parser!(u32).range(1..))]
    pub stock: Vec<u32>,
}

impl Role {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Deployer => "deployer",
            Self::Strict => "strict",
        }
    }
}
