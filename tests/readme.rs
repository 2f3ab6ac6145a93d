//! What the README says is what is there: its synopses run as written, its digests are those of the bundle.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use crate::{
    cli::{Cli, until},
    support::{Server, topology::Member},
};

const README: &str = include_str!("../README.md");
const NGINX_README: &str = include_str!("../lua/README.md");

mod hold {
    include!("examples/hold.rs");

    pub fn run() -> Result<(), redlatch::Error> {
        main()
    }
}

/// The first fenced block of `language` in `text`.
#[track_caller]
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let start = format!("```{language}\n");
    let rest = text.split_once(&start).unwrap_or_else(|| panic!("no {language} block")).1;
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_rust_synopsis_is_the_example_that_runs() {
    assert_eq!(block(README, "rust"), include_str!("examples/hold.rs"));
    let server = Server::start(&[]).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["readme::rust_synopsis", "--exact", "--nocapture"])
        .env("REDLATCH_URL", server.url())
        .env("REDLATCH_SYNOPSIS", "run")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("holding \"orders/42\" with fence 1"), "{stdout}");
}

/// The body of the test above, in a process of its own that has the server's URL in its environment.
#[test]
fn rust_synopsis() {
    if std::env::var_os("REDLATCH_SYNOPSIS").is_some() {
        hold::run().unwrap();
    }
}

#[test]
fn the_shell_synopsis_runs() {
    let server = Server::start(&[]).unwrap();
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_redlatch")).parent().unwrap().to_owned();
    let work = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-e", "-c", block(README, "sh")])
        .current_dir(work.path())
        .env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()))
        .env("REDLATCH_URL", server.url())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("fence 1"), "{stdout}");
    assert!(stdout.contains("backup"), "{stdout}");
}

#[test]
fn the_nginx_synopsis_is_the_one_that_the_module_s_own_readme_runs() {
    assert_eq!(block(README, "nginx"), block(NGINX_README, "nginx"));
}

/// Every fenced block of `language` in `text`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    text.split(&start).skip(1).map(|rest| rest.split("```").next().expect("the block ends")).collect()
}

/// Runs `redlatch` with the words of a service until it says that it is well.
fn serves(words: &[String]) {
    let server = Server::start(&[]).unwrap();
    // Any free port instead of the one in the example.
    let port_is_free = |word: &String| if word.ends_with(":9121") { "127.0.0.1:0".to_owned() } else { word.clone() };
    let words: Vec<_> = words.iter().map(port_is_free).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let running = Cli::at(&server.url(), &words).start();
    running.says("/ready\n");
    let ready = running.stderr().split(' ').find_map(|word| word.trim().strip_suffix("/ready")).unwrap().to_owned();
    let address = ready.trim_start_matches("http://");
    until("it is well", || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /ready HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.ends_with("ok\n")
    });
    running.signal("TERM");
    assert_eq!(running.answer().status, 0);
}

#[test]
fn the_unit_file_and_the_container_keep_the_scripts_there() {
    let unit = block(README, "ini");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/redlatch ")).unwrap();
    serves(&command.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let container = block(README, "yaml");
    let args = container.lines().find_map(|line| line.trim().strip_prefix("args: ")).unwrap();
    serves(&serde_json::from_str::<Vec<String>>(args).unwrap());
}

#[test]
fn the_pipeline_and_the_strict_user_work_as_written() {
    let server = Member::start(&["--appendonly", "yes"]);
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_redlatch")).parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let blocks = blocks(README, "sh");
    let run = |text: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", text]).env("PATH", &path).env("REDLATCH_URL", server.url());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{text}\n{output:?}");
    };
    let pipeline = blocks.iter().find(|text| text.contains("redlatch doctor")).unwrap();
    run(pipeline);
    let user = blocks.iter().find(|text| text.contains("ACL SETUSER")).unwrap();
    run(&user.replace("redis-cli ", &format!("redis-cli -p {} ", server.port)));
    let url = format!("redis://locks:a-password@{}", server.address());
    assert_eq!(Cli::at(&url, &["run", "n", "--", "true"]).answer().status, 0);
}

#[test]
fn no_placeholder_is_left() {
    assert!(!README.contains("_TABLE") && !README.contains("SYNOPSIS_"));
}

#[test]
fn the_table_of_scripts_is_the_bundle() {
    let rows: Vec<&str> = README.lines().filter(|line| line.starts_with("| `") && line.contains(" v1`")).collect();
    let scripts = redlatch::bundle::embedded().unwrap().scripts();
    let bundle: Vec<String> = scripts
        .iter()
        .map(|script| format!("| `{} v{}` | `{}` |", script.name(), script.version(), script.digest()))
        .collect();
    assert_eq!(rows, bundle);
}
