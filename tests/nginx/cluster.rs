//! A Redis Cluster of three primaries and three replicas. Each test counts how often its fault really happened.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{fence, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::say;
use crate::support::topology::{Cluster, move_keys, open_slot};

const BOTH: [&str; 2] = ["worker", "pool"];
/// Nodes that are stopped stay what they are.
const NO_FAILOVER: [&str; 4] = ["--cluster-replica-no-failover", "yes", "--cluster-require-full-coverage", "no"];

fn over(cluster: &Cluster, options: &str) -> Nginx {
    Config::new(&format!("url = '{}', {options}", cluster.url())).workers(1).start()
}

fn hold(nginx: &Nginx, name: &str) -> Value {
    nginx.call("hold", &[("name", name), ("wait", "20")])
}

/// Acquires and releases `name`, and returns its fence.
#[track_caller]
fn once(nginx: &Nginx, name: &str) -> u64 {
    let answer = hold(nginx, name);
    assert_eq!(answer["released"], true, "{answer}");
    fence(&answer)
}

fn key(name: &str) -> String {
    format!("redlatch:m1:{name}")
}

fn errors(cluster: &Cluster, code: &str) -> u64 {
    cluster.members.iter().map(|member| member.raw().errors(code)).sum()
}

#[test]
fn r12_locks_live_where_their_slot_is_and_waiters_are_told_from_every_node() {
    let cluster = Cluster::start(&[]);
    let nginx = over(&cluster, "");
    let other = over(&cluster, "");
    for (member, name) in cluster.names() {
        let mut raw = cluster.members[member].raw();
        let holder = thread::scope(|scope| {
            let holder = scope.spawn(|| nginx.call("hold", &[("name", &name), ("hold", "1.5"), ("ttl", "60")]));
            until("it is held", || raw.must::<u64>(&["EXISTS", &key(&name)]) == 1);
            let waiter = scope.spawn(|| nginx_waits(&other, &name));
            until("the other waits", || raw.lock(&key(&name)).is_queue_open());
            let before = raw.count("evalsha");
            let (held, waited) = (holder.join().unwrap(), waiter.join().unwrap());
            assert!(fence(&waited) > fence(&held), "{waited}");
            raw.count("evalsha") - before
        });
        // The release, the question of the one who was told, its own release; heartbeats while the other works.
        say(&format!("r12: {holder} calls until the next had the lock and gave it back"));
    }
    assert_eq!(errors(&cluster, "MOVED"), 0);
    let published: u64 = cluster.members.iter().map(|member| member.raw().count("publish")).sum();
    assert!(published > 0);
}

fn nginx_waits(nginx: &Nginx, name: &str) -> Value {
    let answer = nginx.call("hold", &[("name", name), ("wait", "60"), ("ttl", "60")]);
    assert_eq!(answer["released"], true, "{answer}");
    answer
}

#[test]
fn r9_a_slot_that_has_moved_is_asked_for_at_its_old_owner_once() {
    for connection in BOTH {
        let cluster = Cluster::start(&[]);
        let nginx = over(&cluster, &format!("connection = '{connection}'"));
        let before = once(&nginx, "n");
        cluster.move_slot(&key("n"));
        let mut last = before;
        for _ in 0..5 {
            let next = once(&nginx, "n");
            assert!(next > last);
            last = next;
        }
        assert_eq!(errors(&cluster, "MOVED"), 1, "{connection}");
    }
}

#[test]
fn r9_a_node_that_imports_a_slot_is_healed_like_any_other() {
    for connection in BOTH {
        let cluster = Cluster::start(&[]);
        let nginx = over(&cluster, &format!("connection = '{connection}'"));
        let (slot, source, target) = cluster.slot_and_target(&key("n"));
        open_slot(&slot.to_string(), source, target);
        target.raw().must::<()>(&["SCRIPT", "FLUSH"]);
        once(&nginx, "n");
        assert_eq!(target.raw().must::<u64>(&["DBSIZE"]), 1);
        assert!(target.raw().errors("NOSCRIPT") > 0 && source.raw().errors("ASK") > 0, "{connection}");
        assert_eq!(target.raw().errors("MOVED"), 0, "each call there says that it was sent there");
    }
}

/// A lease is renewed, and a waiter is served, while their slot moves from node to node.
#[test]
fn r9_slots_that_move_under_load_surface_no_error_and_lose_no_lease() {
    let cluster = Cluster::start(&[]);
    let nginx = over(&cluster, "");
    let slot = cluster.members[0].raw().must::<u16>(&["CLUSTER", "KEYSLOT", "{moving}"]).to_string();
    thread::scope(|scope| {
        let held = scope.spawn(|| nginx.call("hold", &[("name", "{moving}held"), ("hold", "8"), ("ttl", "4")]));
        let load: Vec<_> = (0..4)
            .map(|number| {
                let nginx = &nginx;
                scope.spawn(move || {
                    let (mut last, mut rounds) = (0, 0);
                    let started = Instant::now();
                    while started.elapsed() < Duration::from_secs(7) {
                        let next = once(nginx, &format!("{{moving}}n{}", number / 2));
                        assert!(next > last, "{next} after {last}");
                        (last, rounds) = (next, rounds + 1);
                        once(nginx, &format!("{{moving}}fresh{number}-{rounds}"));
                    }
                    rounds
                })
            })
            .collect();
        let mut moved = 0;
        for _ in 0..4 {
            let (_, source, target) = cluster.slot_and_target("{moving}");
            open_slot(&slot, source, target);
            thread::sleep(Duration::from_millis(200));
            moved += move_keys(&slot, source, target);
            thread::sleep(Duration::from_millis(200));
            cluster.close_slot(&slot, target);
            thread::sleep(Duration::from_millis(500));
        }
        let rounds: u64 = load.into_iter().map(|load| load.join().expect("no error surfaces")).sum();
        let held = held.join().unwrap();
        assert_eq!(held["released"], true, "{held}");
        say(&format!("r9: {rounds} leases while {moved} keys moved"));
        assert!(moved > 0 && rounds > 0);
    });
    assert!(errors(&cluster, "ASK") > 0 && errors(&cluster, "MOVED") > 0);
}

#[test]
fn n4_a_primary_that_dies_is_replaced_and_fences_rise() {
    for connection in BOTH {
        let mut cluster = Cluster::start(&[]);
        let nginx = over(&cluster, &format!("connection = '{connection}'"));
        let names = cluster.names();
        let (member, name) = &names[0];
        let before = once(&nginx, name);
        cluster.members[*member].kill();
        let mut after = None;
        until("the replica is used", || {
            let answer = hold(&nginx, name);
            after = (answer["released"] == true).then(|| fence(&answer));
            after.is_some()
        });
        assert!(after > Some(before), "{connection}");
        // Who is heard by way of another node is heard still.
        once(&nginx, &names[1].1);
    }
}

#[test]
fn r5_a_failover_by_hand_keeps_leases() {
    let cluster = Cluster::start(&[]);
    let nginx = over(&cluster, "");
    let (member, name) = cluster.names().remove(0);
    let id = cluster.members[member].id();
    let replica = cluster.members.iter().find(|member| {
        let nodes: String = member.raw().must(&["CLUSTER", "NODES"]);
        nodes.lines().any(|line| line.contains("myself,slave") && line.contains(&id))
    });
    let replica = replica.expect("it has a replica");
    let held = thread::scope(|scope| {
        let holder = scope.spawn(|| nginx.call("hold", &[("name", &name), ("hold", "4"), ("ttl", "3")]));
        let mut raw = cluster.members[member].raw();
        until("it is held", || raw.must::<u64>(&["EXISTS", &key(&name)]) == 1);
        replica.raw().must::<()>(&["CLUSTER", "FAILOVER"]);
        until("the replica took over", || replica.is_primary() && !cluster.members[member].is_primary());
        holder.join().unwrap()
    });
    assert_eq!(held["released"], true, "{held}");
    assert!(replica.raw().count("evalsha") > 0);
}

#[test]
fn a_stopped_primary_delays_only_its_own_locks() {
    for connection in BOTH {
        let cluster = Cluster::start(&NO_FAILOVER);
        let nginx = over(&cluster, &format!("connection = '{connection}', timeout = 5"));
        let names = cluster.names();
        for (_, name) in &names {
            once(&nginx, name);
        }
        cluster.members[names[0].0].signal("STOP");
        let (delayed, took) = thread::scope(|scope| {
            let delayed = scope.spawn(|| nginx.call("try_acquire", &[("name", &names[0].1)]));
            let started = Instant::now();
            for (_, name) in &names[1..] {
                once(&nginx, name);
            }
            let took = started.elapsed();
            // A newcomer finds its way by those who answer.
            once(&over(&cluster, &format!("connection = '{connection}'")), &names[2].1);
            (delayed.join().unwrap(), took)
        });
        cluster.members[names[0].0].signal("CONT");
        assert!(text(&delayed, "error").starts_with("unknown: "), "{delayed}");
        say(&format!("{connection}: two locks of other nodes while one is stopped: {took:?}"));
        assert!(took < Duration::from_secs(5), "they waited for the stopped node: {took:?}");
    }
}

#[test]
fn a_stopped_primary_ends_only_the_leases_that_it_has() {
    let cluster = Cluster::start(&NO_FAILOVER);
    let nginx = over(&cluster, "timeout = 1");
    let names = cluster.names();
    let held: Vec<_> = thread::scope(|scope| {
        let holders: Vec<_> = names
            .iter()
            .map(|(_, name)| {
                let nginx = &nginx;
                scope.spawn(move || nginx.call("hold", &[("name", name), ("hold", "8"), ("ttl", "4")]))
            })
            .collect();
        for (member, name) in &names {
            let mut raw = cluster.members[*member].raw();
            until("it is held", || raw.must::<u64>(&["EXISTS", &key(name)]) == 1);
        }
        cluster.members[names[0].0].signal("STOP");
        holders.into_iter().map(|holder| holder.join().unwrap()).collect()
    });
    cluster.members[names[0].0].signal("CONT");
    assert_ne!(held[0]["released"], true, "{}", held[0]);
    assert_eq!((&held[1]["released"], &held[2]["released"]), (&true.into(), &true.into()));
}

#[test]
fn r10_a_cluster_that_is_down_grants_nothing_and_comes_back() {
    let cluster = Cluster::start(&["--cluster-replica-no-failover", "yes"]);
    let nginx = over(&cluster, "");
    let names = cluster.names();
    once(&nginx, &names[0].1);
    let stopped = &cluster.members[names[1].0];
    stopped.signal("STOP");
    until("the cluster is down", || {
        let info: String = cluster.members[names[0].0].raw().must(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:fail")
    });
    let answer = nginx.call("try_acquire", &[("name", &names[2].1)]);
    stopped.signal("CONT");
    assert!(answer["fence"].is_null(), "{answer}");
    assert!(errors(&cluster, "CLUSTERDOWN") > 0);
    cluster.settled();
    until("it is granted again", || hold(&nginx, &names[2].1)["released"] == true);
}

#[test]
fn what_one_node_of_the_fleet_has_made_the_others_find_where_its_slot_is() {
    let cluster = Cluster::start(&[]);
    let flight = "location = /flight { content_by_lua_block {
        local opts = { shm = 'redlatch' }
        for option, value in pairs(require('handler').defaults) do opts[option] = value end
        local value, from = require('resty.redlatch').new(opts):single_flight(ngx.var.arg_key, {}, function()
            return 'made'
        end)
        ngx.say(value, ', ', from) } }";
    for connection in BOTH {
        let options = format!("url = '{}', connection = '{connection}'", cluster.url());
        let [first, second] = [(); 2].map(|()| Config::new(&options).locations(flight).workers(1).start());
        for (_, name) in cluster.names() {
            let path = format!("/flight?key={connection}-{name}");
            assert_eq!(first.get(&path).1.trim(), "made, fill");
            assert_eq!(second.get(&path).1.trim(), "made, fleet");
        }
    }
}

#[test]
fn what_is_no_cluster_is_said() {
    let server =
        crate::support::Server::start(&["--port", &crate::support::topology::free_port().to_string()]).unwrap();
    let port: Vec<String> = super::ask(&server, &["CONFIG", "GET", "port"]);
    for connection in BOTH {
        let url = format!("url = 'redis+cluster://127.0.0.1:{}', connection = '{connection}'", port[1]);
        let nginx = Config::new(&url).workers(1).start();
        let answer = nginx.call("try_acquire", &[("name", "n")]);
        let error = text(&answer, "error");
        assert!(error.contains("cluster support disabled"), "{error}");
    }
}
