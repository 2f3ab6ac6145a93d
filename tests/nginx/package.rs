//! What nginx notices before it serves a request.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::until;
use crate::support::Server;
use crate::support::nginx::{Config, Nginx};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn nginx_does_not_start_when_one_byte_of_a_script_has_changed() {
    let folder = Nginx::folder();
    let config = Config::new("");
    copy(&config.lib, &folder.0);
    change_one_byte(&folder.0);
    let message = Nginx::refusal(&config.lib(&folder.0));
    assert!(message.contains("redlatch: the bytes of script mutex/extend have the digest "), "{message}");
    assert!(message.contains(" is expected: install the package again"), "{message}");
}

#[test]
fn a_reload_with_a_changed_script_leaves_the_old_workers_at_work() {
    let redis = Server::start(&[]).unwrap();
    let folder = Nginx::folder();
    let config = Config::redis(&redis);
    copy(&config.lib, &folder.0);
    let nginx = config.lib(&folder.0).start();
    until("both workers are there", || nginx.workers().len() == 2);
    let workers = nginx.workers();
    change_one_byte(&folder.0);
    nginx.reload();
    until("nginx has refused the package", || nginx.error_log().contains("install the package again"));
    assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
    assert_eq!(nginx.workers(), workers);
}

fn change_one_byte(lib: &Path) {
    let scripts = lib.join("resty/redlatch/scripts.lua");
    let text = fs::read_to_string(&scripts).unwrap();
    let changed = text.replacen("@name mutex/extend v1", "@name mutex/extend v2", 1);
    assert_ne!(text, changed);
    fs::write(&scripts, changed).unwrap();
}

/// The modules of the package, with their paths from `lua`.
fn modules() -> Vec<(String, String)> {
    let lib = root().join("lua/lib");
    let mut files = vec!["resty/redlatch.lua".to_owned()];
    for entry in fs::read_dir(lib.join("resty/redlatch")).unwrap() {
        files.push(format!("resty/redlatch/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
    files.sort();
    let module = |file: &String| file.strip_suffix(".lua").unwrap().replace('/', ".");
    files.iter().map(|file| (module(file), format!("lib/{file}"))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_rockspec_has_every_module_and_the_version_of_the_crate() {
    let version = env!("CARGO_PKG_VERSION");
    let rockspec = fs::read_to_string(root().join(format!("lua/lua-resty-redlatch-{version}-1.rockspec"))).unwrap();
    assert!(
        rockspec.contains(&format!("version = \"{version}-1\"")) && rockspec.contains(&format!("tag = \"v{version}\""))
    );
    let listed: Vec<_> = rockspec.lines().filter(|line| line.starts_with("    [\"")).collect();
    let expected: Vec<_> = modules().iter().map(|(module, path)| format!("    [\"{module}\"] = \"{path}\",")).collect();
    assert_eq!(listed, expected);
}

#[test]
fn dist_ini_has_the_version_of_the_crate_and_its_paths_exist() {
    let ini = fs::read_to_string(root().join("lua/dist.ini")).unwrap();
    let value = |key: &str| {
        let line = ini.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.unwrap_or_else(|| panic!("dist.ini has no {key}"))
    };
    assert_eq!(value("version"), env!("CARGO_PKG_VERSION"));
    assert!(root().join("lua").join(value("main_module")).exists());
    assert!(root().join("lua").join(value("lib_dir")).join("resty/redlatch/scripts.lua").exists());
    for key in ["name", "abstract", "author", "is_original", "license", "repo_link", "doc_dir", "requires"] {
        assert_ne!(value(key), "");
    }
}

/// What is installed carries the very digests of the crate, and nginx runs it.
#[test]
fn make_install_copies_the_scripts_with_the_digests_of_the_crate() {
    let folder = Nginx::folder();
    let mut make = Command::new("make");
    make.args(["--silent", "install", &format!("LUA_LIB_DIR={}", folder.0.display())]).current_dir(root());
    assert!(make.env_remove("MAKEFLAGS").status().unwrap().success());
    for (_, path) in modules() {
        let installed = folder.0.join(path.strip_prefix("lib/").unwrap());
        assert_eq!(fs::read(&installed).unwrap(), fs::read(root().join("lua").join(&path)).unwrap(), "{path}");
    }
    let scripts = fs::read_to_string(folder.0.join("resty/redlatch/scripts.lua")).unwrap();
    for script in redlatch::bundle::embedded().unwrap().scripts() {
        assert!(scripts.contains(&format!("digest = \"{}\"", script.digest().as_str())), "{}", script.name());
    }
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).lib(&folder.0).start();
    assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
}
