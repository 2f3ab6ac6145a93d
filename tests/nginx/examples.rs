//! Each configuration of `lua/examples` is run as it stands there, but for its ports.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::until;
use crate::support::nginx::{Folder, Nginx};
use crate::support::{Server, which_nginx};

/// A certificate for any name.
pub fn self_signed(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]);
    openssl.args(["-subj", "/CN=fallback", "-keyout", "fallback.key", "-out", "fallback.crt"]);
    assert!(openssl.current_dir(folder).stderr(Stdio::null()).status().expect("openssl is installed").success());
}

/// Body of the answer to a request by TLS.
pub fn https(socket: &str, name: &str) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quiet", "-unix", socket, "-servername", name]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let request = format!("GET / HTTP/1.0\r\nHost: {name}\r\n\r\n");
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(request.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    drop(stdin);
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned())
}

fn start_in(folder: Folder, redis: &Server, example: &str, listen: &str) -> Nginx {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/examples").join(example);
    let conf = fs::read_to_string(&path).unwrap();
    let replace = |text: String, from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from} in {example}");
        text.replace(from, to)
    };
    let conf = replace(conf, listen, &format!("listen unix:{}/http.sock", folder.0.display()));
    let server = format!("socket = \"{}\"", redis.socket().display());
    let conf = replace(conf, "host = \"127.0.0.1\", port = 6379", &server);
    Nginx::start_installed(folder, &conf, "http.sock")
}

fn start(redis: &Server, example: &str) -> Nginx {
    start_in(Nginx::folder(), redis, example, "listen 8080")
}

/// Status and body of that many requests at the same time.
fn at_once(count: usize, request: impl Fn(usize) -> (u16, String) + Sync) -> Vec<(u16, String)> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|i| {
                scope.spawn({
                    let request = &request;
                    move || request(i)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn every_example_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/examples");
    let source = include_str!("examples.rs");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(source.contains(&format!("\"{name}\"")), "{name} is run by no test");
    }
}

#[test]
fn without_their_load_module_lines_examples_are_for_any_nginx() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join("lua/examples")).unwrap() {
        let conf = fs::read_to_string(entry.unwrap().path()).unwrap();
        let built_in = which_nginx::with_modules_of(root, &conf);
        assert_eq!(conf.lines().count() - built_in.lines().count(), 2, "{built_in}");
        assert!(!built_in.contains("/usr/"), "{built_in}");
    }
}

#[test]
fn cache_stampede() {
    let redis = Server::start(&[]).unwrap();
    let nodes = [start(&redis, "cache_stampede.conf"), start(&redis, "cache_stampede.conf")];
    let pages = at_once(32, |i| nodes[i % 2].get("/a"));
    assert!(pages.iter().all(|page| *page == pages[0]), "one page for all: {pages:?}");
    assert_eq!(pages[0].0, 200, "{}", nodes[0].error_log());
    until("a stale page is filled again", || nodes[0].get("/a") != pages[0]);
}

#[test]
fn flash_sale() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis, "flash_sale.conf");
    let answers = at_once(24, |i| nginx.get(&format!("/buy?buyer=b{}", i % 6)));
    let mut statuses = HashMap::new();
    answers.iter().for_each(|(status, _)| *statuses.entry(*status).or_insert(0) += 1);
    assert_eq!(statuses[&200], 3, "{statuses:?}{}", nginx.error_log());
    assert!(statuses.keys().all(|status| [200, 409, 410].contains(status)), "{statuses:?}");
    assert_eq!(nginx.get("/buy?buyer=late").0, 410);
}

#[test]
fn certificate() {
    let redis = Server::start(&[]).unwrap();
    let folder = Nginx::folder();
    self_signed(&folder.0);
    let socket = format!("{}/http.sock", folder.0.display());
    let nginx = start_in(folder, &redis, "certificate.conf", "listen 8443");
    for (_, body) in at_once(6, |_| (0, https(&socket, "example.org"))) {
        assert_eq!(body, "orders: 1\n", "{}", nginx.error_log());
    }
}

#[test]
fn leader() {
    let redis = Server::start(&[]).unwrap();
    let nodes = [start(&redis, "leader.conf"), start(&redis, "leader.conf")];
    let leads = |node: &Nginx| {
        let (_, before) = node.get("/");
        thread::sleep(Duration::from_millis(400));
        node.get("/").1 != before
    };
    until("somebody leads", || nodes.iter().any(leads));
    let leading = nodes.iter().position(leads).unwrap();
    assert!(!leads(&nodes[1 - leading]), "one node leads");
    let [first, second] = nodes;
    let (leader, other) = if leading == 0 { (first, second) } else { (second, first) };
    drop(leader);
    until("the other node leads", || leads(&other));
}

#[test]
fn concurrency_limit() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis, "concurrency_limit.conf");
    let answers = at_once(8, |_| nginx.get("/"));
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(served, 2, "{answers:?}{}", nginx.error_log());
    assert!(answers.iter().all(|(status, _)| [200, 429].contains(status)), "{answers:?}");
    until("a place is free again", || nginx.get("/").0 == 200);
}

#[test]
fn idempotency_key() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis, "idempotency_key.conf");
    let pay = |key: &str| nginx.get_with("/pay", &format!("Idempotency-Key: {key}\r\n"));
    let answers = at_once(8, |_| pay("order 1"));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(answers[0].1.starts_with("paid under fence 1"), "{answers:?}{}", nginx.error_log());
    assert_ne!(pay("order 2"), answers[0]);
    assert_eq!(nginx.get("/pay").0, 400);
}

#[test]
fn plugin() {
    let redis = Server::start(&[]).unwrap();
    let nginx = start(&redis, "plugin.conf");
    assert!(nginx.get("/?customer=a").1.starts_with("done under fence 1"), "{}", nginx.error_log());

    // Its lease would last for 30 s, if the log phase did not give it back.
    assert_eq!(nginx.get("/?customer=a&fails=1").0, 500);
    assert!(nginx.error_log().contains("the other plugin fails"));
    until("the lease of the request that failed is given back", || nginx.get("/?customer=a").0 == 200);

    let working = nginx.send("/?customer=a&seconds=60");
    until("one of a customer is let through", || nginx.get("/?customer=a").0 == 429);
    assert_eq!(nginx.get("/?customer=b").0, 200, "another customer is not kept out");
    drop(working);
    until("the lease of the client that went away is given back", || nginx.get("/?customer=a").0 == 200);
}
