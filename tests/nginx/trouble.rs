//! Servers that are away or refuse.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use super::{ask, fence, free_port, redis_and_nginx, text, until};
use crate::support::Server;
use crate::support::nginx::{Config, Nginx};

/// Both ways to acquire meet the error at once, wait or no wait.
#[track_caller]
fn refused(nginx: &Nginx, params: &[(&str, &str)], error: &str) {
    let waits = [params, &[("wait", "20")]].concat();
    let started = Instant::now();
    assert_eq!(text(&nginx.call("try_acquire", params), "error"), error);
    assert_eq!(text(&nginx.call("acquire", &waits), "error"), error);
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

#[test]
fn no_server_is_a_connection_error() {
    let port = free_port();
    let nginx = Config::new(&format!("port = {port}")).start();
    let error = format!(
        "connection: 127.0.0.1:{port} cannot be reached (connection refused): \
         is the server running, are host and port right?"
    );
    refused(&nginx, &[("name", "n")], &error);
    assert_eq!(text(&nginx.call("release", &[("name", "n"), ("owner", "o"), ("o.timeout", "0.2")]), "error"), error);
}

#[test]
fn a_server_that_is_not_redis_is_a_connection_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "$word\r\n", "*2\r\n$-\r\n", "\r\n", ":12\r\n", "+OK\r\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let nginx = Config::new(&format!("port = {port}")).start();
    for _ in 0..6 {
        let answer = nginx.call("try_acquire", &[("name", "n"), ("o.timeout", "1")]);
        let error = text(&answer, "error");
        assert!(error.starts_with(&format!("connection: 127.0.0.1:{port} gives no Redis answer (")), "{error}");
        assert!(error.ends_with("): is a Redis there, and awake?"), "{error}");
    }
}

#[test]
fn passwords_that_are_missing_or_wrong_say_which_option_to_set() {
    let redis = Server::start(&["--requirepass", "secret"]).unwrap();
    let nginx = Config::redis(&redis).start();
    let name = ("name", "n");
    refused(
        &nginx,
        &[name],
        "redis: NOAUTH Authentication required (set the options password and, if there is one, username)",
    );
    let wrong = "redis: WRONGPASS invalid username-password pair or user is disabled \
                 (check the options username and password)";
    refused(&nginx, &[name, ("o.password", "guess")], wrong);
    refused(&nginx, &[name, ("o.password", "secret"), ("o.username", "bob")], wrong);
    assert_eq!(nginx.call("hold", &[name, ("o.password", "secret")])["released"], true);
    // The pool now holds connections that are logged in: they serve nobody else.
    for _ in 0..8 {
        refused(&nginx, &[name, ("o.password", "guess")], wrong);
    }
    assert!(!nginx.error_log().contains("secret"));
}

#[test]
fn databases_and_users_never_share_a_connection() {
    let redis = Server::start(&[]).unwrap();
    ask::<()>(&redis, &["ACL", "SETUSER", "al", "on", ">a", "~*", "&*", "+@all"]);
    let nginx = Config::redis(&redis).workers(1).start();
    let (al, password) = (("o.username", "al"), ("o.password", "s:a"));
    for _ in 0..3 {
        assert!(nginx.call("try_acquire", &[("name", "n"), ("ttl", "0.05")])["owner"].is_string());
        assert!(nginx.call("try_acquire", &[("name", "n"), ("o.database", "3"), ("ttl", "0.05")])["owner"].is_string());
        assert!(nginx.call("try_acquire", &[("name", "al"), al, password, ("ttl", "0.05")])["owner"].is_string());
        thread::sleep(Duration::from_millis(60));
    }
    let clients: String = ask(&redis, &["CLIENT", "LIST"]);
    let with = |what: &[&str]| clients.lines().filter(|line| what.iter().all(|word| line.contains(word))).count();
    assert_eq!(with(&["cmd=evalsha", " db=0", "user=default"]), 1, "{clients}");
    assert_eq!(with(&["cmd=evalsha", " db=3", "user=default"]), 1, "{clients}");
    assert_eq!(with(&["cmd=evalsha", " db=0", "user=al"]), 1, "{clients}");
}

#[test]
fn a_replica_says_to_connect_to_the_primary() {
    let port = free_port().to_string();
    let _primary = Server::start(&["--port", &port]).unwrap();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]).unwrap();
    until("the replica is in sync", || {
        ask::<String>(&replica, &["INFO", "replication"]).contains("master_link_status:up")
    });
    let nginx = Config::redis(&replica).start();
    let error = "redis: READONLY You can't write against a read only replica \
                 (this server is a replica: connect to the primary)";
    refused(&nginx, &[("name", "n")], error);
}

#[test]
fn a_full_server_refuses_to_grant_but_extends_and_releases() {
    let (redis, nginx) = redis_and_nginx();
    let lease = nginx.call("try_acquire", &[("name", "n")]);
    ask::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
    let error = "redis: OOM command not allowed when used memory > 'maxmemory' (the server is full: raise its maxmemory \
                 or delete keys; leases that are held can be extended and released)";
    refused(&nginx, &[("name", "other")], error);
    let owned = [("name", "n"), ("owner", text(&lease, "owner"))];
    assert_eq!(fence(&nginx.call("extend", &owned)), fence(&lease));
    assert_eq!(nginx.call("release", &owned)["released"], true);
}

#[test]
fn users_without_the_permissions_are_told_which() {
    let (redis, nginx) = redis_and_nginx();
    for (user, rules, denied, rule) in [
        ("noscript", ["~*", "-@scripting"], "run EVALSHA", "+evalsha"),
        ("nohset", ["~*", "-hset"], "run HSET", "+hset"),
        ("nohget", ["~*", "-hget"], "run HGET", "+hget"),
        ("notime", ["~*", "-time"], "run TIME", "+time"),
        ("nokey", ["~else:*", "+@all"], "use this key", "~redlatch:*"),
    ] {
        let allow =
            format!("(user {user} may not {denied}; grant {rule}; role caller has it: `redlatch acl print caller`)");
        ask::<()>(&redis, &["ACL", "SETUSER", user, "on", ">p", "+@all", rules[0], rules[1]]);
        // In between stand the server's own words, which are others in each version.
        let params = [("name", "n"), ("o.username", user), ("o.password", "p")];
        let error = text(&nginx.call("try_acquire", &params), "error").to_owned();
        assert!(error.starts_with("redis: NOPERM ") && error.ends_with(&allow), "{error}");
        for option in [("o.connection", "pool"), ("o.strict", "true")] {
            let error = text(&nginx.call("try_acquire", &[&params[..], &[option]].concat()), "error").to_owned();
            let role = if option.0 == "o.strict" { "strict" } else { "caller" };
            assert!(error.ends_with(&allow.replace("caller", role)), "{error}");
        }
    }
    assert_eq!(ask::<i64>(&redis, &["DBSIZE"]), 0);
}

#[test]
fn a_key_of_another_type_is_left_as_it_is() {
    let (redis, nginx) = redis_and_nginx();
    ask::<()>(&redis, &["SET", "redlatch:m1:n", "mine"]);
    let error = "redis: WRONGTYPE Operation against a key holding the wrong kind of value \
                 (the key holds something else, left as it is: choose another name or namespace)";
    refused(&nginx, &[("name", "n")], error);
    for op in ["extend", "release"] {
        assert_eq!(text(&nginx.call(op, &[("name", "n"), ("owner", "o")]), "error"), error);
    }
    assert_eq!(ask::<String>(&redis, &["GET", "redlatch:m1:n"]), "mine");
}

/// The rights that lua/README.md names are enough, and those that it calls optional are.
#[test]
fn the_rights_in_the_readme_are_enough() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/README.md")).unwrap();
    let rights = readme.lines().find(|line| line.starts_with("resetkeys ")).expect("the README has the rights");
    let redis = Server::start(&[]).unwrap();
    let user = |name: &str, leave_out: &[&str]| {
        let mut rule = vec!["ACL", "SETUSER", name, "on", ">secret"];
        rule.extend(rights.split(' ').filter(|right| !leave_out.contains(right)));
        ask::<String>(&redis, &rule);
        Config::redis(&redis).workers(1).options(&format!("username = '{name}', password = 'secret'")).start()
    };
    let visit = |nginx: &Nginx| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let answer = nginx.call("hold", &[("name", "n"), ("wait", "20"), ("hold", "0.2"), ("ttl", "0.3")]);
                    assert_eq!(answer["released"], true, "{answer}");
                });
            }
        });
    };
    let all = user("all", &[]);
    visit(&all);
    assert!(!all.error_log().contains("NOPERM"), "{}", all.error_log());
    let connected = ask::<String>(&redis, &["CLIENT", "LIST"]);
    assert!(connected.contains(concat!(" name=redlatch/", env!("CARGO_PKG_VERSION"), " ")), "{connected}");
    visit(&user("quiet", &["+subscribe", "&redlatch:inbox:*", "+publish"]));
}
