//! Which nginx is run: the one that the variable NGINX names, else that of the PATH.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

pub fn command() -> Command {
    let named = std::env::var_os("NGINX").filter(|path| !path.is_empty());
    let mut command = Command::new(named.unwrap_or("nginx".into()));
    // To nginx itself that variable means sockets of its predecessor.
    command.env_remove("NGINX");
    command
}

/// What `nginx -V` says.
pub static BUILT: LazyLock<String> = LazyLock::new(|| {
    let output = command().arg("-V").output().expect("nginx is installed");
    String::from_utf8_lossy(&output.stderr).into_owned()
});

/// The folder of the modules that this nginx can load.
fn modules() -> PathBuf {
    let of = |option: &str| BUILT.split_whitespace().find_map(|word| word.strip_prefix(option)).map(PathBuf::from);
    of("--modules-path=").unwrap_or_else(|| of("--prefix=").unwrap_or_default().join("modules"))
}

/// The configuration with each `load_module` as this nginx has that module: in its own folder, or built in.
pub fn with_modules(conf: &str) -> String {
    with_modules_of(&modules(), conf)
}

pub fn with_modules_of(folder: &Path, conf: &str) -> String {
    let of_this = |line: &str| match line.strip_prefix("load_module ").and_then(|path| path.rsplit('/').next()) {
        Some(file) if folder.join(file.trim_end_matches(';')).exists() => {
            format!("load_module {}/{file}\n", folder.display())
        }
        Some(_) => String::new(),
        None => format!("{line}\n"),
    };
    conf.lines().map(of_this).collect()
}
