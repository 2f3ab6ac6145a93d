//! Whether messages reach a client of sentinels or of a cluster belongs to its connection, as with one server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redlatch::Lock;

use crate::{
    client::inbox::{Said, contend, with_inbox},
    support::{
        Fault, Proxy, Raw, Server,
        topology::{Member, WATCHED, free_port},
    },
};

/// A server that the client under test reaches through a proxy, by way of sentinels or as a cluster of one node; its
/// contenders reach it without.
struct Fronted {
    server: Server,
    proxy: Proxy,
    /// Without a login.
    url: String,
    sentinel: Option<Member>,
}

impl Fronted {
    fn watched() -> Self {
        let server = Server::start(&[]).unwrap();
        let proxy = Proxy::start(&server);
        let sentinel = Member::watching_port(port(&proxy).parse().unwrap());
        let url = format!("redis+sentinel://{}/{WATCHED}", sentinel.address());
        Self { server, proxy, url, sentinel: Some(sentinel) }
    }

    fn cluster() -> Self {
        let own = free_port().to_string();
        let words = ["--cluster-enabled", "yes", "--bind", "127.0.0.1", "--cluster-announce-ip", "127.0.0.1"];
        let server = Server::start(&[&words[..], &["--port", &own]].concat()).unwrap();
        let proxy = Proxy::start(&server);
        let mut raw = Raw::connect(&server);
        raw.must::<()>(&["CONFIG", "SET", "cluster-announce-port", port(&proxy)]);
        raw.must::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        crate::support::until("the cluster is up", || {
            raw.must::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        let url = proxy.url().replace("redis://", "redis+cluster://");
        Self { server, proxy, url, sentinel: None }
    }

    /// A client with an inbox behind contenders that never stop; `work` gets its lock.
    async fn contended(&self, work: impl AsyncFnOnce(&Lock<redlatch::Mutex>)) {
        Raw::connect(&self.server).must::<()>(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]);
        let lock = with_inbox(&self.url.replace("://", "://app:secret@")).await;
        let stop = Arc::new(AtomicBool::new(false));
        let contenders = contend(&self.server, &stop);
        work(&lock).await;
        stop.store(true, Ordering::Relaxed);
        for contender in contenders {
            contender.await.unwrap();
        }
    }

    /// From now on the first `times` subscriptions to an inbox are refused.
    fn refuse(&self, times: u64) -> Said {
        let (said, left) = (Said::elsewhere(self.sentinel.is_none()), AtomicU64::new(times));
        let heard = said.clone();
        self.proxy.rule(move |command| {
            said.note(command);
            // Sentinels subscribe too.
            let is_inbox = command.words().get(1).is_some_and(|channel| channel.starts_with(b"redlatch:"));
            let is_refused = command.is("SUBSCRIBE")
                && is_inbox
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            is_refused.then_some(Fault::Refuse("BUSY Redis is busy running a script."))
        });
        heard
    }
}

/// The port that `proxy` listens on.
fn port(proxy: &Proxy) -> &str {
    proxy.address().rsplit_once(':').unwrap().1
}

/// The lock is acquired as often, behind its contenders.
async fn acquire(lock: &Lock<redlatch::Mutex>, times: usize) {
    for _ in 0..times {
        let attempt = lock.acquire_within(Duration::from_secs(60)).await.unwrap();
        attempt.granted().expect("the queue moves on").release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_way_of_sentinels_no_connection_is_used_whose_subscription_is_refused_for_now() {
    let fronted = Fronted::watched();
    fronted
        .contended(async |lock| {
            let said = fronted.refuse(3);
            fronted.proxy.cut();
            acquire(lock, 4).await;
            assert_eq!(fronted.proxy.bites(), 3);
            let said = said.take();
            assert!(!said.is_empty() && said.iter().all(|here| *here), "{said:?}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_waiter_polls_until_its_subscription_is_no_longer_refused() {
    let fronted = Fronted::cluster();
    fronted
        .contended(async |lock| {
            let said = fronted.refuse(3);
            fronted.proxy.cut();
            for _ in 0..100 {
                acquire(lock, 1).await;
                if fronted.proxy.bites() == 3 {
                    break;
                }
            }
            assert_eq!(fronted.proxy.bites(), 3);
            assert!(said.take().contains(&false), "no inbox is named that nothing comes to");
            acquire(lock, 2).await;
            assert_eq!(said.take().last(), Some(&true));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_and_in_clusters_an_acl_without_the_channel_means_polling_for_that_connection() {
    for fronted in [Fronted::watched(), Fronted::cluster()] {
        let mut admin = Raw::connect(&fronted.server);
        fronted
            .contended(async |lock| {
                for (rule, here) in [("resetchannels", false), ("&*", true), ("-subscribe", false)] {
                    let said = fronted.refuse(0);
                    admin.must::<()>(&["ACL", "SETUSER", "app", rule]);
                    fronted.proxy.cut();
                    // The first question may have been made up before the cut was noticed.
                    acquire(lock, 1).await;
                    said.take();
                    acquire(lock, 3).await;
                    let said = said.take();
                    assert!(!said.is_empty() && said.iter().all(|said| *said == here), "{rule} {said:?}");
                }
            })
            .await;
    }
}
