//! The schema of the JSON object, against every command.

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};

use super::{Cli, folder, hold};
use crate::support::Server;

fn schema() -> Value {
    serde_json::from_str(&Cli::new(&["export", "--as", "schema"]).must()).unwrap()
}

struct Validator(Schemas, SchemaIndex);

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", schema()).expect("it can be added");
        let index = compiler.compile("schema.json", &mut schemas).expect("the schema is one");
        Self(schemas, index)
    }

    #[track_caller]
    fn assert_valid(&self, object: &Value) {
        if let Err(error) = self.0.validate(object, self.1) {
            panic!("{error:#}\n{object:#}");
        }
    }
}

#[test]
fn every_command_prints_what_the_schema_says_when_it_works_and_when_it_fails() {
    let server = Server::start(&[]).unwrap();
    let folder = folder();
    let owner = hold(&server, "held", folder.path());
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    let commands: &[&[&str]] = &[
        &["load", "--dry-run"],
        &["load"],
        &["status", "--check", "--callers"],
        &["verify", "--dir", concat!(env!("CARGO_MANIFEST_DIR"), "/lua/scripts")],
        &["acl", "print", "strict"],
        &["acl", "check", "default"],
        &["acl", "check", "nobody"],
        &["doctor"],
        &["doctor", "--strict"],
        &["bench", "--duration", "50ms", "--clients", "2"],
        &["scripts"],
        &["show", "mutex/release"],
        &["show", "nothing"],
        &["export", "--as", "json"],
        &["export", "--as", "schema", "--out", &out],
        &["export", "--as", "lua", "--out", &out, "--check"],
        &["acquire", "stock"],
        &["acquire", "held"],
        &["extend", "held", "--owner-file", &owner],
        &["inspect", "held"],
        &["inspect", "free"],
        &["ls", "--all"],
        &["force-release", "held", "--reason", "a test"],
        &["force-release", "stock", "--yes", "--reason", "a test"],
        &["force-release", "stock", "--yes", "--reason", "a test"],
        &["release", "held", "--owner-file", &owner],
        &["release", "held", "--owner-file", &owner],
        &["release", "free", "--owner-file", &owner],
        &["completions", "fish"],
        &["man", "run"],
    ];
    let validator = Validator::new();
    let (mut worked, mut failed) = (0, 0);
    for words in commands {
        let told = Cli::on(&server, &[words, &["--format", "json"][..]].concat()).answer();
        let object: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{words:?} {told:?}"));
        validator.assert_valid(&object);
        assert_eq!((object["exit_code"].as_i64(), &object["command"]), (Some(told.status.into()), &json!(words[0])));
        if told.status == 0 {
            worked += 1
        } else {
            failed += 1
        }
        // No server at all.
        let told = Cli::at("unix:///nowhere", &[words, &["--format", "json"][..]].concat()).answer();
        validator.assert_valid(&serde_json::from_str(&told.stdout).unwrap());
    }
    for words in [&["true"][..], &["sh", "-c", "exit 3"], &["sh", "-c", "kill -9 $$"], &["/nowhere"]] {
        let told = Cli::on(&server, &[&["run", "r", "--format", "json", "--"], words].concat()).answer();
        // The command that was to become of a process of its own complains there, as a shell would.
        let object = told.stderr.find('{').map(|from| &told.stderr[from..]);
        validator
            .assert_valid(&serde_json::from_str(object.unwrap_or_default()).unwrap_or_else(|_| panic!("{told:?}")));
    }
    hold(&server, "kept", folder.path());
    let told = Cli::on(&server, &["run", "kept", "-w", "0s", "--format", "json", "--", "true"]).answer();
    let object: Value = serde_json::from_str(&told.stderr).unwrap();
    validator.assert_valid(&object);
    assert_eq!((&object["data"]["held"], &object["data"]["holder"]), (&json!(false), &json!(super::HOLDER)));
    println!("{worked} commands worked, {failed} did not");
    assert!(worked > 15 && failed > 5);
}

#[test]
fn the_schema_refuses_what_is_not_as_it_says() {
    let validator = Validator::new();
    let good = json!({
        "format_version": 1, "command": "release", "ok": true, "exit_code": 0,
        "data": { "name": "n", "name_base64": null, "outcome": "released" }, "errors": [],
    });
    validator.assert_valid(&good);
    for (path, value) in [
        ("/format_version", json!(2)),
        ("/command", json!("unlock")),
        ("/ok", json!(false)),
        ("/exit_code", json!(1)),
        ("/data", json!({ "name": "n" })),
        ("/data/outcome", json!("gone")),
        ("/data/name_base64", json!("no base64")),
        ("/errors", json!([{ "code": "lost" }])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert!(validator.0.validate(&bad, validator.1).is_err(), "{bad}");
    }
}

#[test]
fn names_and_labels_are_exact_in_json_and_have_base64_beside_them_where_they_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let server = Server::start(&[]).unwrap();
    let on = |words: &[&str], name: &[u8]| {
        let mut cli = Cli::on(&server, words);
        cli.command.arg(std::ffi::OsStr::from_bytes(name));
        let answer = cli.answer();
        assert!(answer.stdout.chars().all(|it| it == '\n' || !it.is_control()), "a terminal obeys it: {answer:?}");
        serde_json::from_str::<Value>(&answer.stdout).unwrap()
    };
    let acquire = ["acquire", "--format", "json", "--ttl", "1h"];
    for (name, base64) in [
        (&b"plain"[..], json!(null)),
        ("zw\u{f6}lf \u{1f512} \"quoted\" back\\slash\ttab \u{9b}31m \u{202e}".as_bytes(), json!(null)),
        (b"a\xff\x1b\"b", json!("Yf8bImI=")),
    ] {
        let exact = json!(String::from_utf8_lossy(name));
        let of = |data: &Value| (data["name"].clone(), data["name_base64"].clone());
        let expected = (exact, base64);
        assert_eq!(of(&on(&acquire, name)["data"]), expected);
        assert_eq!(of(&on(&acquire, name)["data"]), expected, "held by another");
        assert_eq!(of(&on(&["inspect", "--format", "json"], name)["data"]), expected);
        let listed = on(&["ls", "--format", "json"], b"*");
        assert!(listed["data"]["locks"].as_array().unwrap().iter().any(|lock| of(lock) == expected), "{listed}");
        let forced = on(&["force-release", "--format", "json", "--yes", "--reason", "a test"], name);
        assert_eq!(of(&forced["data"]), expected);
    }
}

#[test]
fn what_nobody_holds_has_a_code() {
    let server = Server::start(&[]).unwrap();
    for words in [&["inspect", "free"][..], &["force-release", "free", "--yes", "--reason", "a test"]] {
        let told = Cli::on(&server, &[words, &["--format", "json"]].concat()).answer();
        let object: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((told.status, &object["ok"], &object["errors"][0]["code"]), (1, &json!(false), &json!("not_held")));
        let told = Cli::on(&server, words).answer();
        assert_eq!((told.status, told.stderr.as_str()), (1, ""), "people read it once");
    }
}

#[test]
fn the_schema_knows_every_verb() {
    let schema = schema();
    let known: Vec<_> =
        schema["properties"]["command"]["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let help = Cli::new(&["help"]).must();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in commands.lines().filter(|line| !line.starts_with("   ")) {
        let verb = line.split_whitespace().next().unwrap();
        assert!(verb == "help" || known.contains(&verb), "{verb}");
    }
}
