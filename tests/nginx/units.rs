//! The parts of the module that need no server: busted runs `spec/*_spec.lua` in a timer of a nginx.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::support::nginx::{Nginx, nginx};
use crate::support::which_nginx;

const CONF: &str = r#"
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off;
master_process off;
user root;
pid @DIR@/nginx.pid;
events {}
http {
    access_log off;
    # busted is there also where nginx brings a Lua of its own.
    lua_package_path "@ROOT@/lua/lib/?.lua;;/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua";
    lua_package_cpath ";;@CLIB@/?.so";
    init_worker_by_lua_block {
        ngx.timer.at(0, function()
            arg = { [0] = "busted", "--output=TAP", "@ROOT@/tests/nginx/spec" }
            -- Ends the process when a spec fails.
            require "busted.runner" { standalone = false }
            os.exit(0)
        end)
    }
}
"#;

#[test]
fn the_parts_do_what_their_specs_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Nginx::folder();
    let dir = folder.0.to_str().unwrap();
    let libraries = format!("/usr/lib/{}-linux-gnu/lua/5.1", std::env::consts::ARCH);
    let conf = CONF.replace("@DIR@", dir).replace("@ROOT@", root.to_str().unwrap()).replace("@CLIB@", &libraries);
    fs::write(folder.0.join("nginx.conf"), which_nginx::with_modules(&conf)).unwrap();
    let output = nginx(&folder.0).stdout(Stdio::piped()).output().expect("nginx is installed");
    let said = format!(
        "{}{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        fs::read_to_string(folder.0.join("error.log")).unwrap_or_default()
    );
    assert!(output.status.success(), "{said}");
    assert!(said.matches("\nok ").count() >= 12 && !said.contains("\nnot ok"), "{said}");
}
