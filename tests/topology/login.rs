//! Passwords and users that change while clients are connected.

use std::time::Duration;

use redlatch::{ClientBuilder, Error, ErrorKind, call::Endpoint};

use super::{acquire, assert_bitten, deadline_ms, once, outlive, patient};
use crate::support::topology::{Member, until};

fn endpoint(server: &Member, user: &str, password: &str) -> Endpoint {
    Endpoint::parse(&format!("redis://{user}@{}", server.address())).unwrap().password(password)
}

async fn refused(settings: ClientBuilder, endpoint: &Endpoint) -> Error {
    match settings.connect_to(endpoint).await {
        Err(error) => error,
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn n11_a_wrong_or_missing_password_is_refused_at_once_and_not_tried_again() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    raw.must::<()>(&["ACL", "SETUSER", "app", "on", ">right", "+@all", "~*", "&*"]);
    let error = refused(patient(), &endpoint(&server, "app", "wr0ng")).await;
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
    raw.must::<()>(&["CONFIG", "SET", "requirepass", "right"]);
    let error = refused(patient(), &Endpoint::parse(&server.url()).unwrap()).await;
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("NOAUTH")), "{error}");
    assert!(raw.count("hello") <= 2, "it asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n11_a_user_who_is_switched_off_for_a_while_keeps_the_lease_and_makes_no_storm() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    raw.must::<()>(&["ACL", "SETUSER", "app", "on", ">right", "+@all", "~*", "&*"]);
    let client = patient().ttl(Duration::from_secs(9)).connect_to(&endpoint(&server, "app", "right")).await.unwrap();
    let lease = acquire(&client, "n").await;
    raw.must::<()>(&["ACL", "SETUSER", "app", "off"]);
    raw.must::<u64>(&["CLIENT", "KILL", "USER", "app"]);
    let before = raw.count("hello");
    let refusals = || server.raw().errors("WRONGPASS");
    // Renewals are due every three seconds, and are tried again while they have no answer.
    until("a renewal was refused", || refusals() > 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tries = raw.count("hello") - before;
    let deadline_ms = deadline_ms(&server, "n");
    raw.must::<()>(&["ACL", "SETUSER", "app", "on"]);
    assert_bitten("logins that were refused", refusals());
    assert!(tries < 40, "{tries} logins in a second");
    outlive(&server, deadline_ms);
    assert!(!lease.is_lost());
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n11_a_password_is_changed_without_losing_a_lease() {
    let server = Member::start(&[]);
    let mut raw = server.raw();
    raw.must::<()>(&["ACL", "SETUSER", "app", "on", ">old", "+@all", "~*", "&*"]);
    let before = patient().ttl(Duration::from_secs(6)).connect_to(&endpoint(&server, "app", "old")).await.unwrap();
    let lease = acquire(&before, "n").await;
    // Both passwords count while programs are started again with the new one.
    raw.must::<()>(&["ACL", "SETUSER", "app", ">new"]);
    let after = patient().connect_to(&endpoint(&server, "app", "new")).await.unwrap();
    once(&after, "other").await;
    raw.must::<()>(&["ACL", "SETUSER", "app", "<old"]);
    outlive(&server, deadline_ms(&server, "n"));
    assert!(!lease.is_lost());
    lease.release().await.unwrap();
    assert_bitten("renewals", raw.count("evalsha"));
}
