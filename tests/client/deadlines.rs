//! One deadline for all that a call has to send.

use std::time::{Duration, Instant};

use redlatch::{Client, Error, ErrorKind};

use crate::support::{Command, Fault, Proxy, Raw, Server};

const TIMEOUT: Duration = Duration::from_millis(800);
/// Each step takes longer than half of it: two fit, not three.
const SLOW: Duration = Duration::from_millis(500);

/// A client whose every command of the kinds that an acquire may need takes a while.
async fn slow() -> (Server, Proxy, Client) {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(TIMEOUT).connect(&proxy.url()).await.unwrap();
    Raw::connect(&server).must::<()>(&["SCRIPT", "FLUSH"]);
    let is_slow = |command: &Command| ["SUBSCRIBE", "EVALSHA", "TIME"].iter().any(|name| command.is(name));
    proxy.rule(move |command| is_slow(command).then_some(Fault::HoldReply(SLOW)));
    (server, proxy, client)
}

/// How long `call` took, without what a busy machine adds: the proxy counts the steps that were begun.
async fn steps<T>(proxy: &Proxy, call: impl Future<Output = T>) -> (u64, Duration, T) {
    let (before, started) = (proxy.bites(), Instant::now());
    let outcome = call.await;
    (proxy.bites() - before, started.elapsed(), outcome)
}

#[track_caller]
fn assert_in_time<T>((steps, took, outcome): (u64, Duration, Result<T, Error>), most: u64) {
    println!("{steps} steps in {took:?}");
    assert!(steps > 0 && steps <= most, "{steps} steps");
    if let Err(error) = outcome {
        assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{error}");
    }
}

#[tokio::test]
async fn waiting_within_a_limit_has_one_timeout_for_all_its_steps() {
    let (_server, proxy, client) = slow().await;
    let lock = client.mutex("n").unwrap();
    assert_in_time(steps(&proxy, lock.acquire_within(Duration::from_millis(100))).await, 2);
}

#[tokio::test]
async fn a_wait_whose_subscription_is_not_answered_ends_with_its_limit() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(TIMEOUT).connect(&proxy.url()).await.unwrap();
    proxy.rule(|command| command.is("SUBSCRIBE").then_some(Fault::HoldReply(Duration::from_secs(60))));
    let lock = client.mutex("n").unwrap();
    let waited = lock.acquire_within(Duration::from_millis(100));
    let outcome = tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it has a limit");
    assert!(outcome.is_err() && proxy.bites() > 0);
}

#[tokio::test]
async fn a_try_has_one_timeout_for_all_its_steps_and_repetitions() {
    let (_server, proxy, client) = slow().await;
    let lock = client.mutex("n").unwrap();
    let (steps, took, outcome) = steps(&proxy, lock.try_acquire()).await;
    println!("{steps} steps in {took:?}");
    // A second step would be over a little later than that.
    let error = outcome.err().expect("there is no time for a script that is missing");
    assert!(steps <= 2 && matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{steps} {error}");
}

#[tokio::test]
async fn a_try_that_asks_again_has_what_is_left_of_its_timeout() {
    let server = Server::start(&[]).unwrap();
    for family in ["mutex", "plain"] {
        let proxy = Proxy::start(&server);
        let client = Client::builder().timeout(TIMEOUT).connect(&proxy.url()).await.unwrap();
        let mut asked = 0;
        proxy.rule(move |command| {
            asked += u64::from(command.is("EVALSHA"));
            // The second is sent after a pause of 25 ms at the shortest.
            let slow = Fault::HoldReply(TIMEOUT - Duration::from_millis(20));
            command.is("EVALSHA").then_some(if asked == 1 { Fault::CutBefore } else { slow })
        });
        let outcome = match family {
            "plain" => client.plain("k").unwrap().try_acquire().await.map(drop),
            _ => client.mutex("n").unwrap().try_acquire().await.map(drop),
        };
        let error = outcome.expect_err("the answer comes after its timeout");
        assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{family}: {error}");
    }
}

#[tokio::test]
async fn a_try_that_is_answered_by_cuts_only_ends_with_its_timeout() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(TIMEOUT).connect(&proxy.url()).await.unwrap();
    proxy.rule(|command| command.is("EVALSHA").then_some(Fault::CutBefore));
    let lock = client.mutex("n").unwrap();
    let error = lock.try_acquire().await.err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{error}");
    // Pauses of 25 ms at the shortest.
    assert!((1..=TIMEOUT.as_millis() / 25 + 1).contains(&u128::from(proxy.bites())), "{}", proxy.bites());
}

#[tokio::test]
async fn an_extend_ends_with_the_lease_also_while_another_call_loads_a_script() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(Duration::from_secs(30)).connect(&proxy.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(3)).unwrap().renew(false);
    let lease = lock.acquire().await.unwrap();
    proxy.rule(|command| {
        let missing = Fault::Refuse("NOSCRIPT No matching script.");
        let loads = command.is("SCRIPT").then_some(Fault::HoldReply(Duration::from_secs(60)));
        if command.is("EVALSHA") { Some(missing) } else { loads }
    });
    let other = client.mutex("m").unwrap();
    let extended = tokio::select! {
        biased;
        _ = other.try_acquire() => panic!("it waits for its script"),
        extended = tokio::time::timeout(Duration::from_secs(25), lease.extend(Duration::from_secs(3))) => extended,
    };
    extended.expect("it does not wait for the other's timeout").unwrap_err();
    assert!(lease.is_lost());
}

#[tokio::test]
async fn several_calls_have_one_limit_also_where_each_is_run_again() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::connect(&proxy.url()).await.unwrap();
    let mut asked = 0;
    proxy.rule(move |command| {
        asked += u64::from(command.is("EVALSHA"));
        let missing = Fault::Refuse("NOSCRIPT No matching script.");
        command.is("EVALSHA").then_some(if asked <= 4 { missing } else { Fault::HoldReply(SLOW) })
    });
    let script = redlatch::bundle::embedded().unwrap().get("plain/extend").unwrap();
    let calls = [b"a", b"b", b"c", b"d"].map(|key| (&key[..], vec![b"owner".to_vec(), b"1000".to_vec()]));
    let outcomes = client.caller().run_each(script, &calls, TIMEOUT).await;
    let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(proxy.bites() > 4 && answered <= 1, "{answered} of {outcomes:?}");
}

#[tokio::test]
async fn an_extend_ends_with_the_lease_whatever_it_has_to_send() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(Duration::from_secs(30)).connect(&proxy.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(3)).unwrap().renew(false);
    let lease = lock.acquire().await.unwrap();
    proxy.rule(|command| command.is("EVALSHA").then_some(Fault::HalfOpen));
    let extended = tokio::time::timeout(Duration::from_secs(25), lease.extend(Duration::from_secs(3))).await;
    let error = extended.expect("it does not wait for a timeout of thirty seconds").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Lost), "{error}");
    assert!(lease.is_lost());
    assert!(proxy.bites() > 0);
}

#[tokio::test]
async fn an_extend_waits_for_the_one_before_and_not_beyond_the_lease() {
    let server = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&server);
    let client = Client::builder().timeout(Duration::from_secs(30)).connect(&proxy.url()).await.unwrap();
    let lock = client.mutex("n").unwrap().ttl(Duration::from_secs(3)).unwrap().renew(false);
    let lease = lock.acquire().await.unwrap();
    proxy.rule(|command| command.is("EVALSHA").then_some(Fault::HoldReply(Duration::from_secs(60))));
    let twice = async { tokio::join!(lease.extend(Duration::from_secs(3)), lease.extend(Duration::from_secs(3))) };
    let (first, second) = tokio::time::timeout(Duration::from_secs(25), twice).await.expect("they end with the lease");
    first.unwrap_err();
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(proxy.bites(), 1, "two at once may be answered in another order than they ran");
}
