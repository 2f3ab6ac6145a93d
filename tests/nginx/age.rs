//! Servers that are too old, as they answer; and proxies that do not tell.

use super::text;
use crate::support::nginx::Config;
use crate::support::{Fault, Proxy, Server};

/// As Redis 6.0.16 answers HELLO 3.
const HELLO_OF_6_0: &str = "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:4\r\n\
                            $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
const UNKNOWN_HELLO: &str = "ERR unknown command `HELLO`, with args beginning with: `3`, `SETNAME`, ";
const INFO_OF_5_0: &str = "$47\r\n# Server\r\nredis_version:5.0.14\r\nredis_git_sha1:0\r\n\r\n";

const OWN: &str = r#"location = /own {
    content_by_lua_block {
        local red = require("nginx.redis"):new()
        assert(red:connect("127.0.0.1", require("handler").defaults.port))
        local lock = require("resty.redlatch").new { connection = red }
        ngx.print(select(2, lock:try_acquire("own")) or "granted")
    }
}"#;

/// What the driver, the pool and a connection of the user's own say of a server that answers so.
fn said(answers: &'static [(&'static str, Fault)]) -> Vec<String> {
    let redis = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&redis);
    proxy.rule(move |command| {
        // HELLO without arguments is asked on a connection of the user's own.
        let name = if command.is("HELLO") && command.words().len() == 1 { "HELLO alone" } else { "" };
        let fault = answers.iter().find(|(word, _)| if name.is_empty() { command.is(word) } else { *word == name });
        fault.map(|(_, fault)| *fault)
    });
    let port = proxy.url().rsplit(':').next().unwrap().to_owned();
    let mut said: Vec<_> = ["worker", "pool"]
        .map(|connection| {
            let nginx = Config::new(&format!("port = {port}, connection = '{connection}'")).start();
            let answer = nginx.call("try_acquire", &[("name", connection)]);
            if answer["fence"].is_string() { "granted".to_owned() } else { text(&answer, "error").to_owned() }
        })
        .into();
    said.push(Config::new(&format!("port = {port}")).locations(OWN).start().get("/own").1);
    said
}

#[test]
fn redis_6_0_is_refused_with_one_sentence() {
    let said = said(&[
        ("HELLO", Fault::Answer(HELLO_OF_6_0)),
        ("HELLO alone", Fault::Refuse("ERR wrong number of arguments for 'hello' command")),
    ]);
    let advice = "(redlatch needs Redis 6.2 or later: upgrade the server)";
    let refusal = format!("redis: TOOOLD this server is Redis 6.0.16 {advice}");
    let alone = format!("redis: TOOOLD this server is older than Redis 6.2 {advice}");
    assert_eq!(said, [refusal.clone(), refusal, alone]);
}

#[test]
fn redis_5_is_refused_by_what_info_says() {
    let said = said(&[
        ("HELLO", Fault::Refuse(UNKNOWN_HELLO)),
        ("HELLO alone", Fault::Refuse(UNKNOWN_HELLO)),
        ("INFO", Fault::Answer(INFO_OF_5_0)),
    ]);
    let refusal = "redis: TOOOLD this server is Redis 5.0.14 (redlatch needs Redis 6.2 or later: upgrade the server)";
    assert_eq!(said, [refusal; 3]);
}

#[test]
fn a_proxy_that_tells_no_version_is_believed() {
    let said = said(&[
        ("HELLO", Fault::Refuse(UNKNOWN_HELLO)),
        ("HELLO alone", Fault::Refuse(UNKNOWN_HELLO)),
        ("INFO", Fault::Refuse("ERR unknown command 'INFO'")),
    ]);
    assert_eq!(said, ["granted"; 3]);
}
