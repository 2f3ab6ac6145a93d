//! Servers behind TLS: what is not certain is refused, and never tried without.

use std::{fs, path::Path};

use redlatch::{Client, Error, ErrorKind, call::Endpoint};
use tempfile::TempDir;

use super::{once, patient};
use crate::support::topology::{Certificates, Member, free_port};

/// A server that only speaks TLS, with certificates of its own authority.
struct Secured {
    _server: Member,
    folder: TempDir,
    port: u16,
}

impl Secured {
    /// `certificate` is what the server shows.
    fn start(certificate: Certificates) -> Self {
        Self::start_with(certificate, &[])
    }

    fn start_with(certificate: Certificates, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate.write(folder.path());
        let port = free_port();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key, ca) = (at("server.crt"), at("server.key"), at("ca.crt"));
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let server = Member::start(&[&["--tls-port", &port.to_string()], &files[..], options].concat());
        Self { _server: server, folder, port }
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        read(self.folder.path(), name)
    }

    /// As a client that has everything right.
    fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::parse(&self.url()).unwrap().tls_ca(&self.read("ca.crt")).unwrap();
        endpoint.tls_cert(&self.read("client.crt"), &self.read("client.key")).unwrap()
    }
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

async fn refused(endpoint: &Endpoint) -> Error {
    match patient().connect_to(endpoint).await {
        Err(error) => error,
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn n10_a_lock_works_behind_tls_with_certificates_of_both_sides() {
    let server = Secured::start(Certificates::good());
    let client: Client = patient().connect_to(&server.endpoint()).await.unwrap();
    once(&client, "n").await;
}

#[tokio::test]
async fn n10_a_server_behind_tls_that_has_no_resp3_serves_the_client() {
    let server = Secured::start_with(Certificates::good(), &["--rename-command", "HELLO", ""]);
    let client: Client = patient().connect_to(&server.endpoint()).await.unwrap();
    once(&client, "n").await;
}

#[tokio::test]
async fn n10_a_server_of_an_unknown_authority_is_refused() {
    let server = Secured::start(Certificates::good());
    let error = refused(&Endpoint::parse(&server.url()).unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("name the authority with --tls-ca"), "{error}");
    let other = tempfile::tempdir().unwrap();
    Certificates::good().write(other.path());
    let endpoint = Endpoint::parse(&server.url()).unwrap().tls_ca(&read(other.path(), "ca.crt")).unwrap();
    let error = refused(&endpoint).await.to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn n10_a_certificate_of_another_host_is_refused() {
    let server = Secured::start(Certificates::of_host("example.org"));
    let error = refused(&server.endpoint()).await.to_string();
    assert!(error.contains("write a name that it is for"), "{error}");
}

#[tokio::test]
async fn n10_a_certificate_that_is_over_is_refused() {
    let server = Secured::start(Certificates::expired());
    let error = refused(&server.endpoint()).await.to_string();
    assert!(error.contains("renew it"), "{error}");
}

#[tokio::test]
async fn n10_a_client_without_certificate_is_refused_by_the_server() {
    let server = Secured::start(Certificates::good());
    let endpoint = Endpoint::parse(&server.url()).unwrap().tls_ca(&server.read("ca.crt")).unwrap();
    let error = refused(&endpoint).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("--tls-cert"), "{error}");
}

#[tokio::test]
async fn n10_neither_side_falls_back_to_plain_text() {
    let server = Secured::start(Certificates::good());
    let plain = Endpoint::parse(&server.url().replace("rediss", "redis")).unwrap().password("s3cret");
    let error = refused(&plain).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    let without = Member::start(&[]);
    let url = format!("rediss://localhost:{}", without.port);
    let endpoint = Endpoint::parse(&url).unwrap().tls_ca(&server.read("ca.crt")).unwrap();
    assert_eq!(refused(&endpoint).await.kind(), ErrorKind::Unavailable);
}
