//! What a server repeats of the commands that it does not know reaches nobody: each form of a URL and of a password, each
//! verb, each command that a server may lack.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{Answer, Cli, folder, until};
use crate::support::{
    Fault, Proxy, Raw, Server, say,
    topology::{Certificates, Member, WATCHED, free_port},
};

/// Passwords: a word, and a number, which elsewhere is no secret.
const CANARIES: [&str; 2] = ["s3cret-canary", "246813579024"];

/// Commands that carry a password, an owner token or an argument of a person, and those that a verb begins with.
const RENAMED: [&str; 10] =
    ["HELLO", "AUTH", "SELECT", "CLIENT", "EVALSHA", "SCRIPT", "CLUSTER", "ACL", "INFO", "SUBSCRIBE"];

/// What a file has that stands for OWNER.
const OWNER: &str = "0123456789abcdef:1";

/// The verbs that talk to servers; NAME is another lock each time.
const VERBS: [&[&str]; 16] = [
    &["load"],
    &["load", "--dry-run"],
    &["status", "--callers"],
    &["verify"],
    &["doctor"],
    &["doctor", "--user", "app"],
    &["acl", "print"],
    &["acl", "check", "app"],
    &["bench", "--duration", "1ms"],
    &["run", "NAME", "--", "true"],
    &["acquire", "NAME"],
    &["extend", "NAME", "--owner-file", "OWNER"],
    &["release", "NAME", "--owner-file", "OWNER"],
    &["inspect", "NAME"],
    &["force-release", "NAME", "--reason", "a reason"],
    &["ls"],
];

/// A server that can be reached in every way and needs a password, and a cluster and a sentinel that do too.
struct Servers {
    _servers: [Server; 2],
    _sentinel: Member,
    /// URLs with `LOGIN@` or `?LOGIN` where the password belongs.
    urls: Vec<String>,
}

impl Servers {
    fn start(renamed: &str, password: &str, certificates: &Path) -> Self {
        let at = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
        let (certificate, key, ca) = (at("server.crt"), at("server.key"), at("ca.crt"));
        let start = |port: u16, own: &[&str]| {
            let port = port.to_string();
            let common =
                ["--port", &port, "--bind", "127.0.0.1", "--rename-command", renamed, "", "--requirepass", password];
            Server::start(&[&common[..], own].concat()).unwrap()
        };
        let (plain, tls, node) = (free_port(), free_port(), free_port());
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let over_tls = ["--tls-port", &tls.to_string(), "--tls-auth-clients", "no"];
        let single = start(plain, &[&over_tls[..], &files].concat());
        let cluster = start(node, &["--cluster-enabled", "yes"]);
        for (server, words) in [
            (&cluster, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"][..]),
            (&cluster, &["ACL", "SETUSER", "app", "on", &format!(">{password}"), "+@all", "~*", "&*"]),
            (&single, &["ACL", "SETUSER", "app", "on", &format!(">{password}"), "+@all", "~*", "&*"]),
        ] {
            // Where the command or the login is renamed it cannot be.
            if let Ok(mut raw) = Raw::try_open(&format!("{}?pass={password}", server.url())) {
                let _ = raw.run(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
            }
        }
        let sentinel = Member::watching_port(plain);
        let (socket, sentinels) = (single.socket(), sentinel.address());
        let urls = vec![
            format!("redis://LOGIN@127.0.0.1:{plain}/3"),
            format!("rediss://LOGIN@localhost:{tls}"),
            format!("redis+unix://{}?LOGIN", socket.display()),
            format!("unix://{}?LOGIN", socket.display()),
            format!("redis+sentinel://LOGIN@{sentinels}/{WATCHED}"),
            format!("redis+sentinel://LOGIN@{sentinels}/{WATCHED}?sentinel_user=app&sentinel_password={password}"),
            format!("redis+cluster://LOGIN@127.0.0.1:{node}"),
        ];
        Self { _servers: [single, cluster], _sentinel: sentinel, urls }
    }
}

/// A URL with the rest of what it takes to log in.
struct Form {
    url: String,
    variable: &'static str,
    file: Option<String>,
}

impl Form {
    /// Every way of giving `password` with `url`: with and without a user, in the URL, by the variable, in a file.
    fn all(url: &str, password: &'static str, file: &str) -> Vec<Self> {
        let form = |login: &str, option: &str, variable, file: Option<&str>| {
            let url = url.replace("?LOGIN", option).replace("LOGIN@", login);
            Self { url, variable, file: file.map(str::to_owned) }
        };
        vec![
            form(&format!(":{password}@"), &format!("?pass={password}"), "", None),
            form(&format!("app:{password}@"), &format!("?user=app&pass={password}"), "", None),
            form("app@", "?user=app", password, None),
            form("", "", "", Some(file)),
        ]
    }

    fn cli(&self, words: &[&str], ca: &str) -> Cli {
        let (own, command) = words.split_at(words.iter().position(|word| *word == "--").unwrap_or(words.len()));
        let file = self.file.iter().flat_map(|file| ["--password-file", file]);
        let tls = if self.url.starts_with("rediss") { &["--tls-ca", ca][..] } else { &[] };
        let words: Vec<&str> =
            own.iter().copied().chain(file).chain(tls.iter().copied()).chain(command.iter().copied()).collect();
        Cli::at(&self.url, &words).env("REDLATCH_PASSWORD", self.variable)
    }
}

/// How much was searched.
static SEARCHED: AtomicUsize = AtomicUsize::new(0);

#[track_caller]
fn assert_clean(text: &str, about: &str) {
    SEARCHED.fetch_add(text.len(), Ordering::Relaxed);
    for secret in CANARIES.into_iter().chain(["beginning with", OWNER]) {
        assert!(!text.contains(secret), "{about}: {secret} in {text}");
    }
}

fn assert_says_nothing(told: &Answer, about: &str) {
    assert_clean(&told.stdout, about);
    assert_clean(&told.stderr, about);
}

/// The log of a watch, and what its port answers.
fn watch(form: &Form, ca: &str, about: &str) {
    let address = format!("127.0.0.1:{}", free_port());
    let running = form.cli(&["load", "--watch=1s", "--timeout", "1s", "--metrics-addr", &address], ca).start();
    until("the watch has told something", || !(running.stdout() + &running.stderr()).is_empty());
    for path in ["/ready", "/metrics"] {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(&address) {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut answer);
        }
        assert_clean(&answer, about);
    }
    running.signal("TERM");
    assert_says_nothing(&running.answer(), about);
}

#[test]
fn nothing_that_was_sent_to_a_server_that_does_not_know_a_command_is_shown() {
    let files = folder();
    Certificates::good().write(files.path());
    let at = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (ca, owner) = (at("ca.crt"), at("owner"));
    let (mut calls, mut refused) = (0, 0);
    for (turn, renamed) in RENAMED.into_iter().enumerate() {
        let password = CANARIES[turn % 2];
        let file = at(password);
        std::fs::write(&file, password).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let servers = Servers::start(renamed, password, files.path());
        for (which, url) in servers.urls.iter().enumerate() {
            let forms = Form::all(url, password, &file);
            for (number, verb) in VERBS.iter().enumerate() {
                calls += 1;
                // Every way to log in and every format, by turns.
                let form = &forms[(turn + which + number) % forms.len()];
                let format = [&["-vvv"][..], &["--format", "json"], &[]][(which + number) % 3];
                let name = format!("n{calls}");
                let lease =
                    serde_json::json!({ "name": name, "namespace": "redlatch", "ttl_ms": 1000, "owner": OWNER });
                std::fs::write(&owner, lease.to_string()).unwrap();
                let word = |word: &&'static str| match *word {
                    "NAME" => name.as_str(),
                    "OWNER" => owner.as_str(),
                    word => word,
                };
                let verb: Vec<&str> = verb.iter().map(word).collect();
                let words = [&verb[..1], &["--timeout", "1s"], format, &verb[1..]].concat();
                let told = form.cli(&words, &ca).answer();
                assert_says_nothing(&told, &format!("{renamed} {} {words:?}", form.url));
                refused += u64::from(!matches!(told.status, 0 | 1));
            }
            watch(&forms[which % forms.len()], &ca, &format!("{renamed} {url} watch"));
        }
    }
    let searched = SEARCHED.load(Ordering::Relaxed);
    say(&format!("{calls} calls, of which {refused} were refused: {searched} bytes searched"));
    assert!(refused > 200);
}

/// What sentinels are asked in the background is logged only.
#[test]
fn a_sentinel_that_cannot_be_listened_to_is_logged_without_its_words() {
    let server = Member::start(&[]);
    let address = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{}\r\n", server.port.to_string().len(), server.port);
    let address: &str = address.leak();
    let behind = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&behind);
    proxy.rule(move |command| match command {
        command if command.is("SENTINEL") => Some(Fault::Answer(address)),
        command if command.is("SUBSCRIBE") => Some(Fault::Refuse("ERR no, with args beginning with: 's3cret-canary'")),
        _ => None,
    });
    let url = format!("redis+sentinel://{}/{WATCHED}", proxy.address());
    let running = Cli::at(&url, &["run", "-vvv", "n", "--", "sleep", "60"]).start();
    running.says("a sentinel cannot be listened to error=listening was refused (ERR)");
    running.signal("TERM");
    assert_says_nothing(&running.answer(), "log");
}
