//! What a program hears that asked for the events of its client.

use std::time::Duration;

use redlatch::{Client, ErrorKind, Event};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Fault, Proxy, Server};

#[tokio::test]
async fn places_in_the_queue_renewals_and_trouble_with_them_are_events() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let (events, mut heard) = unbounded_channel();
    let holder = Client::connect(&server.url()).await.unwrap();
    let client = Client::builder().events(events).ttl(Duration::from_secs(3)).connect(&proxy.url()).await.unwrap();
    let lease = holder.mutex("n").unwrap().acquire().await.unwrap();
    let lock = client.mutex("n").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    let Some(Event::Queued { name, place: 1, remaining, .. }) = heard.recv().await else { panic!("it waits first") };
    assert!(name.as_bytes() == b"n" && remaining > Duration::from_secs(5));
    proxy.rule(|command| command.runs("mutex/extend").then_some(Fault::CutBefore));
    lease.release().await.unwrap();
    let lease = waiting.await.unwrap();
    loop {
        match heard.recv().await.unwrap() {
            Event::Queued { .. } => {}
            Event::NotRenewed { name, remaining, error, .. } => {
                assert!(name.as_bytes() == b"n" && remaining < Duration::from_secs(3));
                assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{error}");
                break;
            }
            event => panic!("{event:?}"),
        }
    }
    proxy.pass();
    loop {
        match heard.recv().await.unwrap() {
            Event::NotRenewed { .. } => {}
            Event::Renewed { name, .. } => break assert_eq!(name.as_bytes(), b"n"),
            event => panic!("{event:?}"),
        }
    }
    lease.release().await.unwrap();
}
