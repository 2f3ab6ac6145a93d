//! What is counted, and that it never falls.

use std::collections::HashMap;

use super::{ask, text, until};
use crate::support::nginx::{Config, Nginx};
use crate::support::{Server, say};

fn prometheus(nginx: &Nginx) -> String {
    text(&nginx.call("stats", &[]), "prometheus").to_owned()
}

/// The sum of each metric over its series, as a dashboard makes it.
fn sums(text: &str) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (metric, count) = line.rsplit_once(' ').unwrap();
        let (metric, _) = metric.split_once('{').unwrap();
        *sums.entry(metric.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    sums
}

fn granted(nginx: &Nginx) -> u64 {
    sums(&prometheus(nginx)).get("redlatch_nginx_granted_total").copied().unwrap_or(0)
}

#[test]
fn counts_of_all_workers_reach_prometheus_and_name_no_secret() {
    let redis = Server::start(&[]).unwrap();
    ask::<String>(&redis, &["ACL", "SETUSER", "lena", "on", ">canary", "~*", "&*", "+@all"]);
    let nginx = Config::redis(&redis).options(r#"shm = "redlatch", username = "lena", password = "canary""#).start();
    let mut answer = nginx.call("hold", &[("name", "n")]);
    let mut workers = HashMap::new();
    let mut calls = 1;
    while workers.len() < 2 {
        answer = nginx.call("hold", &[("name", "n")]);
        workers.insert(answer["worker"].clone(), ());
        calls += 1;
    }
    until("all are counted", || granted(&nginx) == calls);
    let (stats, text_of_all) = (nginx.call("stats", &[]), prometheus(&nginx));
    assert!(text_of_all.contains("# TYPE redlatch_nginx_granted_total counter\n"), "{text_of_all}");
    let said = format!("{stats}{}", nginx.error_log());
    assert!(!said.contains("canary"), "{said}");
    assert!(!said.contains(text(&answer, "owner")), "{said}");
}

#[test]
fn without_a_dictionary_the_counts_are_those_of_the_worker_and_say_so() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).workers(1).start();
    nginx.call("hold", &[("name", "n")]);
    assert!(prometheus(&nginx).contains(",worker=\"0\"} 1\n"));
}

#[test]
fn no_count_falls_when_workers_are_replaced() {
    let redis = Server::start(&[]).unwrap();
    let nginx = Config::redis(&redis).options("shm = 'redlatch', keepalive = 0.05").start();
    let mut last = HashMap::new();
    let mut look = |nginx: &Nginx| {
        let now = sums(&prometheus(nginx));
        for (metric, count) in &last {
            assert!(now.get(metric) >= Some(count), "{metric} fell from {count} to {:?}", now.get(metric));
        }
        last = now;
    };
    let mut calls = 0;
    for round in 0..6 {
        for _ in 0..20 {
            assert_eq!(nginx.call("hold", &[("name", "n"), ("wait", "5")])["released"], true);
            calls += 1;
            look(&nginx);
        }
        let before = nginx.workers();
        nginx.reload();
        until("the workers are new", || {
            let now = nginx.workers();
            now.len() == 2 && before.iter().all(|old| !now.contains(old))
        });
        look(&nginx);
        assert_eq!(granted(&nginx), calls, "nothing is lost by reload {round}");
    }
    say(&format!("{calls} leases over 6 reloads, all of them counted"));
}
