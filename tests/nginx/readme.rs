//! The synopsis of `lua/README.md` is run as it stands there, but for the two ports.

use std::fs;
use std::path::Path;

use crate::support::Server;
use crate::support::nginx::Nginx;

#[test]
fn the_synopsis_runs_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("lua/README.md")).unwrap();
    let synopsis = readme.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let redis = Server::start(&[]).unwrap();
    let folder = Nginx::folder();
    let replace = |text: String, from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    };
    let conf = replace(synopsis.to_owned(), "listen 8080", &format!("listen unix:{}/http.sock", folder.0.display()));
    let server = format!("socket = \"{}\"", redis.socket().display());
    let conf = replace(conf, "host = \"127.0.0.1\", port = 6379", &server);

    let nginx = Nginx::start_installed(folder, &conf, "http.sock");
    let (status, body) = nginx.get("/order");
    assert_eq!(status, 200, "{body}");
    assert!(body.starts_with("order under fence 1"), "{body}");
    assert!(body.ends_with(", true\n"), "{body}");
    assert_eq!(nginx.get("/order").0, 200, "the first one was released");
    drop(redis);
    assert_eq!(nginx.get("/order").0, 503);
    assert!(nginx.error_log().contains("no lease of stock/17: connection: unix:"), "{}", nginx.error_log());
}
