//! Requests that end in another location than the one that acquired.

use super::{inspect, until};
use crate::support::nginx::Config;
use crate::support::{Raw, Server};

/// The line of the log phase stands where `lua/README.md` has it: at the server.
const LOCATIONS: &str = r#"
log_by_lua_block { require("resty.redlatch").log() }
error_page 500 /50x.html;
error_page 502 = @elsewhere;
location = /50x.html { internal; return 200 "sorry"; }
location @elsewhere { return 200 "elsewhere"; }
location = /other { content_by_lua_block { ngx.say("other") } }
location /ends/ {
    rewrite_by_lua_block {
        local lock = require("resty.redlatch").new(require("handler").defaults)
        assert(lock:acquire("n", { ttl = 60 }))
        local ending = ngx.var.arg_ending
        if ending == "error" then
            error("the work failed")
        elseif ending == "exit" then
            ngx.exit(500)
        elseif ending == "exec" then
            ngx.exec("/other")
        elseif ending == "named" then
            ngx.exec("@elsewhere")
        elseif ending == "jump" then
            ngx.req.set_uri("/other", true)
        end
    }
    proxy_pass http://unix:/nowhere;
}"#;

#[test]
fn openresty_1017_a_request_that_ends_in_another_location_gives_back_what_it_held() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).locations(LOCATIONS).start();
    for ending in ["error", "exit", "exec", "named", "jump", "upstream"] {
        let (_, body) = nginx.get(&format!("/ends/?ending={ending}"));
        assert!(["sorry", "elsewhere", "other\n"].contains(&body.as_str()), "{ending}: {body}{}", nginx.error_log());
        // Long before its TTL, and it is not renewed.
        until("it is given back", || inspect(&nginx, "n")[0] == 2);
    }
    assert!(!Raw::connect(&redis).lock("redlatch:m1:n").has_lease());
}
