//! The file that carries an owner token from `acquire` to `extend` and `release`: the `data` of the JSON object that
//! `acquire` prints, so that its whole output is one too.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use redlatch::Name;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    opt::Global,
    outcome::{Cause, Failure},
    output::escaped,
};

/// A file that will be at `path` once there is a token for it, and not before: a refused acquire leaves an older file
/// alone.
pub struct OwnerFile {
    file: NamedTempFile,
    path: PathBuf,
}

/// What an owner file says of a lease.
pub struct Owned {
    /// The owner token.
    pub owner: String,
    /// The length that it was acquired with.
    pub ttl: Duration,
}

impl OwnerFile {
    /// Makes sure that the token can be written, before any lease is taken. Readable by its owner only.
    pub fn prepare(path: &Path) -> Result<Self, Failure> {
        if path.is_dir() {
            return Err(Failure::new(Cause::Configuration, format!("{path:?} is a folder, name a file in it")));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(|error| Failure::file(path, "written", &error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes what is known of the lease, its owner token included, and puts the file into place.
    pub fn write(mut self, lease: &Value) -> Result<(), Failure> {
        let failure = |error: &std::io::Error| Failure::file(&self.path, "written", error);
        writeln!(self.file, "{lease}")
            .and_then(|()| self.file.as_file().sync_all())
            .map_err(|error| failure(&error))?;
        self.file.persist(&self.path).map_err(|error| failure(&error.error))?;
        Ok(())
    }
}

/// What the file at `path` says of the lease of `name`. A file of another lock is a mistake, and the server is not asked:
/// it would say that the lease is lost.
pub fn read(path: &Path, name: &Name, global: &Global) -> Result<Owned, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, "read", &error))?;
    let lease: Value = serde_json::from_str(&text).unwrap_or_default();
    let lease = lease.get("data").unwrap_or(&lease);
    let word = |field: &str| lease[field].as_str();
    let token = word("owner").filter(|it| (1..=128).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_graphic()));
    let known = (token, name_in(lease), word("namespace"), lease["ttl_ms"].as_u64());
    let (Some(owner), Some(of), Some(namespace), Some(ttl_ms)) = known else {
        return Err(Failure::new(Cause::Configuration, format!("{path:?} holds no owner token"))
            .hint("name the file that `redlatch acquire --owner-file` wrote"));
    };
    let of_another = |of: String, not: String| {
        let message = format!("{path:?} is the owner file of {of}, not of {not}; nothing was done");
        Err(Failure::new(Cause::Configuration, message))
    };
    if of != *name {
        return of_another(of.to_string(), name.to_string());
    }
    if namespace != global.namespace {
        let quoted = |namespace: &str| format!("{name} in the namespace \"{}\"", escaped(namespace.as_bytes()));
        return of_another(quoted(namespace), quoted(&global.namespace));
    }
    Ok(Owned { owner: owner.to_owned(), ttl: Duration::from_millis(ttl_ms) })
}

fn name_in(lease: &Value) -> Option<Name> {
    match lease["name_base64"].as_str() {
        Some(base64) => Name::new(BASE64_STANDARD.decode(base64).ok()?).ok(),
        None => Name::new(lease["name"].as_str()?).ok(),
    }
}
