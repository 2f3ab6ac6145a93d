//! The file that carries an owner token from `acquire` to `extend` and `release`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::outcome::{Cause, Failure};

/// A file that will be at `path` once there is a token for it, and not before: a refused acquire leaves an older file
/// alone.
pub struct OwnerFile {
    file: NamedTempFile,
    path: PathBuf,
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

    /// Writes the token and puts the file into place.
    pub fn write(mut self, owner: &str) -> Result<(), Failure> {
        let failure = |error: &std::io::Error| Failure::file(&self.path, "written", error);
        writeln!(self.file, "{owner}")
            .and_then(|()| self.file.as_file().sync_all())
            .map_err(|error| failure(&error))?;
        self.file.persist(&self.path).map_err(|error| failure(&error.error))?;
        Ok(())
    }
}

/// The token in the file at `path`.
pub fn read(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, "read", &error))?;
    let owner = text.trim_end();
    if owner.is_empty() || owner.len() > 128 || !owner.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::new(Cause::Configuration, format!("{path:?} holds no owner token"))
            .hint("name the file that `redlatch acquire --owner-file` wrote"));
    }
    Ok(owner.to_owned())
}
