//! Where the owner token of `acquire` goes: what is there already is not lost, and neither is the token.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileTypeExt, symlink},
    process::{Command, Stdio},
};

use super::{Cli, answer, folder, hold, is_held};
use crate::support::Server;

#[test]
fn an_owner_file_that_is_no_regular_file_is_refused_and_stays_what_it_is() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink("pipe", &link).unwrap();
    for path in [pipe.to_str().unwrap(), link.to_str().unwrap()] {
        let refused = Cli::on(&server, &["acquire", "stock", "--owner-file", path]).answer();
        let told = format!("redlatch: {path:?} is no regular file, name one that is, or a new one\n");
        assert_eq!(refused, answer(78, "", &told));
    }
    let kind = |path| fs::symlink_metadata(path).unwrap().file_type();
    assert!(kind(&pipe).is_fifo() && kind(&link).is_symlink());
    assert!(!is_held(&server, "stock"));
}

#[test]
fn an_owner_file_is_written_where_its_links_lead() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    fs::create_dir(folder.path().join("far")).unwrap();
    symlink("second", &first).unwrap();
    symlink("far/owner", &second).unwrap();
    let file = first.to_str().unwrap();
    // Once where nothing is yet, once where something is.
    for _ in 0..2 {
        Cli::on(&server, &["acquire", "stock", "--owner-file", file]).must();
        assert!(first.is_symlink() && second.is_symlink() && !folder.path().join("far/owner").is_symlink());
        Cli::on(&server, &["release", "stock", "--owner-file", file]).must();
    }
    symlink("loop", folder.path().join("loop")).unwrap();
    let around = folder.path().join("loop");
    let refused = Cli::on(&server, &["acquire", "stock", "--owner-file", around.to_str().unwrap()]).answer();
    assert!(refused.status == 78 && refused.stderr.contains("cannot be written"), "{refused:?}");
}

#[test]
fn the_token_of_another_lease_is_not_overwritten_before_that_is_over() {
    let (server, folder) = (Server::start(&[]).unwrap(), folder());
    let file = hold(&server, "stock", folder.path());
    for words in [&["acquire", "other"][..], &["acquire", "stock", "--namespace", "shop"]] {
        let words = [words, &["--owner-file", &file]].concat();
        let told = format!(
            "redlatch: {file:?} has the owner token of the lease of \"stock\", which is not over; nothing was acquired\n  \
             hint: release that lease first, or name another file\n"
        );
        assert_eq!(Cli::on(&server, &words).answer(), answer(78, "", &told));
    }
    assert!(!is_held(&server, "other"));
    // The lock itself keeps its own.
    assert_eq!(Cli::on(&server, &["acquire", "stock", "--owner-file", &file]).answer().status, 75);
    Cli::on(&server, &["release", "stock", "--owner-file", &file]).must();
    Cli::on(&server, &["acquire", "other", "--owner-file", &file]).must();
    Cli::on(&server, &["release", "other", "--owner-file", &file]).must();
}

#[test]
fn a_token_that_would_be_thrown_away_is_not_acquired() {
    let server = Server::start(&[]).unwrap();
    for output in ["/dev/null", "&-"] {
        let script = format!("exec {} acquire stock --format json >{output}", env!("CARGO_BIN_EXE_redlatch"));
        let refused = Cli::program("sh", &["-c", &script]).env("REDLATCH_URL", &server.url()).answer();
        let told = "redlatch: stdout is closed or thrown away: nothing would know the owner token, so nobody could \
                    release the lease\n  hint: keep stdout or add --owner-file FILE\n";
        assert_eq!(refused, answer(74, "", told));
        assert!(!is_held(&server, "stock"));
    }
}

#[test]
fn a_lease_whose_token_could_not_be_told_is_given_back() {
    let server = Server::start(&[]).unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for format in ["json", "jsonl"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let outputs = [
            (Stdio::from(full), "No space left on device (os error 28)"),
            (Stdio::from(closed.try_clone().unwrap()), "Broken pipe (os error 32)"),
            // Open for reading alone.
            (Stdio::from(File::open("/dev/zero").unwrap()), "Bad file descriptor (os error 9)"),
        ];
        for (stdout, why) in outputs {
            let mut command = Command::new(env!("CARGO_BIN_EXE_redlatch"));
            command.args(["acquire", "stock", "--ttl", "1h", "--format", format]).env("REDLATCH_URL", server.url());
            let ended = command.stdout(stdout).output().unwrap();
            let told = format!("redlatch: stdout cannot be written: {why}; the lease of \"stock\" was given back\n");
            assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(74), told));
            assert!(!is_held(&server, "stock"));
        }
    }
}
