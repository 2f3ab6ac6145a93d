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
    println!("{worked} commands worked, {failed} did not");
    assert!(worked > 15 && failed > 5);
}

#[test]
fn the_schema_refuses_what_is_not_as_it_says() {
    let validator = Validator::new();
    let good = json!({
        "format_version": 1, "command": "release", "ok": true, "exit_code": 0,
        "data": { "name": "n", "outcome": "released" }, "errors": [],
    });
    validator.assert_valid(&good);
    for (path, value) in [
        ("/format_version", json!(2)),
        ("/command", json!("unlock")),
        ("/ok", json!(false)),
        ("/exit_code", json!(1)),
        ("/data", json!({ "name": "n" })),
        ("/data/outcome", json!("gone")),
        ("/errors", json!([{ "code": "lost" }])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert!(validator.0.validate(&bad, validator.1).is_err(), "{bad}");
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
