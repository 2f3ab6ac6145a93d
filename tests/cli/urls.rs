//! A URL for a server of another kind than the one that is there: one sentence says what to write.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
};

use super::{Cli, answer, folder};
use crate::support::topology::{Certificates, Cluster, Member, WATCHED, Watched, free_port};

#[track_caller]
fn assert_says(url: &str, status: i32, words: &str) {
    let verbs = [
        &["inspect", "x"][..],
        &["load"],
        &["status"],
        &["doctor"],
        &["ls"],
        &["run", "x", "-n", "--", "true"],
        &["bench", "--duration", "1ms"],
    ];
    for verb in verbs {
        let told = Cli::at(url, &[&verb[..1], &["--timeout", "2s"], &verb[1..]].concat()).answer();
        assert!(told.status == status && told.stderr.contains(words), "{url} {verb:?}: {told:?}");
        assert!(!told.stderr.contains("beginning with"), "nothing is repeated that was sent: {told:?}");
    }
}

#[test]
fn a_sentinel_is_no_server_and_a_server_is_no_sentinel() {
    let watched = Watched::start(&[]);
    assert_says(&watched.sentinels[0].url(), 78, "for a sentinel write redis+sentinel://HOST[:PORT]/NAME");
    let server = watched.servers[0].address();
    let at_a_server = format!("redis+sentinel://{server}/{WATCHED}");
    assert_says(&at_a_server, 78, "the server there is no sentinel, write redis://HOST[:PORT]");
    let other = watched.url().replace(WATCHED, "other");
    assert_says(&other, 78, "the sentinels watch no primary called other, write the NAME");
    assert_says(&format!("redis+cluster://{server}"), 78, "no node of a cluster, write redis:// instead");
}

#[test]
fn a_primary_that_the_sentinels_announce_and_nobody_reaches_is_named() {
    let mut server = Member::start(&[]);
    let sentinel = Member::watching(&server);
    let url = format!("redis+sentinel://{}/{WATCHED}", sentinel.address());
    let announced = format!("the sentinels say that the primary is {}", server.address());
    server.signal("STOP");
    assert_says(&url, 69, &announced);
    server.signal("CONT");
    server.kill();
    assert_says(&url, 69, &format!("{announced}, which cannot be reached (Connection refused"));
}

#[test]
fn a_node_of_a_cluster_is_told_from_a_server_of_its_own() {
    let cluster = Cluster::start(&[]);
    let node =
        cluster.members.iter().find(|node| node.address() != cluster.members[cluster.owner("redlatch:m1:x")].address());
    let told = Cli::at(&node.unwrap().url(), &["inspect", "x"]).answer();
    assert!(told.status == 78 && told.stderr.contains("write redis+cluster:// in the URL"), "{told:?}");
}

#[test]
fn tls_where_there_is_none_and_none_where_it_is_are_told() {
    let (folder, port) = (folder(), free_port());
    Certificates::good().write(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, ca) = (at("server.crt"), at("server.key"), at("ca.crt"));
    let words = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let server = Member::start(&[&words[..], &["--tls-ca-cert-file", &ca]].concat());
    assert_says(&format!("redis://127.0.0.1:{port}"), 69, "if it speaks TLS, write rediss:// instead of redis://");
    let plain = server.url().replace("redis://", "rediss://");
    assert_says(&plain, 69, "if it does not speak TLS, write redis:// instead of rediss://");
}

#[test]
fn a_user_without_a_password_is_not_served_as_somebody_else() {
    let server = Member::start(&[]);
    server.raw().must::<()>(&["ACL", "SETUSER", "app", "on", ">pw", "+@all", "~*", "&*"]);
    let url = server.url().replace("redis://", "redis://app@");
    assert_says(&url, 78, "the URL names the user \"app\" without a password, write USER:PASSWORD@");
    let told = Cli::at(&url, &["ls"]).env("REDLATCH_PASSWORD", "pw").answer();
    assert_eq!(told.status, 0, "{told:?}");
}

#[test]
fn a_password_file_that_others_can_read_gets_a_warning() {
    let server = Member::start(&["--requirepass", "pw"]);
    let folder = folder();
    let path = folder.path().join("password");
    std::fs::write(&path, "pw\n").unwrap();
    let words = ["ls", "--password-file", path.to_str().unwrap()];
    for (mode, warned) in [(0o600, 0), (0o400, 0), (0o644, 1), (0o640, 1), (0o604, 1)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let told = Cli::at(&server.url(), &words).answer();
        assert_eq!((told.status, told.stderr.matches("chmod 600").count()), (0, warned), "{mode:o} {told:?}");
    }
}

#[test]
fn a_setting_of_the_environment_that_says_nothing_is_a_mistake() {
    let server = Member::start(&[]);
    let wrong = [
        (OsStr::new(""), "is empty", "give # a value, or unset it"),
        (OsStr::from_bytes(b"redis://\xff"), "is not UTF-8", "bytes of a URL may be written as %XX"),
    ];
    for (value, what, hint) in wrong {
        for name in ["REDLATCH_URL", "REDIS_URL", "REDLATCH_PASSWORD"] {
            let told = format!("redlatch: {name} {what}\n  hint: {}\n", hint.replace('#', name));
            for words in [&["run", "x", "-n", "--", "true"][..], &["ls"]] {
                let call = Cli::new(words).env("REDIS_URL", &server.url()).env(name, value);
                assert_eq!(call.answer(), answer(78, "", &told));
            }
        }
        // What is given another way is not looked for in the environment.
        let words = ["ls", "--url", &server.url()];
        let call = Cli::new(&words).env("REDLATCH_URL", value).env("REDIS_URL", value);
        assert_eq!(call.answer().status, 0);
    }
}
