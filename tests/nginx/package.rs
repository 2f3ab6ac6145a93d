//! What nginx notices before it serves a request.

use std::fs;
use std::path::Path;

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
