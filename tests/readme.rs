//! What the README says is what is there: its synopses run as written, its digests are those of the bundle.

use std::process::Command;

use crate::support::Server;

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
