//! The module in `stream {}`, where the nginx at hand has Lua there: OpenResty has, Debian's packages have not.

use std::io::Read;

use crate::support::nginx::{Config, Nginx};
use crate::support::{Server, say, which_nginx};

const STREAM: &str = r#"
stream {
    lua_package_path "@LIB@/?.lua;;";
    lua_socket_log_errors off;
    init_by_lua_block {
        package.loaded.locks = require("resty.redlatch").new { @OPTIONS@, ttl = 30 }
    }
    log_by_lua_block { require("resty.redlatch").log() }

    server {
        listen unix:@DIR@/content.sock;
        content_by_lua_block {
            local lease, err = require("locks"):acquire("order", { wait = 5 })
            ngx.say(lease and lease.fence or err)
            ngx.say(tostring(lease:release()))
        }
    }
    server {
        listen unix:@DIR@/preread.sock;
        preread_by_lua_block {
            ngx.ctx.lease = assert(require("locks"):acquire("order", { wait = 5 }))
        }
        # Ends without a release: that is left to the log phase.
        content_by_lua_block { ngx.say(ngx.ctx.lease.fence) }
    }
}"#;

fn answer(nginx: &Nginx, socket: &str) -> String {
    let mut answer = String::new();
    nginx.connect_to(socket).read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn content_and_preread_acquire_and_the_log_phase_gives_back() {
    if !which_nginx::BUILT.contains("stream_lua") {
        say("not run: this nginx has no Lua in stream {}");
        return;
    }
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).main(STREAM).start();
    let mut fences = Vec::new();
    for _ in 0..3 {
        let preread: u64 = answer(&nginx, "preread.sock").trim().parse().unwrap();
        let content = answer(&nginx, "content.sock");
        let (fence, released) = content.trim().split_once('\n').unwrap();
        assert_eq!(released, "true");
        fences.extend([preread, fence.parse().unwrap()]);
    }
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}
