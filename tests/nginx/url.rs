//! URLs are read as Rust and the command line read them.

use redlatch::call::Endpoint;

use crate::support::Server;
use crate::support::nginx::{Config, Nginx, percent_encode};

const LOCATION: &str = r#"location = /read {
    content_by_lua_block {
        local endpoint, problem = require("resty.redlatch.url").read(ngx.unescape_uri(ngx.var.arg_url))
        if not endpoint then
            ngx.print(problem)
            return
        end
        local addresses = {}
        for i, address in ipairs(endpoint.addresses) do
            addresses[i] = address.socket or address.host .. ":" .. address.port
        end
        ngx.print(endpoint.primary and endpoint.primary .. " of " or "", table.concat(addresses, ","))
        ngx.print(" ", endpoint.kind, " ", tostring(endpoint.tls), " ", endpoint.username or "default", " ", endpoint.database)
        local has_password = endpoint.password or endpoint.sentinel_password
        ngx.print(" ", tostring(has_password ~= nil), " ", endpoint.tls and "-" or endpoint.password or "")
    }
}"#;

fn by_lua(nginx: &Nginx, url: &str) -> String {
    nginx.get(&format!("/read?url={}", percent_encode(url.as_bytes()))).1
}

fn by_rust(url: &str) -> String {
    let endpoint = match Endpoint::parse(url) {
        Ok(endpoint) => endpoint,
        Err(error) => return error.to_string(),
    };
    let kind = match (endpoint.has_sentinels(), endpoint.is_cluster()) {
        (true, _) => "sentinel",
        (_, true) => "cluster",
        _ => "",
    };
    let scheme = url.split(['+', ':']).next().unwrap().to_lowercase();
    let tls = matches!(scheme.as_str(), "rediss" | "valkeys");
    // Only one server tells its password.
    let single = if kind.is_empty() { endpoint.clone() } else { endpoint.server("h:1").unwrap() };
    let password = single.connection_info().and_then(|info| info.redis_settings().password().map(str::to_owned));
    let password = if tls { "-".to_owned() } else { password.unwrap_or_default() };
    let (user, database, has_password) = (endpoint.user(), endpoint.database(), endpoint.has_password());
    format!("{endpoint} {kind} {tls} {user} {database} {has_password} {password}")
}

#[test]
fn the_same_urls_are_read_alike_and_refused_with_the_same_words() {
    let nginx = Config::new("").locations(LOCATION).start();
    for url in [
        "redis://h",
        "REDIS://h",
        "redis://h/",
        "redis://h:1/3",
        "redis://10.0.0.1:6380",
        "redis://[::1]",
        "redis://[::1]:7000/1",
        "redis://:p@h",
        "redis://u:p@h",
        "redis://u@h",
        "redis://u:@h",
        "redis://app:p@ss@h",
        "redis://app:p%23%2F%3f%25@h:7000/3",
        "redis://a%40b:p+q@h",
        "rediss://app:p@h:7000/3",
        "valkey://h",
        "valkeys://h",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=1",
        "unix:///run/my%20redis.sock?db=1&user=u&pass=p%26q",
        "redis+unix:///run/redis.sock",
        "valkey+unix:///run/redis.sock",
        "redis+sentinel://a,b:7,[::1]:8/orders",
        "redis+sentinel://u:p@a/orders/2",
        "redis+sentinel://a/orders?sentinel_user=w&sentinel_password=p@ss/",
        "redis+sentinel://u:p@a/orders/2?sentinel_password=x",
        "rediss+sentinel://a/orders",
        "redis+cluster://a:1,b",
        "redis+cluster://u:p%40ss@a:1,b",
        "rediss+cluster://u:p@a:1,b/0",
        "redis+cluster://a/",
        // Refused.
        "s3cret",
        "localhost:6379",
        "http://:s3cret@h",
        "redis+other://:s3cret@h",
        "unix://tmp/redis.sock",
        "rediss+unix:///tmp/redis.sock",
        "unix+sentinel:///tmp/redis.sock",
        "redis://:s3cret#1@h",
        "redis://:s3cret/1@h",
        "redis://:s3cret?1@h",
        "redis://:s3cret%1@h",
        "redis+sentinel://:s3cret/1@a,b/orders",
        "redis+cluster://:s3cret#@a,b",
        "rediss://:s3cret@h#insecure",
        "redis://h?x=s3cret",
        "redis://h/1?x=s3cret",
        "redis+sentinel://h/orders?password=s3cret",
        "redis+cluster://h?sentinel_user=s3cret",
        "redis://a,b",
        "redis://:s3cret@",
        "redis://",
        "redis+cluster://a,",
        "redis://h:70000",
        "redis://h:0",
        "redis://h:",
        "redis+sentinel://a:x/orders",
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis://h/s3cret",
        "redis://h/-1",
        "redis://h/1/2",
        "redis+sentinel://h/orders/s3cret",
        "redis+cluster://h/4",
        "redis://a b",
        "redis://0.0.0.0",
    ] {
        let (lua, rust) = (by_lua(&nginx, url), by_rust(url));
        assert_eq!(lua, rust, "{url}");
        assert!(!lua.contains("s3cret"), "{lua}");
    }
}

#[test]
fn a_url_is_all_that_an_instance_needs() {
    let port = super::free_port();
    let redis = Server::start(&["--port", &port.to_string(), "--requirepass", "p@ss"]).unwrap();
    let urls = [
        format!("redis://:p%40ss@127.0.0.1:{port}/3"),
        format!("redis://default:p@ss@127.0.0.1:{port}/3"),
        format!("redis+unix://{}?db=3&pass=p%40ss", redis.socket().display()),
    ];
    for (number, url) in urls.iter().enumerate() {
        for connection in ["worker", "pool"] {
            let nginx = Config::new(&format!("url = '{url}', connection = '{connection}'")).workers(1).start();
            assert_eq!(nginx.call("hold", &[("name", &format!("{connection}{number}"))])["released"], true, "{url}");
        }
    }
    let mut raw = crate::support::Raw::connect(&redis);
    raw.must::<()>(&["AUTH", "p@ss"]);
    assert!(raw.must::<String>(&["INFO", "keyspace"]).contains("db3:keys=6,"));
    let nginx = Config::new(&format!("url = 'redis://127.0.0.1:{port}', password = 'p@ss'")).start();
    assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
}

#[test]
fn what_does_not_go_with_a_url_is_refused() {
    let nginx = Config::new("").start();
    for (params, problem) in [
        (vec![("o.url", "redis://h:0")], "option url cannot be taken: the port in the URL is not a number from 1"),
        (vec![("o.url", "redis://h"), ("o.host", "h")], "option url goes without the option host"),
        (vec![("o.url", "redis://h"), ("o.ssl", "true")], "option url goes without the option ssl"),
        (vec![("o.url", "redis://u@h")], "option url names a user and no password"),
        (vec![("o.url", "redis://h"), ("o.server_name", "x")], "needs the option ssl, or a URL of rediss"),
    ] {
        let answer = nginx.call("try_acquire", &[&params[..], &[("name", "n")]].concat());
        assert!(answer["thrown"].as_str().is_some_and(|said| said.contains(problem)), "{answer}");
    }
}
