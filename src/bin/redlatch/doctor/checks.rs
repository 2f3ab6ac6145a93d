//! The checks, in the order in which they are shown.

use std::time::Duration;

use redlatch::call::Role;

use super::facts::{EVICTED, Facts};
use crate::{
    ask::Withheld,
    duration::{rough, show},
    fleet::Answer,
    granted::Untold,
    outcome::Problem,
    output::{escaped, plural},
    product::Product,
    rights::{self, grant_to_ask},
};

/// How good what was found is; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Fine,
    /// The user may not see it.
    Unknown,
    /// It could be better.
    Warning,
    /// Locks are in danger, or cannot work.
    Problem,
}

/// What a check found on one server, or on all of them.
pub struct Finding {
    /// Number of the check.
    pub id: &'static str,
    /// What the check is about.
    pub about: &'static str,
    /// How good it is.
    pub state: State,
    /// The server, unless it is about all.
    pub node: Option<String>,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// A check.
pub struct Check {
    id: &'static str,
    about: &'static str,
    look: Look,
}

/// What a check looks at.
enum Look {
    /// One server after the other.
    Each(fn(&Facts, Role) -> Seen),
    /// All servers together, also those that did not answer.
    All(fn(&[Answer<Facts>]) -> SeenOn),
}

/// What is found on which server; on `None` where it is about all.
type SeenOn = Vec<(Option<String>, Seen)>;

/// What is found, in words, and the fix.
enum Seen {
    Fine(String),
    /// Which command it takes, and why that does not tell.
    Unknown(&'static str, Withheld),
    Warning(String, String),
    Problem(String, String),
    /// The check does not apply.
    Nothing,
}

use Seen::{Fine, Nothing, Problem as Bad, Unknown, Warning};

/// All checks.
pub const CHECKS: [Check; 15] = [
    Check { id: "D01", about: "reachable", look: Look::All(reachable) },
    Check { id: "D02", about: "version", look: Look::Each(version) },
    Check { id: "D03", about: "scripts", look: Look::Each(scripts) },
    Check { id: "D04", about: "evicted scripts", look: Look::Each(evicted_scripts) },
    Check { id: "D05", about: "rights", look: Look::Each(rights) },
    Check { id: "D06", about: "eviction", look: Look::Each(eviction) },
    Check { id: "D07", about: "replicas", look: Look::Each(replicas) },
    Check { id: "D08", about: "replication", look: Look::Each(replication) },
    Check { id: "D09", about: "persistence", look: Look::Each(persistence) },
    Check { id: "D10", about: "clocks", look: Look::All(clocks) },
    Check { id: "D11", about: "slow scripts", look: Look::Each(slow_scripts) },
    Check { id: "D12", about: "cluster", look: Look::Each(cluster) },
    Check { id: "D13", about: "callers", look: Look::Each(callers) },
    Check { id: "D14", about: "other scripts", look: Look::Each(other_scripts) },
    Check { id: "D15", about: "kind of server", look: Look::Each(kind) },
];

/// Clocks that differ by more make a fail-over shorten or lengthen leases.
const CLOCKS_APART_MS: i64 = 500;
/// A script of ours is a matter of microseconds.
const SLOW: Duration = Duration::from_millis(10);
/// Scripts in the cache that are not ours, before somebody seems to make them up as they go.
const OTHER_SCRIPTS: u64 = 500;

impl Check {
    /// What it finds.
    pub fn run(&self, answers: &[Answer<Facts>]) -> Vec<Finding> {
        let seen = match self.look {
            Look::All(look) => look(answers),
            Look::Each(look) => answers
                .iter()
                .filter_map(|answer| {
                    let facts = answer.outcome.as_ref().ok()?;
                    Some((Some(answer.server.address.clone()), look(facts, answer.server.role)))
                })
                .collect(),
        };
        seen.into_iter().filter_map(|(node, seen)| self.finding(node, seen)).collect()
    }

    fn finding(&self, node: Option<String>, seen: Seen) -> Option<Finding> {
        let (state, text, fix) = match seen {
            Fine(text) => (State::Fine, text, None),
            Unknown(command, Withheld::Denied) => {
                let fix = grant_to_ask(command, rights::Role::Deployer);
                (State::Unknown, format!("the user may not run {command}"), Some(fix))
            }
            Unknown(command, Withheld::Absent) => (State::Unknown, format!("the server has no {command}"), None),
            Warning(text, fix) => (State::Warning, text, Some(fix)),
            Bad(text, fix) => (State::Problem, text, Some(fix)),
            Nothing => return None,
        };
        Some(Finding { id: self.id, about: self.about, state, node, text, fix })
    }
}

impl State {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

fn reachable(answers: &[Answer<Facts>]) -> SeenOn {
    let silent: Vec<_> = answers
        .iter()
        .filter_map(|answer| {
            let Problem { message, .. } = answer.problem()?;
            let fix = "start it, or let this machine through to it".to_owned();
            Some((Some(answer.server.address.clone()), Bad(message, fix)))
        })
        .collect();
    if silent.is_empty() {
        let count = answers.len();
        return vec![(
            None,
            Fine(if count == 1 { "1 server answers".into() } else { format!("{count} servers answer") }),
        )];
    }
    silent
}

fn version(facts: &Facts, _: Role) -> Seen {
    let Some(product) = &facts.product else { return no_info(facts) };
    if !product.version.is_from([6, 2, 0]) {
        Bad(format!("{product} is older than 6.2"), "upgrade the server to 6.2.7 or later".to_owned())
    } else if !product.counts_replicas_for_scripts() {
        Warning(
            format!("{product} does not look at min-replicas-to-write when a script writes"),
            "upgrade the server to 6.2.7 or later".to_owned(),
        )
    } else {
        Fine(product.to_string())
    }
}

fn scripts(facts: &Facts, _: Role) -> Seen {
    match facts.missing {
        0 => Fine("all scripts of this bundle are there".to_owned()),
        missing => Bad(
            match missing {
                1 => "1 script of this bundle is missing".to_owned(),
                missing => format!("{missing} scripts of this bundle are missing"),
            },
            "run `redlatch load`, or keep `redlatch load --watch` running".to_owned(),
        ),
    }
}

fn evicted_scripts(facts: &Facts, _: Role) -> Seen {
    let (Some((evicted, looked)), Some(total), Some(product)) = (facts.evicted, facts.number(EVICTED), &facts.product)
    else {
        return if facts.info.is_err() { no_info(facts) } else { Nothing };
    };
    if evicted == 0 {
        return Fine(match total {
            0 => "none".to_owned(),
            total => format!("none now; {total} since the server started"),
        });
    }
    let fix = if product.pins_what_is_there() {
        "find the caller that sends EVAL with ever other texts; `redlatch load` makes the scripts of the bundle stay"
    } else {
        "find the caller that sends EVAL with ever other texts. The bundle's scripts stay if they came by `redlatch load`; \
         one that came by EVAL first goes too: SCRIPT FLUSH and `redlatch load` make it stay"
    };
    let were = if evicted == 1 { "was" } else { "were" };
    let rest = format!("{were} evicted within {}: somebody sends EVAL with ever other texts", rough(looked));
    Warning(format!("{} {rest}", plural(evicted, "script")), fix.to_owned())
}

fn rights(facts: &Facts, role: Role) -> Seen {
    if role == Role::Replica {
        return Nothing;
    }
    let (user, role) = (escaped(facts.user.as_bytes()), facts.role);
    let one = role.one();
    match &facts.rights {
        Ok(lacking) if lacking.denied.is_empty() && lacking.unknown.is_empty() => {
            Fine(format!("{user} has the rights of {one}"))
        }
        Ok(lacking) if lacking.denied.is_empty() => Bad(
            format!("it is not told whether {user} may {}", lacking.unknown.join(", ").to_uppercase()),
            "the server does not have these commands: locks need them".to_owned(),
        ),
        Ok(lacking) => Bad(
            format!("{user} lacks rights of {one}: {}", lacking.denied.join(", ")),
            // What it has for other work stays.
            format!("ACL SETUSER {user} {}", lacking.rules.join(" ")),
        ),
        Err(Untold::NoUser) => Bad(
            format!("there is no user {user}"),
            format!("ACL SETUSER {user} on '>a-password' $(redlatch acl print {})", role.word()),
        ),
        Err(Untold::Withheld(why)) => Unknown("ACL DRYRUN", *why),
        Err(Untold::Trouble(error)) => Bad(error.to_string(), "ask again when the server answers".to_owned()),
    }
}

fn no_info(facts: &Facts) -> Seen {
    Unknown("INFO", facts.info.as_ref().err().copied().unwrap_or(Withheld::Absent))
}

fn no_config(facts: &Facts) -> Seen {
    Unknown("CONFIG GET", facts.config.as_ref().err().copied().unwrap_or(Withheld::Absent))
}

fn eviction(facts: &Facts, _: Role) -> Seen {
    let (Some(policy), Some(limit)) = (facts.setting("maxmemory-policy"), facts.setting("maxmemory")) else {
        return no_config(facts);
    };
    let fix = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf".to_owned();
    match (policy, limit) {
        ("noeviction", _) => Fine("maxmemory-policy is noeviction".to_owned()),
        (policy, "0") => {
            Warning(format!("maxmemory-policy is {policy}: with a maxmemory it would throw away leases"), fix)
        }
        (policy, _) => {
            Bad(format!("maxmemory-policy is {policy}: a full server throws away leases that are held"), fix)
        }
    }
}

fn replicas(facts: &Facts, role: Role) -> Seen {
    let (Some(connected), Some(least)) = (facts.number("connected_slaves"), facts.setting("min-replicas-to-write"))
    else {
        return if facts.info.is_err() { no_info(facts) } else { no_config(facts) };
    };
    let counted = facts.product.as_ref().is_none_or(Product::counts_replicas_for_scripts);
    match (role, connected, least) {
        (Role::Primary | Role::Unknown, 1.., _) if !counted => Warning(
            "min-replicas-to-write does not count for scripts: a primary that was replaced goes on granting leases"
                .into(),
            "upgrade the server to 6.2.7 or later, then CONFIG SET min-replicas-to-write 1".to_owned(),
        ),
        (Role::Replica, _, _) | (_, 0, "0") => Nothing,
        (_, connected, "0") => Warning(
            format!(
                "{} and min-replicas-to-write 0: a primary that was replaced goes on granting leases",
                plural(connected, "replica")
            ),
            "CONFIG SET min-replicas-to-write 1, and the same in redis.conf".to_owned(),
        ),
        (_, connected, least) if connected < least.parse().unwrap_or(0) => Bad(
            format!("min-replicas-to-write is {least}, replicas connected: {connected}: nothing can be acquired"),
            "connect the replicas again, or lower min-replicas-to-write".to_owned(),
        ),
        (_, connected, least) => Fine(format!("replicas connected: {connected}, writes need {least}")),
    }
}

fn replication(facts: &Facts, role: Role) -> Seen {
    if role != Role::Replica {
        return Nothing;
    }
    match facts.info("master_link_status") {
        None => no_info(facts),
        Some("up") => Fine("linked to its primary".to_owned()),
        Some(state) => Bad(
            format!("the link to its primary is {state}: promoted now, it would grant leases that are held"),
            "see its log: address, password and reachability of the primary".to_owned(),
        ),
    }
}

fn persistence(facts: &Facts, _: Role) -> Seen {
    let (Some(append), Some(save)) = (facts.setting("appendonly"), facts.setting("save")) else {
        return no_config(facts);
    };
    let failed = ["rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"]
        .into_iter()
        .find(|status| facts.info(status).is_some_and(|status| status != "ok"));
    if let Some(status) = failed {
        return Bad(
            format!("{status} is not ok: the server may refuse to write"),
            "see the server's log: disk space and permissions".to_owned(),
        );
    }
    match (append, save, facts.setting("appendfsync")) {
        ("no", "", _) => Warning(
            "nothing is kept on disk: after a restart leases that are held are granted again".to_owned(),
            "CONFIG SET appendonly yes, and the same in redis.conf; or let every resource check the fence".to_owned(),
        ),
        ("no", _, _) => Warning(
            "only snapshots are kept on disk: a restart forgets the leases since the last one".to_owned(),
            "CONFIG SET appendonly yes, and the same in redis.conf; or let every resource check the fence".to_owned(),
        ),
        (_, _, Some("no")) => Warning(
            "appendfsync is no: a power cut forgets leases of up to half a minute".to_owned(),
            "CONFIG SET appendfsync everysec, and the same in redis.conf".to_owned(),
        ),
        (_, _, fsync) => Fine(format!("appendonly, fsync {}", fsync.unwrap_or("unknown"))),
    }
}

fn clocks(answers: &[Answer<Facts>]) -> SeenOn {
    let answered = || answers.iter().filter_map(|answer| Some((&answer.server.address, answer.outcome.as_ref().ok()?)));
    let untold =
        answered().filter_map(|(node, facts)| Some((Some(node.clone()), Unknown("TIME", facts.ahead_ms.err()?))));
    let mut seen: SeenOn = untold.collect();
    let ahead: Vec<_> = answered().filter_map(|(node, facts)| Some((node.as_str(), facts.ahead_ms.ok()?))).collect();
    let (Some(first), Some(last)) = (ahead.iter().min_by_key(|(_, ms)| ms), ahead.iter().max_by_key(|(_, ms)| ms))
    else {
        return seen;
    };
    let fix = "run chrony or another time daemon on all of them".to_owned();
    let here = first.1.abs().max(last.1.abs());
    let apart = if last.1 - first.1 > CLOCKS_APART_MS {
        let text = format!(
            "{} is {} ms ahead of {}: a fail-over changes the length of leases",
            last.0,
            last.1 - first.1,
            first.0
        );
        Bad(text, fix)
    } else if here > CLOCKS_APART_MS {
        Warning(
            format!("servers and this machine are {here} ms apart: times in `inspect` are off, leases are not"),
            fix,
        )
    } else {
        Fine(format!("at most {here} ms from this machine's"))
    };
    seen.push((None, apart));
    seen
}

fn slow_scripts(facts: &Facts, _: Role) -> Seen {
    match facts.slowest {
        Err(why) => Unknown("SLOWLOG GET", why),
        Ok(slowest) if slowest > SLOW => Warning(
            format!("a script of ours took {}", show(slowest)),
            "look for swapping, huge pages or a machine that is overcommitted: the script itself takes microseconds"
                .to_owned(),
        ),
        Ok(_) => Fine("none of ours in the slow log".to_owned()),
    }
}

fn cluster(facts: &Facts, _: Role) -> Seen {
    let cluster = match &facts.cluster {
        Some(Ok(cluster)) => cluster,
        Some(Err(why)) => return Unknown("CLUSTER INFO", *why),
        None if facts.info.is_err() && facts.by_cluster => return no_info(facts),
        None => return Nothing,
    };
    let field = |name: &str| cluster.get(name).map_or("", String::as_str);
    if field("cluster_state") == "ok" && field("cluster_slots_ok") == "16384" {
        return Fine("all slots are served".to_owned());
    }
    Bad(
        format!("cluster_state is {}, {} of 16384 slots are served", field("cluster_state"), field("cluster_slots_ok")),
        "redis-cli --cluster check HOST:PORT says which node or slot is missing".to_owned(),
    )
}

fn callers(facts: &Facts, _: Role) -> Seen {
    let callers = match &facts.callers {
        Ok(callers) => callers,
        Err(why) => return Unknown("CLIENT LIST", *why),
    };
    let own = env!("CARGO_PKG_VERSION");
    let others: Vec<_> = callers
        .iter()
        .filter(|(version, _)| *version != own)
        .map(|(version, count)| format!("{count} of version {version}"))
        .collect();
    let total: u64 = callers.values().sum();
    if others.is_empty() {
        return Fine(match total {
            0 => "no caller is connected".to_owned(),
            1 => format!("1 connection, of version {own}"),
            total => format!("{total} connections, all of version {own}"),
        });
    }
    Warning(
        format!("callers are connected that are not of version {own}: {}", others.join(", ")),
        format!("roll them to {own}; until then go on loading the bundle of each version that is in use"),
    )
}

/// A node of a cluster refuses most locks to who does not know the other nodes.
fn kind(facts: &Facts, _: Role) -> Seen {
    if facts.info("cluster_enabled") != Some("1") || facts.by_cluster {
        return Nothing;
    }
    Bad(
        "it is a node of a Redis Cluster, and the URL says that it stands alone: the other nodes were not looked at"
            .into(),
        "write redis+cluster:// in the URL, or say --cluster".to_owned(),
    )
}

fn other_scripts(facts: &Facts, _: Role) -> Seen {
    match facts.number("number_of_cached_scripts") {
        None if facts.info.is_err() => no_info(facts),
        None => Nothing,
        Some(count) if count > OTHER_SCRIPTS => Warning(
            format!("{count} scripts are cached: somebody makes scripts up as it goes, which fills the memory"),
            "find the caller that builds script texts, and let it pass values as ARGV; SCRIPT FLUSH and `redlatch load` clear up".to_owned(),
        ),
        Some(1) => Fine("1 script is cached".to_owned()),
        Some(count) => Fine(format!("{count} scripts are cached")),
    }
}
