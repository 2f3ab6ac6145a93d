//! What nginx notices before it serves a request.

use std::fs;
use std::path::Path;

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
fn one_changed_byte_in_a_script_fails_the_check_of_the_configuration() {
    let intact = Config::redis(1);
    let output = intact.check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let folder = Nginx::folder();
    copy(&intact.lib, &folder.0);
    let scripts = folder.0.join("resty/redlatch/scripts.lua");
    let text = fs::read_to_string(&scripts).unwrap();
    let changed = text.replacen("@name mutex/extend v1", "@name mutex/extend v2", 1);
    assert_ne!(text, changed);
    fs::write(&scripts, changed).unwrap();

    let output = intact.lib(&folder.0).check();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("redlatch: the bytes of script mutex/extend have the digest "), "{message}");
    assert!(message.contains(" is expected: install the package again"), "{message}");
}
