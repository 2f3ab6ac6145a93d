//! The file that carries an owner token from `acquire` to `extend` and `release`: the `data` of the JSON object that
//! `acquire` prints, so that its whole output is one too.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use redlatch::{Client, Name, Namespace};
use rustix::io::Errno;
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
        let refused = |what: &str| Err(Failure::new(Cause::Configuration, format!("{path:?} is {what}")));
        // Whatever a link leads to in the end, which may not be there yet.
        match fs::metadata(path) {
            Ok(it) if it.is_dir() => return refused("a folder, name a file in it"),
            Ok(it) if !it.is_file() => return refused("no regular file, name one that is, or a new one"),
            _ => {}
        }
        let unwritable = |error| Failure::file(path, "written", &error);
        let target = followed(path).map_err(unwritable)?;
        let file = NamedTempFile::new_in(folder_of(&target)).map_err(unwritable)?;
        Ok(Self { file, path: target })
    }

    /// Fails when the file at this place has the only token of a lease of another lock than `name` that is not over. One of
    /// `name` cannot be lost: it will not be granted before.
    pub async fn refuse_to_lose_another(&self, client: &Client, name: &Name) -> Result<(), Failure> {
        let Some(lease) = fs::read_to_string(&self.path).ok().and_then(|text| lease_in(&text)) else { return Ok(()) };
        let known = (lease["owner"].as_str(), name_in(&lease), lease["namespace"].as_str(), lease["fence"].as_str());
        let (Some(_), Some(of), Some(namespace), Some(fence)) = known else { return Ok(()) };
        let Ok(key) = Namespace::new(namespace).map(|namespace| namespace.mutex_key(&of)) else { return Ok(()) };
        if key == client.namespace().mutex_key(name) {
            return Ok(());
        }
        let is_over = match client.caller().inspect(&key, 0).await {
            Ok(lock) => !lock.held || lock.fence.to_string() != fence,
            Err(_) => self.is_older_than(Duration::from_millis(lease["ttl_ms"].as_u64().unwrap_or_default())),
        };
        if is_over {
            return Ok(());
        }
        let path = &self.path;
        let message =
            format!("{path:?} has the owner token of the lease of {of}, which is not over; nothing was acquired");
        Err(Failure::new(Cause::Configuration, message).hint("release that lease first, or name another file"))
    }

    fn is_older_than(&self, age: Duration) -> bool {
        let changed = fs::metadata(&self.path).and_then(|it| it.modified());
        changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|elapsed| elapsed > age))
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
    let lease = lease_in(&text).unwrap_or_default();
    let word = |field: &str| lease[field].as_str();
    let token = word("owner").filter(|it| (1..=128).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_graphic()));
    let known = (token, name_in(&lease), word("namespace"), lease["ttl_ms"].as_u64());
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

/// The lease that an owner file, or the whole output of `acquire`, tells of.
fn lease_in(text: &str) -> Option<Value> {
    let mut lease: Value = serde_json::from_str(text).ok()?;
    Some(lease.get_mut("data").map(Value::take).unwrap_or(lease))
}

/// What the symbolic links at `path` lead to, which may not be there yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = folder_of(&path).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name_in(lease: &Value) -> Option<Name> {
    match lease["name_base64"].as_str() {
        Some(base64) => Name::new(BASE64_STANDARD.decode(base64).ok()?).ok(),
        None => Name::new(lease["name"].as_str()?).ok(),
    }
}
