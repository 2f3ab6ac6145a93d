//! The embedded scripts as values.
//!
//! The bytes come from `lua/scripts` and are taken only from files that `SHA1SUMS` names, so a stray file in the
//! folder is never shipped. Nothing here talks to a server.

mod header;
mod lint;

use std::{fmt, sync::LazyLock};

use include_dir::{Dir, include_dir};

pub use header::{Argument, Header, Outcome};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/lua/scripts");
static BUNDLE: LazyLock<Result<Bundle, BundleError>> = LazyLock::new(|| {
    let sums = FILES.get_file("SHA1SUMS").map_or(&b""[..], |file| file.contents());
    Bundle::parse(sums, |path| FILES.get_file(path).map(|file| file.contents()))
});

/// SHA-1 of a script's bytes: the name that `EVALSHA` knows the script by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 40]);

impl Digest {
    /// Computes the digest of `bytes` exactly as a server does for `SCRIPT LOAD`.
    ///
    /// ```
    /// # use redlatch::bundle::Digest;
    /// assert_eq!(Digest::of(b"return 1").as_str(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        let mut hex = [0; 40];
        hex.copy_from_slice(sha1_smol::Sha1::from(bytes).hexdigest().as_bytes());
        Self(hex)
    }

    /// The 40 lower-case hexadecimal digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One script of the bundle: fixed bytes under a name and a version.
#[derive(Clone, Debug)]
pub struct Script {
    name: String,
    version: u32,
    source: &'static [u8],
    digest: Digest,
    header: Header,
}

impl Script {
    /// Family and verb, for instance `mutex/acquire`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number in the file name. A released file never changes; a change is a new version beside it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The bytes as they are in git, in this program and on the server.
    pub fn source(&self) -> &'static [u8] {
        self.source
    }

    /// SHA-1 of [`source`](Self::source).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The contract that the script states in its first lines.
    pub fn header(&self) -> &Header {
        &self.header
    }
}

/// All scripts that this version of redlatch ships.
#[derive(Clone, Debug)]
pub struct Bundle {
    scripts: Vec<Script>,
}

impl Bundle {
    /// Checks `sums` (in `sha1sum -c` format) against the files that `read` returns and parses every header.
    ///
    /// # Errors
    ///
    /// When a line is not understood, a file is missing or modified, or a header breaks the rules.
    pub fn parse(sums: &[u8], read: impl Fn(&str) -> Option<&'static [u8]>) -> Result<Self, BundleError> {
        let sums = std::str::from_utf8(sums).map_err(|_| BundleError::new("SHA1SUMS", "is not UTF-8"))?;
        let mut scripts = Vec::new();
        for line in sums.lines() {
            let (digest, path) = line
                .split_once("  ")
                .ok_or_else(|| BundleError::new("SHA1SUMS", "has a line that is not `digest  path`"))?;
            let (name, version) = path
                .strip_suffix(".lua")
                .and_then(|stem| stem.rsplit_once(".v"))
                .and_then(|(name, version)| Some((name, version.parse().ok()?)))
                .ok_or_else(|| BundleError::new(path, "is not named <family>/<verb>.v<N>.lua"))?;
            let source = read(path).ok_or_else(|| BundleError::new(path, "is missing"))?;
            if Digest::of(source).as_str() != digest {
                return Err(BundleError::new(path, "is modified: its digest is not the one in SHA1SUMS"));
            }
            let header = Header::parse(source).map_err(|reason| BundleError::new(path, &reason))?;
            if header.name != name || header.version != version {
                return Err(BundleError::new(path, "says another @name than its path"));
            }
            scripts.push(Script { name: name.to_owned(), version, source, digest: Digest::of(source), header });
        }
        if scripts.is_empty() {
            return Err(BundleError::new("SHA1SUMS", "names no script"));
        }
        scripts.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        Ok(Self { scripts })
    }

    /// Every script in every version, sorted by name and version.
    pub fn scripts(&self) -> &[Script] {
        &self.scripts
    }

    /// The newest version of the script `name`, for instance `mutex/acquire`.
    pub fn get(&self, name: &str) -> Option<&Script> {
        self.scripts.iter().rfind(|script| script.name == name)
    }
}

/// The bundle inside this program.
///
/// # Errors
///
/// When the embedded bytes do not match `SHA1SUMS`; a program built from a clean checkout never sees that.
///
/// ```
/// let bundle = redlatch::bundle::embedded()?;
/// let acquire = bundle.get("mutex/acquire").unwrap();
/// assert_eq!(acquire.version(), 1);
/// # Ok::<(), redlatch::bundle::BundleError>(())
/// ```
pub fn embedded() -> Result<&'static Bundle, BundleError> {
    BUNDLE.as_ref().map_err(Clone::clone)
}

/// A script is missing, modified, or breaks the rules of its header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bundle is corrupt: {file} {reason}")]
pub struct BundleError {
    file: String,
    reason: String,
}

impl BundleError {
    fn new(file: &str, reason: &str) -> Self {
        Self { file: file.to_owned(), reason: reason.to_owned() }
    }
}
