//! The bundle: the same bytes in git, in this program, in the nginx module and on a server.

use std::{fs, path::Path, process::Command};

use redlatch::bundle::{self, Bundle, Digest};

use crate::support::{Raw, Server};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Digest and path of each line of `SHA1SUMS`.
fn sums(text: &str) -> Vec<(&str, &str)> {
    text.lines().map(|line| line.split_once("  ").unwrap()).collect()
}

#[test]
fn the_embedded_scripts_are_those_that_sha1sums_names() {
    let text = read("lua/scripts/SHA1SUMS");
    let mut named: Vec<(String, String)> =
        sums(&text).into_iter().map(|(digest, path)| (path.to_owned(), digest.to_owned())).collect();
    let mut embedded: Vec<(String, String)> = bundle::embedded()
        .unwrap()
        .scripts()
        .iter()
        .map(|script| (format!("{}.v{}.lua", script.name(), script.version()), script.digest().to_string()))
        .collect();
    named.sort();
    embedded.sort();
    assert_eq!(embedded, named);
}

#[test]
fn sha1sum_agrees() {
    let check = Command::new("sha1sum")
        .args(["--check", "--strict", "--quiet", "SHA1SUMS"])
        .current_dir(root().join("lua/scripts"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn every_script_in_the_folder_is_in_sha1sums() {
    let text = read("lua/scripts/SHA1SUMS");
    for family in fs::read_dir(root().join("lua/scripts")).unwrap().map(|entry| entry.unwrap().path()) {
        if !family.is_dir() {
            continue;
        }
        for file in fs::read_dir(&family).unwrap().map(|entry| entry.unwrap().path()) {
            let path = file.strip_prefix(root().join("lua/scripts")).unwrap().to_str().unwrap();
            if path.ends_with(".lua") {
                assert!(sums(&text).iter().any(|(_, named)| *named == path), "{path} is not in SHA1SUMS");
            }
        }
    }
}

#[test]
fn the_embedded_bytes_are_those_of_the_files() {
    for script in bundle::embedded().unwrap().scripts() {
        let path = format!("lua/scripts/{}.v{}.lua", script.name(), script.version());
        assert_eq!(fs::read(root().join(&path)).unwrap(), script.source(), "{path}");
        assert_eq!(Digest::of(script.source()), script.digest(), "{path}");
    }
}

#[test]
fn a_server_computes_the_same_digests() {
    let server = Server::start(&[]).unwrap();
    let mut raw = Raw::connect(&server);
    for script in bundle::embedded().unwrap().scripts() {
        let loaded = raw.run(&[b"SCRIPT", b"LOAD", script.source()]).unwrap();
        assert_eq!(redis::from_redis_value::<String>(loaded).unwrap(), script.digest().as_str(), "{}", script.name());
    }
}

#[test]
fn the_nginx_module_has_the_same_digests() {
    let module = read("lua/lib/resty/redlatch/scripts.lua");
    let text = read("lua/scripts/SHA1SUMS");
    let expected: Vec<&str> = sums(&text).into_iter().map(|(digest, _)| digest).collect();
    let found: Vec<&str> =
        module.lines().filter_map(|line| line.trim().strip_prefix("digest = \"")?.strip_suffix("\",")).collect();
    assert_eq!(found, expected);
}

/// A bundle of one script, `mutex/extend`, whose `SHA1SUMS` says `sums`.
fn parsed(sums: &str) -> Result<Bundle, String> {
    let source = bundle::embedded().unwrap().get("mutex/extend").unwrap().source();
    let files = move |path: &str| match path {
        "mutex/extend.v1.lua" | "mutex/extend.v2.lua" | "plain/extend.v1.lua" => Some(source),
        "a/b.v1.lua" => Some(&b"return 1\n"[..]),
        "a/latin.v1.lua" => Some(&b"--[[ \xe4 ]]"[..]),
        _ => None,
    };
    Bundle::parse(sums.as_bytes(), files).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(sums: &str, message: &str) {
    assert_eq!(parsed(sums).unwrap_err(), message);
}

fn extend() -> Digest {
    bundle::embedded().unwrap().get("mutex/extend").unwrap().digest()
}

#[test]
fn a_bundle_is_read_from_its_sums() {
    let bundle = parsed(&format!("{}  mutex/extend.v1.lua\n", extend())).unwrap();
    assert_eq!(bundle.scripts().len(), 1);
    assert_eq!(bundle.get("mutex/extend").unwrap().version(), 1);
    assert!(bundle.get("mutex/acquire").is_none());
}

#[test]
fn a_file_without_a_line_in_sha1sums_is_not_part_of_the_bundle() {
    // The folder has a/b.v1.lua as well.
    let bundle = parsed(&format!("{}  mutex/extend.v1.lua\n", extend())).unwrap();
    assert!(bundle.get("a/b").is_none());
}

#[test]
fn a_modified_script_is_refused() {
    let digest = Digest::of(b"something else");
    let message = "bundle is corrupt: mutex/extend.v1.lua is modified: its digest is not the one in SHA1SUMS";
    refused(&format!("{digest}  mutex/extend.v1.lua\n"), message);
    // Digests are written in lower case.
    refused(&format!("{}  mutex/extend.v1.lua\n", extend().as_str().to_uppercase()), message);
}

#[test]
fn a_missing_script_is_refused() {
    refused(&format!("{}  mutex/gone.v1.lua\n", extend()), "bundle is corrupt: mutex/gone.v1.lua is missing");
}

#[test]
fn a_script_under_a_wrong_name_is_refused() {
    let message = |path: &str| format!("bundle is corrupt: {path} says another @name than its path");
    refused(&format!("{}  plain/extend.v1.lua\n", extend()), &message("plain/extend.v1.lua"));
    refused(&format!("{}  mutex/extend.v2.lua\n", extend()), &message("mutex/extend.v2.lua"));
}

#[test]
fn a_path_that_is_not_a_versioned_script_is_refused() {
    for path in ["mutex/extend.lua", "mutex/extend.v1", "mutex/extend.vx.lua", "mutex/extend.v-1.lua", "README.md"] {
        let message = format!("bundle is corrupt: {path} is not named <family>/<verb>.v<N>.lua");
        refused(&format!("{}  {path}\n", extend()), &message);
    }
}

#[test]
fn a_garbled_line_is_refused() {
    let message = "bundle is corrupt: SHA1SUMS has a line that is not `digest  path`";
    refused(&format!("{} mutex/extend.v1.lua\n", extend()), message);
    refused(&format!("{}  mutex/extend.v1.lua\n\n", extend()), message);
    refused("<html>\n", message);
}

#[test]
fn a_bundle_without_scripts_is_refused() {
    refused("", "bundle is corrupt: SHA1SUMS names no script");
    let error = Bundle::parse(b"\xff", |_| None).unwrap_err();
    assert_eq!(error.to_string(), "bundle is corrupt: SHA1SUMS is not UTF-8");
}

#[test]
fn a_script_without_a_header_is_refused() {
    let message = "bundle is corrupt: a/b.v1.lua does not start with a --[[ header ]]";
    refused(&format!("{}  a/b.v1.lua\n", Digest::of(b"return 1\n")), message);
    let message = "bundle is corrupt: a/latin.v1.lua is not UTF-8";
    refused(&format!("{}  a/latin.v1.lua\n", Digest::of(b"--[[ \xe4 ]]")), message);
}

#[test]
fn a_released_script_never_changes() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root()).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let Some(tag) = git(&["describe", "--tags", "--abbrev=0", "--match", "v*"]) else {
        println!("nothing is released here");
        return;
    };
    let released = git(&["show", &format!("{}:lua/scripts/SHA1SUMS", tag.trim())]).unwrap();
    let gone = gone(&released, &read("lua/scripts/SHA1SUMS"));
    assert!(gone.is_empty(), "released with {} and changed or removed since: {gone:?}", tag.trim());
}

/// Lines of `released` that are not in `now`.
fn gone<'a>(released: &'a str, now: &str) -> Vec<&'a str> {
    released.lines().filter(|line| now.lines().all(|other| other != *line)).collect()
}

#[test]
fn new_versions_may_be_added_to_sha1sums_and_old_ones_neither_change_nor_go() {
    assert_eq!(gone("1  a\n2  b\n", "1  a\n3  a2\n2  b\n"), [""; 0]);
    assert_eq!(gone("1  a\n2  b\n", "1  a\n3  b\n"), ["2  b"]);
    assert_eq!(gone("1  a\n2  b\n", "2  b\n"), ["1  a"]);
}

/// A crate of a few lines that embeds a folder as redlatch does, with redlatch's own build script and bundle folder.
#[test]
fn a_rebuild_sees_a_new_script_and_embeds_no_stray_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("src")).unwrap();
    fs::create_dir_all(at("lua/scripts/mutex")).unwrap();
    let dependencies = "[dependencies]\ninclude_dir = \"0.7\"\nsha1_smol = { version = \"1\", features = [\"std\"] }\nthiserror = \"2\"\n";
    let manifest = format!(
        "[package]\nname = \"embedded\"\nversion = \"0.0.0\"\nedition = \"2024\"\nbuild = \"src/build.rs\"\n{dependencies}"
    );
    fs::write(at("Cargo.toml"), manifest).unwrap();
    fs::copy(root().join("Cargo.lock"), at("Cargo.lock")).unwrap();
    fs::copy(root().join("src/build.rs"), at("src/build.rs")).unwrap();
    fs::create_dir(at("src/bundle")).unwrap();
    for file in ["mod.rs", "header.rs", "lint.rs"] {
        fs::copy(root().join("src/bundle").join(file), at("src/bundle").join(file)).unwrap();
    }
    let main =
        "mod bundle;\nfn main() { for s in bundle::embedded().unwrap().scripts() { println!(\"{}\", s.name()) } }\n";
    fs::write(at("src/main.rs"), main).unwrap();

    let copy = |path: &str| fs::copy(root().join("lua/scripts").join(path), at("lua/scripts").join(path)).unwrap();
    let all = read("lua/scripts/SHA1SUMS");
    let write_sums = |paths: &[&str]| {
        let lines = all.lines().filter(|line| paths.iter().any(|path| line.ends_with(path)));
        fs::write(at("lua/scripts/SHA1SUMS"), lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    };
    let embedded = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--offline"]).current_dir(folder.path());
        let output = cargo.env("CARGO_TARGET_DIR", at("target")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };

    copy("mutex/extend.v1.lua");
    fs::write(at("lua/scripts/mutex/.extend.v1.lua.swp"), "an editor's file").unwrap();
    fs::write(at("lua/scripts/mutex/stray.v1.lua"), "return 1\n").unwrap();
    write_sums(&["mutex/extend.v1.lua"]);
    assert_eq!(embedded(), "mutex/extend\n");
    copy("mutex/release.v1.lua");
    write_sums(&["mutex/extend.v1.lua", "mutex/release.v1.lua"]);
    assert_eq!(embedded(), "mutex/extend\nmutex/release\n");
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_script_or_of_its_digest_is_found() {
    let script = bundle::embedded().unwrap().get("plain/release").unwrap();
    let sums = format!("{}  plain/release.v1.lua\n", script.digest());
    let parse = |sums: &[u8], source: &'static [u8]| Bundle::parse(sums, move |_| Some(source));
    assert!(parse(sums.as_bytes(), script.source()).is_ok());
    for at in 0..script.source().len() {
        let mut changed = script.source().to_vec();
        changed[at] ^= 1;
        assert!(parse(sums.as_bytes(), changed.leak()).is_err(), "byte {at}");
    }
    for at in 0..sums.len() - 1 {
        let mut changed = sums.clone().into_bytes();
        changed[at] ^= 1;
        assert!(parse(&changed, script.source()).is_err(), "byte {at} of SHA1SUMS");
    }
}

#[test]
fn the_packed_crate_carries_the_scripts_with_their_digests_and_nothing_of_the_tests() {
    let folder = tempfile::tempdir().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--quiet", "--offline", "--allow-dirty", "--no-verify", "--target-dir"]).arg(folder.path());
    assert!(cargo.current_dir(root()).status().unwrap().success(), "the crate is packed");
    let name = concat!("redlatch-", env!("CARGO_PKG_VERSION"));
    let packed = folder.path().join(format!("package/{name}.crate"));
    let unpacked = Command::new("tar").arg("-xzf").arg(&packed).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    let crate_root = folder.path().join(name);
    let check = Command::new("sha1sum")
        .args(["--check", "--strict", "--quiet", "SHA1SUMS"])
        .current_dir(crate_root.join("lua/scripts"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert_eq!(fs::read(crate_root.join("lua/scripts/SHA1SUMS")).unwrap(), read("lua/scripts/SHA1SUMS").into_bytes());
    assert_eq!(
        fs::read(crate_root.join("lua/lib/resty/redlatch/scripts.lua")).unwrap(),
        read("lua/lib/resty/redlatch/scripts.lua").into_bytes()
    );
    assert!(!crate_root.join("tests").exists());
}
