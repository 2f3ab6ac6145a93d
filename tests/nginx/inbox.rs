//! What a worker hears by its inbox, what it believes of it, and connections that have none.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ask, driver, fence, inspect, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Fault, Proxy, Raw, Server, lock::PlaceState, say};

const CHANNEL_DENIALS: [&str; 4] = [
    "NOPERM this user has no permissions to access one of the channels used as arguments",
    "NOPERM No permissions to access a channel",
    "NOPERM User app has no permissions to run the 'subscribe' command",
    "ERR unknown command 'SUBSCRIBE', with args beginning with: 'redlatch:inbox:1'",
];

fn behind(proxy: &Proxy, options: &str) -> Nginx {
    let url = proxy.url();
    let port = url.rsplit(':').next().unwrap();
    Config::new(&format!("port = {port}, {options}")).workers(1).start()
}

/// The only place in the queue.
fn place(redis: &Server) -> Option<PlaceState> {
    let mut raw = Raw::connect(redis);
    let fields: Vec<String> = raw.must(&["HKEYS", "redlatch:m1:n"]);
    let ticket = fields.iter().find_map(|field| field.strip_prefix("place:")?.parse().ok())?;
    raw.place("redlatch:m1:n", ticket)
}

fn waits(redis: &Server) -> bool {
    place(redis).is_some()
}

/// Whether its waiter counts on messages.
fn hears(redis: &Server) -> Option<bool> {
    place(redis).map(|place| place.here)
}

fn acquire(redis: &Server) -> Nginx {
    let holder = Config::redis(redis).workers(1).start();
    assert!(holder.call("try_acquire", &[("name", "n"), ("ttl", "600")])["owner"].is_string());
    holder
}

fn release(redis: &Server, holder: &Nginx) {
    let owner = Raw::connect(redis).lock("redlatch:m1:n").holder();
    assert_eq!(holder.call("release", &[("name", "n"), ("owner", &owner)])["released"], true);
}

fn hold(nginx: &Nginx) -> Value {
    nginx.call("hold", &[("name", "n"), ("wait", "60"), ("ttl", "60")])
}

#[test]
fn a_connection_whose_subscription_is_refused_for_a_moment_is_made_again() {
    for error in ["BUSY Redis is busy running a script.", "LOADING Redis is loading", "ERR something new"] {
        let redis = Server::start(&[]).unwrap();
        let proxy = Proxy::start(&redis);
        let nginx = behind(&proxy, "claim = 60");
        let holder = acquire(&redis);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| hold(&nginx));
            until("it waits", || waits(&redis));
            proxy.rule(move |command| command.is("SUBSCRIBE").then_some(Fault::Refuse(error)));
            proxy.cut();
            until("it was refused twice", || proxy.bites() >= 2);
            let asked = Raw::connect(&redis).count("evalsha");
            proxy.pass();
            until("the inbox is subscribed again", || {
                !ask::<Vec<String>>(&redis, &["PUBSUB", "CHANNELS", "redlatch:inbox:*"]).is_empty()
            });
            until("the waiter has asked by this connection", || Raw::connect(&redis).count("evalsha") > asked);
            release(&redis, &holder);
            let answer = waiter.join().unwrap();
            assert_eq!(answer["released"], true, "{answer}");
        });
        assert_eq!(driver(&nginx)["counts"]["handed_off"], 1, "by a message");
    }
}

#[test]
fn a_first_subscription_that_is_refused_for_a_moment_is_made_again() {
    let redis = Server::start(&[]).unwrap();
    let proxy = Proxy::start(&redis);
    let nginx = behind(&proxy, "claim = 60");
    // By a connection that is there already.
    assert_eq!(nginx.call("hold", &[("name", "other")])["released"], true);
    let holder = acquire(&redis);
    let mut left = 2;
    proxy.rule(move |command| {
        let refused = command.is("SUBSCRIBE") && left > 0;
        left -= i32::from(refused);
        refused.then_some(Fault::Refuse("BUSY Redis is busy running a script."))
    });
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&nginx));
        until("it waits with an inbox", || hears(&redis) == Some(true));
        release(&redis, &holder);
        assert_eq!(waiter.join().unwrap()["released"], true);
    });
    assert_eq!(proxy.bites(), 2);
}

#[test]
fn where_the_channel_is_denied_in_any_words_the_waiter_of_that_connection_has_no_inbox() {
    for error in CHANNEL_DENIALS {
        let redis = Server::start(&[]).unwrap();
        let proxy = Proxy::start(&redis);
        let nginx = behind(&proxy, "claim = 1");
        let holder = acquire(&redis);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| hold(&nginx));
            until("it has an inbox", || hears(&redis) == Some(true));
            proxy.rule(move |command| command.is("SUBSCRIBE").then_some(Fault::Refuse(error)));
            proxy.cut();
            until("it waits without", || place(&redis).is_some_and(|place| !place.here && place.inbox.is_empty()));
            assert!(proxy.bites() >= 1);
            // The next connection may have one again.
            proxy.pass();
            proxy.cut();
            until("it has an inbox again", || hears(&redis) == Some(true));
            proxy.rule(move |command| command.is("SUBSCRIBE").then_some(Fault::Refuse(error)));
            proxy.cut();
            until("it waits without", || hears(&redis) == Some(false));
            release(&redis, &holder);
            assert_eq!(waiter.join().unwrap()["released"], true);
        });
        let log = nginx.error_log();
        assert!(log.contains("no inbox, waiters ask again and again"), "{log}");
    }
}

#[test]
fn contenders_do_not_starve_who_has_lost_the_right_to_its_channel() {
    let redis = Server::start(&[]).unwrap();
    ask::<()>(&redis, &["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]);
    let nginx = Config::redis(&redis).workers(1).options("username = 'app', password = 'secret'").start();
    let others = Config::redis(&redis).start();
    let holder = acquire(&redis);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&nginx));
        until("it waits", || hears(&redis) == Some(true));
        ask::<()>(&redis, &["ACL", "SETUSER", "app", "resetchannels"]);
        until("it waits without an inbox", || hears(&redis) == Some(false));
        let started = Instant::now();
        let contenders: Vec<_> = (0..3)
            .map(|_| {
                let others = &others;
                scope.spawn(move || {
                    let mut turns = 0;
                    while started.elapsed() < Duration::from_secs(3) {
                        assert_eq!(
                            others.call("hold", &[("name", "n"), ("wait", "60"), ("hold", "0.02")])["released"],
                            true
                        );
                        turns += 1;
                    }
                    turns
                })
            })
            .collect();
        until("they wait behind it", || inspect(&others, "n")[6] == 4);
        release(&redis, &holder);
        assert_eq!(waiter.join().unwrap()["released"], true, "first in, first out");
        let waited = started.elapsed();
        let turns: Vec<u32> = contenders.into_iter().map(|contender| contender.join().unwrap()).collect();
        say(&format!("granted after {waited:?}; the contenders had {turns:?} turns in 3 s"));
    });
}

/// Sends messages to the only waiter, which has asked once and asks again in a quarter of a minute at the earliest.
struct Heard<'a> {
    redis: &'a Server,
    raw: Raw,
    owner: String,
    inbox: String,
}

impl<'a> Heard<'a> {
    fn new(redis: &'a Server) -> Self {
        until("it waits", || waits(redis));
        let waiting = place(redis).unwrap();
        let (owner, inbox) = [waiting.owner, waiting.inbox].map(|word| String::from_utf8(word).unwrap()).into();
        Self { redis, raw: Raw::connect(redis), owner, inbox }
    }

    fn told(&mut self, rest: &str) {
        let asked = Raw::connect(self.redis).count("evalsha");
        let message = format!("{} {rest}", self.owner);
        assert_eq!(self.raw.must::<u64>(&["PUBLISH", &self.inbox, &message]), 1);
        let told = Instant::now();
        until("it asks at once", || Raw::connect(self.redis).count("evalsha") > asked);
        assert!(told.elapsed() < Duration::from_secs(10), "it only kept its place");
    }

    fn now_us(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = self.raw.must(&["TIME"]);
        seconds * 1_000_000 + micros
    }
}

#[test]
fn the_message_that_it_is_the_head_makes_a_waiter_ask_and_is_no_grant() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("claim = 60").start();
    let holder = acquire(&redis);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&nginx));
        let mut heard = Heard::new(&redis);
        for _ in 0..3 {
            heard.told("0 0");
        }
        assert!(!waiter.is_finished());
        release(&redis, &holder);
        assert_eq!(waiter.join().unwrap()["released"], true);
    });
    assert_eq!(driver(&nginx)["counts"]["granted"], 1);
    assert_eq!(driver(&nginx)["counts"]["handed_off"], 1);
}

/// G5: by its heartbeat alone it would ask in a quarter of a minute at the earliest.
#[test]
fn who_becomes_the_head_asks_when_the_lease_of_a_dead_holder_ends() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("claim = 60").start();
    let other = Config::redis(&redis).workers(1).start();
    assert!(other.call("try_acquire", &[("name", "n"), ("ttl", "3")])["owner"].is_string());
    thread::scope(|scope| {
        let first = scope.spawn(|| nginx.call("hold", &[("name", "n"), ("wait", "2"), ("ttl", "60")]));
        until("the first one waits", || inspect(&other, "n")[6] == 1);
        let second = scope.spawn(|| (hold(&nginx), Instant::now()));
        until("the second one waits", || inspect(&other, "n")[6] == 2);
        let queued = Instant::now();
        assert_eq!(first.join().unwrap()["error"], "held", "it leaves before the lease ends");
        let (answer, granted) = second.join().unwrap();
        assert_eq!(answer["released"], true, "{answer}");
        say(&format!("granted {:?} after it queued, by a lease of 3 s", granted - queued));
        assert!(granted - queued < Duration::from_secs(12));
    });
}

#[test]
fn a_forged_message_is_asked_about_and_the_waiter_goes_on_waiting_in_its_place() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).options("claim = 60").start();
    let holder = acquire(&redis);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&nginx));
        let mut heard = Heard::new(&redis);
        let now_us = heard.now_us();
        let hour_us = 3_600_000_000;
        for forged in [
            "1 60000".to_owned(),
            "0 60000".to_owned(),
            format!("{} 60000", now_us - hour_us),
            format!("{} 60000", now_us + hour_us),
            format!("{} 3000", now_us + 1_000_000),
            format!("{} 60001", now_us + 1_000_000),
            format!("{} 600000", now_us + 1_000_000),
            format!("{} 0", now_us + 1_000_000),
            format!("{} -60000", now_us + 1_000_000),
            format!("{}.0 60000", now_us + 1_000_000),
            format!("{:#x} 60000", now_us + 1_000_000),
            format!(" {} 60000", now_us + 1_000_000),
            format!("{} 60000 ", now_us + 1_000_000),
            format!("{} 6e4", now_us + 1_000_000),
            format!("{}", now_us + 1_000_000),
            "nan nan".to_owned(),
            "inf 60000".to_owned(),
            String::new(),
        ] {
            heard.told(&forged);
            assert!(!waiter.is_finished(), "it took {forged:?}");
            assert_eq!(place(&redis).unwrap().owner, heard.owner.as_bytes(), "it keeps its place after {forged:?}");
        }
        assert_eq!(driver(&nginx)["counts"]["granted"], 0);
        release(&redis, &holder);
        let lease = waiter.join().unwrap();
        assert_eq!(lease["released"], true);
        assert!(fence(&lease) > now_us && fence(&lease) < now_us + hour_us, "the true fence: {lease}");
        assert!(text(&lease, "owner") == heard.owner);
    });
}
