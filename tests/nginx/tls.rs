//! A server behind TLS: what is not certain is refused, and never tried without.

use tempfile::TempDir;

use super::{text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::topology::{Certificates, Member, free_port};

const BOTH: [&str; 2] = ["worker", "pool"];

/// A server that speaks TLS on `port`, and wants certificates of its clients.
struct Secured {
    server: Member,
    folder: TempDir,
    port: u16,
}

impl Secured {
    fn start(certificate: Certificates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate.write(folder.path());
        let port = free_port();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (tls_port, certificate, key, ca) = (port.to_string(), at("server.crt"), at("server.key"), at("ca.crt"));
        let server = Member::start(&[
            "--tls-port",
            &tls_port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
        ]);
        Self { server, folder, port }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The options of somebody who has everything right, but for `changes`.
    fn options(&self, connection: &str) -> String {
        format!(
            "host = '127.0.0.1', port = {}, ssl = true, server_name = 'localhost', connection = '{connection}', \
             client_certificate = '{}', client_key = '{}'",
            self.port,
            self.path("client.crt"),
            self.path("client.key")
        )
    }

    fn nginx(&self, options: &str, trusted: &str) -> Nginx {
        Config::new(options).http(&format!("lua_ssl_trusted_certificate {trusted};")).start()
    }

    /// Starts with these options and sees a lease refused; nobody has been let in.
    #[track_caller]
    fn refuses(&self, options: &str, trusted: &str, reason: &str) {
        let nginx = self.nginx(options, trusted);
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        let error = text(&answer, "error");
        let begin = format!("connection: 127.0.0.1:{} makes no TLS connection (", self.port);
        assert!(error.starts_with(&begin) || reason.is_empty(), "{error}");
        assert!(error.starts_with("connection: ") && error.contains(reason), "{error}");
        assert_eq!(self.server.raw().must::<u64>(&["DBSIZE"]), 0);
    }
}

#[test]
fn n10_a_lock_works_behind_tls_with_certificates_of_both_sides() {
    let secured = Secured::start(Certificates::good());
    let host = format!("host = '127.0.0.1', port = {}, ssl = true", secured.port);
    let url = format!("url = 'rediss://127.0.0.1:{}'", secured.port);
    for (connection, server) in BOTH.into_iter().flat_map(|connection| [(connection, &host), (connection, &url)]) {
        let nginx = secured.nginx(&secured.options(connection).replace(&host, server), &secured.path("ca.crt"));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let answer = nginx.call("hold", &[("name", "n"), ("wait", "20"), ("hold", "0.05")]);
                    assert_eq!(answer["released"], true, "{answer}{}", nginx.error_log());
                });
            }
        });
        // By the connections that are there, and by new ones.
        assert_eq!(nginx.call("hold", &[("name", "n")])["released"], true);
        secured.server.raw().must::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]);
        until("it is connected again", || nginx.call("hold", &[("name", "n"), ("wait", "1")])["released"] == true);
    }
}

#[test]
fn n10_whoever_is_not_who_it_should_be_is_refused() {
    let secured = Secured::start(Certificates::good());
    let other = tempfile::tempdir().unwrap();
    Certificates::good().write(other.path());
    let stranger = other.path().join("ca.crt").to_str().unwrap().to_owned();
    for connection in BOTH {
        let right = secured.options(connection);
        secured.refuses(&right, &stranger, "certificate");
        // Without the name that the certificate is for.
        secured.refuses(&right.replace("server_name = 'localhost', ", ""), &secured.path("ca.crt"), "certificate");
    }
    let elsewhere = Secured::start(Certificates::of_host("example.org"));
    let over = Secured::start(Certificates::expired());
    for connection in BOTH {
        elsewhere.refuses(&elsewhere.options(connection), &elsewhere.path("ca.crt"), "certificate");
        over.refuses(&over.options(connection), &over.path("ca.crt"), "certificate");
    }
}

#[test]
fn n10_a_client_without_a_certificate_is_refused_by_the_server() {
    let secured = Secured::start(Certificates::good());
    for connection in BOTH {
        let options = secured.options(connection);
        let (without, _) = options.split_once(", client_certificate").unwrap();
        secured.refuses(without, &secured.path("ca.crt"), "");
    }
}

#[test]
fn n10_neither_side_falls_back_to_plain_text() {
    let secured = Secured::start(Certificates::good());
    let plain = Member::start(&[]);
    for connection in BOTH {
        let to_plain = secured.options(connection).replace(&secured.port.to_string(), &plain.port.to_string());
        let nginx = secured.nginx(&to_plain, &secured.path("ca.crt"));
        let answer = nginx.call("try_acquire", &[("name", "n"), ("o.timeout", "1"), ("o.password", "s3cret")]);
        assert!(text(&answer, "error").starts_with("connection: "), "{answer}");
        let without =
            format!("host = '127.0.0.1', port = {}, password = 's3cret', connection = '{connection}'", secured.port);
        let answer = Config::new(&without).start().call("try_acquire", &[("name", "n"), ("o.timeout", "1")]);
        assert!(text(&answer, "error").starts_with("connection: "), "{answer}");
    }
}

/// An instance that does not verify never has the connection of one that does, nor the other way round.
#[test]
fn who_verifies_and_who_does_not_have_connections_of_their_own() {
    let secured = Secured::start(Certificates::of_host("example.org"));
    for connection in BOTH {
        let nginx = secured.nginx(&secured.options(connection), &secured.path("ca.crt"));
        for _ in 0..3 {
            let lax = nginx.call("hold", &[("name", "n"), ("o.ssl_verify", "false")]);
            assert_eq!(lax["released"], true, "{lax}");
            let strict = nginx.call("hold", &[("name", "n")]);
            assert!(text(&strict, "error").contains("makes no TLS connection (certificate "), "{strict}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_options_of_tls_is_thrown_by_new() {
    let secured = Secured::start(Certificates::good());
    let (certificate, key) = (secured.path("client.crt"), secured.path("client.key"));
    let nginx = Config::new("").workers(1).start();
    for (options, message) in [
        (vec![("o.ssl_verify", "false")], "option ssl_verify needs the option ssl".to_owned()),
        (vec![("o.server_name", "x")], "option server_name needs the option ssl".to_owned()),
        (vec![("o.ssl", "1")], "option ssl must be true or false, not 1".to_owned()),
        (vec![("o.ssl", "true"), ("o.socket", "/s")], "option ssl goes with host and port".to_owned()),
        (
            vec![("o.ssl", "true"), ("o.client_key", &key)],
            "options client_certificate and client_key go together".to_owned(),
        ),
        (
            vec![("o.ssl", "true"), ("o.client_key", &key), ("o.client_certificate", "/nowhere.crt")],
            "option client_certificate cannot be read: /nowhere.crt: No such file or directory".to_owned(),
        ),
        (
            vec![("o.ssl", "true"), ("o.client_key", &certificate), ("o.client_certificate", &certificate)],
            format!("option client_key is not PEM ({certificate})"),
        ),
    ] {
        let answer = nginx.call("try_acquire", &[&options[..], &[("name", "n")]].concat());
        let thrown = text(&answer, "thrown");
        assert!(thrown.contains("/tests/nginx/handler.lua:"), "blames {thrown}");
        assert!(thrown.contains(&format!("redlatch: {message}")), "{thrown}");
    }
}
