//! One error type for everything that can go wrong between a caller and its lock.

use std::{fmt, time::Duration};

use crate::{bundle::BundleError, call::Name};

/// What went wrong, in the caller's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of range. Nothing was sent.
    Invalid,
    /// We had the lease and no longer have it. Work that relied on it must stop.
    Lost,
    /// The reply never came: the command may or may not have run. Asking again with the same lease resolves it.
    Unknown,
    /// No server could be reached, or it does not take commands now (loading, busy, too many clients).
    Unavailable,
    /// The server understood and refused: full, read-only, no permission, wrong kind of key.
    Refused,
    /// A script is not on the server and this client may not load it (strict mode).
    ScriptMissing,
    /// The server answered something that no redlatch script answers.
    Protocol,
    /// The embedded scripts do not match their digests.
    Bundle,
}

/// An error of a redlatch call.
///
/// The message is one lower-case line that names the lock and says what to do. It never contains an owner token or a
/// password.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    code: Option<String>,
    message: String,
    lacks: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The server's error code, such as `OOM` or `WRONGTYPE`, when the server refused.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The one rule for ACL SETUSER that the user lacks, such as `+publish`, `~redlatch:*` or `&redlatch:inbox:*`, when
    /// the server's ACL denied the call.
    pub fn lacks(&self) -> Option<&str> {
        self.lacks.as_deref()
    }

    /// Whether the same call may succeed later without a change of configuration.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Unknown | ErrorKind::Unavailable => true,
            ErrorKind::Refused => matches!(self.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "QUEUEFULL")),
            ErrorKind::Invalid
            | ErrorKind::Lost
            | ErrorKind::ScriptMissing
            | ErrorKind::Protocol
            | ErrorKind::Bundle => false,
        }
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), lacks: None, source: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn lost(name: &Name) -> Self {
        Self::new(
            ErrorKind::Lost,
            format!("lease of {name} is lost: it ran out or was taken away, stop the work that relied on it"),
        )
    }

    pub(crate) fn unknown(what: impl fmt::Display, waited: Duration) -> Self {
        Self::new(
            ErrorKind::Unknown,
            format!("unknown whether {what} ran: no reply within {waited:?}, the server is stopped or out of reach"),
        )
    }

    /// The same, for a server that may be able to do it in a moment.
    pub(crate) fn into_unavailable(mut self) -> Self {
        self.kind = ErrorKind::Unavailable;
        self
    }

    pub(crate) fn with_code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    pub(crate) fn lacking(mut self, rule: Option<String>) -> Self {
        self.lacks = rule;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<BundleError> for Error {
    fn from(error: BundleError) -> Self {
        Self::new(ErrorKind::Bundle, error.to_string()).with_source(error)
    }
}
