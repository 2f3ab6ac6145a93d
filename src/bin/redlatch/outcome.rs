//! What a verb answers, and how it can fail. The exit code follows from these alone.

use redlatch::{Error, ErrorKind};
use serde::Serialize;
use serde_json::Value;

use crate::damaged;

/// An answer; "no" is one too.
pub struct Outcome {
    /// What the exit code says.
    pub verdict: Verdict,
    /// For programs: `data` of the JSON object.
    pub data: Value,
    /// Which list in `data` is printed line by line as JSON lines; the whole of `data` when there is none.
    pub rows: Option<&'static str>,
    /// For people, on stdout. Bytes, because a script is printed as it is.
    pub text: Vec<u8>,
    /// Whether that only says that all went as it should: for people who do not want to be left alone.
    pub is_report: bool,
    /// For people, on stderr, unless they asked to be left alone.
    pub notes: Vec<String>,
    /// What is wrong although the verb did its work.
    pub problems: Vec<Problem>,
    /// Whether the text tells people of the problems already.
    pub problems_shown: bool,
    /// Whether stdout has it already.
    pub is_printed: bool,
}

/// What the exit code of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is as it should be.
    Fine,
    /// Checked and different.
    Different,
    /// Somebody else holds it, and the exit code that was asked for then.
    Held(u8),
    /// Done on some servers and not on others.
    Partly,
    /// The command of `run` ended by itself.
    Exited(u8),
    /// The command of `run` was ended by a signal.
    Signalled(u8),
    /// The lease was lost while the command ran.
    Lost,
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// What the exit code says.
    pub cause: Cause,
    /// For people and for the JSON object.
    pub problem: Problem,
}

/// One entry of `errors` in the JSON object, and one line on stderr.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// A word that programs can compare.
    pub code: &'static str,
    /// The server it is about.
    pub node: Option<String>,
    /// One line for people.
    pub message: String,
    /// What to do, unless the message says it.
    pub hint: Option<String>,
}

/// What the exit code of a failure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The command line asks for something that cannot be.
    Usage,
    /// The bundle or a digest is wrong.
    Bundle,
    /// No server answers, or it cannot do it now.
    Unavailable,
    /// The reply never came.
    Unknown,
    /// The lease was lost.
    Lost,
    /// The server's ACL denies it.
    Denied,
    /// URL, password, file or kind of server.
    Configuration,
    /// Stdout could not be written.
    Output,
    /// The command of `run` cannot be executed.
    NotExecutable,
    /// The command of `run` is not there.
    NotFound,
    /// A signal came before the command of `run` was started.
    Interrupted(u8),
}

impl Outcome {
    /// An answer that is fine, with `text` for people and `data` for programs.
    pub fn new(text: impl Into<Vec<u8>>, data: Value) -> Self {
        Self {
            verdict: Verdict::Fine,
            data,
            rows: None,
            text: text.into(),
            is_report: false,
            notes: Vec::new(),
            problems: Vec::new(),
            problems_shown: false,
            is_printed: false,
        }
    }

    /// The same where the text only says that all went as it should.
    pub fn report(self) -> Self {
        Self { is_report: true, ..self }
    }

    /// The same with another verdict.
    pub fn verdict(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// The same with a list that JSON lines are made of.
    pub fn rows(self, list: &'static str) -> Self {
        Self { rows: Some(list), ..self }
    }

    /// The same with a note.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with a problem.
    pub fn problem(mut self, problem: Problem) -> Self {
        self.problems.push(problem);
        self
    }
}

impl Problem {
    /// A problem that its message explains in full.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, node: None, message: message.into(), hint: None }
    }

    /// The same with what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Failure {
    /// A failure that its message explains in full.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, problem: Problem::new(cause.word(), message) }
    }

    /// The same with what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { problem: self.problem.hint(hint), ..self }
    }

    /// A file of the user's that cannot be used.
    pub fn file(path: &std::path::Path, what: &str, error: &std::io::Error) -> Self {
        Self::new(Cause::Configuration, format!("{path:?} cannot be {what}: {error}"))
    }
}

impl Cause {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Bundle => "bundle",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Lost => "lost",
            Self::Denied => "denied",
            Self::Configuration => "configuration",
            Self::Output => "output",
            Self::NotExecutable => "not_executable",
            Self::NotFound => "not_found",
            Self::Interrupted(_) => "interrupted",
        }
    }

    /// Whether the server said or caused it.
    pub fn is_of_the_server(self) -> bool {
        matches!(self, Self::Unavailable | Self::Unknown | Self::Lost | Self::Denied)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some(failure) = damaged::by_call(&error) {
            return failure;
        }
        let (cause, hint) = cause(&error);
        let failure = Self::new(cause, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// What an error of the library means for whoever runs the command.
fn cause(error: &Error) -> (Cause, Option<&'static str>) {
    match error.kind() {
        ErrorKind::Invalid => (Cause::Usage, None),
        ErrorKind::Lost => (Cause::Lost, None),
        ErrorKind::Unknown => {
            (Cause::Unknown, Some("the same command may be run again; `redlatch inspect` shows the state"))
        }
        ErrorKind::Unavailable => (Cause::Unavailable, Some("--url or REDLATCH_URL says which server is meant")),
        ErrorKind::Refused => match error.code() {
            Some("NOPERM") => (Cause::Denied, None),
            Some("OOM" | "MISCONF" | "NOREPLICAS" | "QUEUEFULL") => (Cause::Unavailable, None),
            Some("NOAUTH" | "WRONGPASS") | None => (Cause::Configuration, Some(PASSWORD)),
            Some(_) => (Cause::Configuration, None),
        },
        ErrorKind::ScriptMissing | ErrorKind::Protocol => (Cause::Configuration, None),
        ErrorKind::Bundle => (Cause::Bundle, None),
        _ => (Cause::Unknown, None),
    }
}

const PASSWORD: &str = "a password comes from --password-file, REDLATCH_PASSWORD or the URL in REDLATCH_URL; \
                        the user from the URL";
