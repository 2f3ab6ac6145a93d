//! S19: callers of two versions of the bundle use one lock at once. The second version is for this test only: each
//! script with other bytes, and so another digest, but the same contract.

use std::collections::BTreeSet;

use redlatch::bundle::{Bundle, Digest, embedded};

use crate::support::{Raw, Server};

/// The bytes of each script in both versions.
struct Versions(Vec<(String, [Vec<u8>; 2])>);

impl Versions {
    fn new() -> Self {
        let scripts = embedded().unwrap().scripts().iter();
        let both = |source: &[u8]| [source.to_vec(), [source, b"-- the second version\n"].concat()];
        Self(scripts.map(|script| (script.name().to_owned(), both(script.source()))).collect())
    }

    fn digest(&self, name: &str, version: usize) -> String {
        let (_, sources) = self.0.iter().find(|(other, _)| other == name).expect("the script is there");
        Digest::of(&sources[version]).to_string()
    }

    fn load(&self, raw: &mut Raw) {
        for source in self.0.iter().flat_map(|(_, sources)| sources) {
            raw.run(&[b"SCRIPT", b"LOAD", source]).unwrap();
        }
    }
}

struct Mixed {
    raw: Raw,
    versions: Versions,
}

impl Mixed {
    /// The reply of `name` in `version`, by EVALSHA.
    fn call(&mut self, name: &str, version: usize, key: &str, args: &[&str]) -> Vec<redis::Value> {
        let digest = self.versions.digest(name, version);
        self.raw.must(&[&["EVALSHA", &digest, "1", key], args].concat())
    }

    fn acquire(&mut self, version: usize, key: &str, owner: &str, queue_ms: &str) -> (i64, i64) {
        let args = [owner, "10000", "0", "0", "3600000", "label", queue_ms, "3000", "", "0"];
        let reply = self.call("mutex/acquire", version, key, &args);
        let number = |value: &redis::Value| match value {
            redis::Value::Int(number) => *number,
            redis::Value::BulkString(text) => String::from_utf8_lossy(text).parse().expect("it is a number"),
            other => panic!("{other:?}"),
        };
        (number(&reply[0]), reply.get(3).map_or(0, number))
    }

    fn outcome(&mut self, name: &str, version: usize, key: &str, args: &[&str]) -> String {
        let reply = self.call(name, version, key, args);
        let redis::Value::Int(code) = reply[0] else { panic!("{reply:?}") };
        let replies = &embedded().unwrap().get(name).unwrap().header().replies;
        replies.iter().find(|reply| reply.code == code).expect("the header has it").word.clone()
    }
}

#[test]
fn s19_every_pair_of_versions_of_the_mutex_works_on_one_lock() {
    let server = Server::start(&[]).unwrap();
    let mut mixed = Mixed { raw: Raw::connect(&server), versions: Versions::new() };
    let versions = Versions::new();
    versions.load(&mut mixed.raw);
    let mut seen = BTreeSet::new();
    for mix in 0..64 {
        let version = |bit: usize| mix >> bit & 1;
        let key = format!("redlatch:m1:n{mix}");
        let (granted, first) = mixed.acquire(version(0), &key, "a:1", "0");
        assert_eq!(granted, 1);
        // The same lease from the other version.
        assert_eq!(mixed.acquire(1 - version(0), &key, "a:1", "0"), (granted, first));
        assert_ne!(mixed.acquire(version(1), &key, "b:1", "0").0, granted, "held");
        assert_ne!(mixed.acquire(version(1), &key, "b:1", "5000").0, granted, "queued");
        assert_eq!(mixed.outcome("mutex/extend", version(2), &key, &["a:1", "20000", "3600000"]), "extended");
        assert_eq!(mixed.outcome("mutex/inspect", version(5), &key, &["10"]), "held");
        assert_eq!(mixed.outcome("mutex/release", version(3), &key, &["a:1"]), "handed_off");
        assert_eq!(mixed.outcome("mutex/release", version(4), &key, &["a:1"]), "released_before");
        let (granted, second) = mixed.acquire(version(2), &key, "b:1", "5000");
        assert_eq!(granted, 1);
        assert!(second > first, "{second} after {first}");
        assert_eq!(mixed.outcome("mutex/force_release", version(5), &key, &[]), "released");
        assert_eq!(mixed.outcome("mutex/extend", version(4), &key, &["b:1", "20000", "3600000"]), "lost");
        let (_, third) = mixed.acquire(version(1), &key, "c:1", "0");
        assert!(third > second, "{third} after {second}");
        seen.insert((version(0), version(2), version(3)));
    }
    println!("combinations of acquire, extend and release: {}", seen.len());
    assert_eq!(seen.len(), 8);
}

#[test]
fn s19_every_pair_of_versions_of_the_plain_lock_works_on_one_key() {
    let server = Server::start(&[]).unwrap();
    let mut mixed = Mixed { raw: Raw::connect(&server), versions: Versions::new() };
    Versions::new().load(&mut mixed.raw);
    for mix in 0..8 {
        let version = |bit: usize| mix >> bit & 1;
        let key = format!("orders:{mix}");
        assert_eq!(mixed.outcome("plain/acquire", version(0), &key, &["a", "10000"]), "granted");
        assert_eq!(mixed.outcome("plain/acquire", version(1), &key, &["b", "10000"]), "held");
        assert_eq!(mixed.outcome("plain/extend", version(1), &key, &["a", "20000"]), "extended");
        assert_eq!(mixed.outcome("plain/release", version(2), &key, &["b"]), "not_held");
        assert_eq!(mixed.outcome("plain/release", version(2), &key, &["a"]), "released");
    }
}

#[test]
fn a_bundle_with_two_versions_ships_both_and_calls_the_newer_one() {
    let source = embedded().unwrap().get("mutex/extend").unwrap().source();
    let newer = String::from_utf8(source.to_vec()).unwrap().replace("mutex/extend v1", "mutex/extend v2");
    let newer: &'static [u8] = newer.into_bytes().leak();
    let sums = format!("{}  mutex/extend.v1.lua\n{}  mutex/extend.v2.lua\n", Digest::of(source), Digest::of(newer));
    let read = |path: &str| match path {
        "mutex/extend.v1.lua" => Some(source),
        "mutex/extend.v2.lua" => Some(newer),
        _ => None,
    };
    let bundle = Bundle::parse(sums.as_bytes(), read).unwrap();
    assert_eq!(bundle.scripts().len(), 2);
    assert_eq!(bundle.get("mutex/extend").unwrap().version(), 2);
}
