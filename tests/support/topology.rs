//! Servers that belong together: a primary with replicas, sentinels, a cluster. Each listens on a free port of the
//! loopback interface, in a folder of its own, and is stopped by pid.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

pub use super::until;
use super::{Raw, signal};

/// One redis-server on a port, as a server or as a sentinel.
pub struct Member {
    process: Child,
    folder: TempDir,
    pub port: u16,
    mode: Mode,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
enum Mode {
    Server,
    Sentinel,
}

impl Member {
    /// Starts a server with `options` and waits until it answers.
    pub fn start(options: &[&str]) -> Self {
        Self::start_as(Mode::Server, &[], options)
    }

    /// The same with variables of its environment.
    pub fn start_in(environment: &[(String, String)], options: &[&str]) -> Self {
        Self::start_as(Mode::Server, environment, options)
    }

    /// A sentinel that watches `server`, whatever that is, and never takes it for down.
    pub fn watching(server: &Member) -> Self {
        Self::watching_port(server.port)
    }

    /// The same with whatever answers at `port` of the loopback interface.
    pub fn watching_port(port: u16) -> Self {
        let settings = format!(
            "sentinel monitor {WATCHED} 127.0.0.1 {port} 1\nsentinel down-after-milliseconds {WATCHED} 3600000\n"
        );
        Self::start_as(Mode::Sentinel, &[], &[&settings])
    }

    fn start_as(mode: Mode, environment: &[(String, String)], options: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let environment = environment.to_vec();
        let process = spawn(&folder, mode, port, &options, &environment);
        let member = Self { process, folder, port, mode, options, environment };
        until("the server answers", || member.try_raw().is_some());
        member
    }

    /// Starts it again after it was killed.
    pub fn start_again(&mut self) {
        let _ = self.process.wait();
        self.process = spawn(&self.folder, self.mode, self.port, &self.options, &self.environment);
        until("the server answers again", || self.try_raw().is_some());
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// A plain connection that gives up after a while.
    pub fn raw(&self) -> Raw {
        let mut raw = None;
        until("the server answers", || {
            raw = self.try_raw();
            raw.is_some()
        });
        raw.expect("it has answered")
    }

    fn try_raw(&self) -> Option<Raw> {
        let mut raw = Raw::try_open(&self.url()).ok()?;
        // A replica without its primary answers that it will not.
        let answers = raw.run(&[b"PING"]).map_or_else(|error| error.code().is_some(), |_| true);
        answers.then_some(raw)
    }

    pub fn is_primary(&self) -> bool {
        let role: Vec<redis::Value> = self.raw().must(&["ROLE"]);
        role.first() == Some(&redis::Value::BulkString(b"master".to_vec()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &TempDir, mode: Mode, port: u16, options: &[String], environment: &[(String, String)]) -> Child {
    let mut command = Command::new("redis-server");
    match mode {
        Mode::Server => {
            let own =
                ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"];
            command.args(own).args(options);
        }
        Mode::Sentinel => {
            let file = folder.path().join("sentinel.conf");
            // It goes on with what it has written into its file.
            if !file.exists() {
                let text = format!("port {port}\nbind 127.0.0.1\n{}", options.concat());
                std::fs::write(&file, text).expect("the file can be written");
            }
            command.arg(&file).arg("--sentinel");
        }
    }
    command
        .current_dir(folder.path())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}

/// A port that nobody listens on, and whose cluster bus port is free too.
pub fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        if port < 50_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A primary with replicas that have caught up.
pub struct Replicated {
    pub primary: Member,
    pub replicas: Vec<Member>,
}

impl Replicated {
    pub fn start(replicas: usize, options: &[&str]) -> Self {
        let quick = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let primary = Member::start(&[&quick, options].concat());
        let port = primary.port.to_string();
        let follow = ["--replicaof", "127.0.0.1", &port];
        let replicas: Vec<_> = (0..replicas).map(|_| Member::start(&[&quick[..], options, &follow].concat())).collect();
        let servers = Self { primary, replicas };
        servers.wait();
        servers
    }

    fn wait(&self) {
        until("the replicas have caught up", || {
            let info: String = self.primary.raw().must(&["INFO", "replication"]);
            info.matches("state=online").count() == self.replicas.len()
        });
        for replica in &self.replicas {
            until("the replica is linked", || {
                let info: String = replica.raw().must(&["INFO", "replication"]);
                info.contains("master_link_status:up")
            });
        }
    }
}

/// What the sentinels call the primary.
pub const WATCHED: &str = "orders";

/// A primary with two replicas and three sentinels.
pub struct Watched {
    pub servers: Vec<Member>,
    pub sentinels: Vec<Member>,
}

impl Watched {
    pub fn start(options: &[&str]) -> Self {
        let Replicated { primary, replicas } = Replicated::start(2, options);
        let settings = format!(
            "sentinel monitor {WATCHED} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {WATCHED} 500\n\
             sentinel failover-timeout {WATCHED} 5000\n",
            primary.port
        );
        let sentinels: Vec<_> = (0..3).map(|_| Member::start_as(Mode::Sentinel, &[], &[&settings])).collect();
        let servers = std::iter::once(primary).chain(replicas).collect();
        let watched = Self { servers, sentinels };
        for sentinel in &watched.sentinels {
            until("the sentinels know each other and the replicas", || {
                let fields: std::collections::HashMap<String, String> =
                    sentinel.raw().must(&["SENTINEL", "MASTER", WATCHED]);
                fields["num-other-sentinels"] == "2" && fields["num-slaves"] == "2"
            });
        }
        watched
    }

    pub fn url(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(Member::address).collect();
        format!("redis+sentinel://{}/{WATCHED}", sentinels.join(","))
    }

    /// Where the primary is, as the sentinels say.
    pub fn primary(&self) -> usize {
        self.primary_as_of(0)
    }

    /// Where the primary is, as one of the sentinels says.
    pub fn primary_as_of(&self, sentinel: usize) -> usize {
        let (_, port): (String, u16) =
            self.sentinels[sentinel].raw().must(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", WATCHED]);
        self.servers.iter().position(|server| server.port == port).expect("it is one of ours")
    }

    /// Waits until the sentinels name another primary than `before`, which takes writes.
    pub fn switched_from(&self, before: usize) -> usize {
        let mut primary = before;
        until("the sentinels have switched", || {
            primary = self.primary();
            primary != before && self.servers[primary].is_primary()
        });
        primary
    }
}

/// Three primaries with one replica each.
pub struct Cluster {
    pub members: Vec<Member>,
}

impl Cluster {
    pub fn start(options: &[&str]) -> Self {
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"];
        let members: Vec<_> = (0..6).map(|_| Member::start(&[&cluster, options].concat())).collect();
        let addresses = members.iter().map(Member::address);
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdout(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "the cluster is made");
        let cluster = Self { members };
        cluster.settled();
        cluster
    }

    /// Waits until every member sees the whole cluster.
    pub fn settled(&self) {
        for member in &self.members {
            until("the cluster is up", || {
                let mut raw = member.raw();
                let info: String = raw.must(&["CLUSTER", "INFO"]);
                let slots: Vec<redis::Value> = raw.must(&["CLUSTER", "SLOTS"]);
                let whole = slots.iter().all(|range| matches!(range, redis::Value::Array(fields) if fields.len() == 4));
                info.contains("cluster_state:ok") && whole
            });
        }
    }

    pub fn url(&self) -> String {
        let seeds: Vec<_> = self.members[..3].iter().map(Member::address).collect();
        format!("redis+cluster://{}", seeds.join(","))
    }

    /// The member that owns the slot of `key`.
    pub fn owner(&self, key: &str) -> usize {
        let slot: u16 = self.members[0].raw().must(&["CLUSTER", "KEYSLOT", key]);
        self.members.iter().position(|member| member.is_primary() && member.owns(slot)).expect("somebody owns the slot")
    }
}

impl Cluster {
    /// A name of a mutex for each primary, with the member that has it.
    pub fn names(&self) -> Vec<(usize, String)> {
        let mut names: Vec<(usize, String)> = Vec::new();
        for number in 0.. {
            let name = format!("n{number}");
            let owner = self.owner(&format!("redlatch:m1:{name}"));
            if names.iter().all(|(other, _)| *other != owner) {
                names.push((owner, name));
            }
            if names.len() == 3 {
                return names;
            }
        }
        unreachable!("there are names for every slot")
    }

    /// Says that `target` owns `slot` now.
    pub fn close_slot(&self, slot: &str, target: &Member) {
        let id = target.id();
        target.raw().must::<()>(&["CLUSTER", "SETSLOT", slot, "NODE", &id]);
        for member in self.members.iter().filter(|member| member.is_primary()) {
            member.raw().must::<()>(&["CLUSTER", "SETSLOT", slot, "NODE", &id]);
        }
    }

    /// The slot of `key`, its owner, and another primary.
    pub fn slot_and_target(&self, key: &str) -> (u16, &Member, &Member) {
        let source = self.owner(key);
        let target = (0..6).find(|member| *member != source && self.members[*member].is_primary());
        let slot = self.members[0].raw().must::<u16>(&["CLUSTER", "KEYSLOT", key]);
        (slot, &self.members[source], &self.members[target.expect("there are three")])
    }

    /// Moves the slot of `key` with all its keys to another primary, and returns that.
    pub fn move_slot(&self, key: &str) -> &Member {
        let (number, source, target) = self.slot_and_target(key);
        let slot = number.to_string();
        open_slot(&slot, source, target);
        assert!(move_keys(&slot, source, target) > 0, "keys have moved");
        self.close_slot(&slot, target);
        until("every member knows the new owner", || {
            self.members.iter().all(|member| member.sees_owner(number) == Some(target.port))
        });
        target
    }
}

/// Opens the way for `slot` from `source` to `target`.
pub fn open_slot(slot: &str, source: &Member, target: &Member) {
    target.raw().must::<()>(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source.id()]);
    source.raw().must::<()>(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target.id()]);
}

/// Moves all keys that are there, and returns how many they were.
pub fn move_keys(slot: &str, source: &Member, target: &Member) -> u64 {
    let (mut raw, mut moved) = (source.raw(), 0);
    let port = target.port.to_string();
    loop {
        let keys: Vec<String> = raw.must(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
        if keys.is_empty() {
            return moved;
        }
        let command = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        raw.must::<String>(&command.into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>());
        moved += keys.len() as u64;
    }
}

impl Member {
    fn owns(&self, slot: u16) -> bool {
        let nodes: String = self.raw().must(&["CLUSTER", "NODES"]);
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap_or_default();
        own.split(' ').skip(8).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        })
    }

    /// The port of the owner of `slot`, as this member sees it.
    pub fn sees_owner(&self, slot: u16) -> Option<u16> {
        let ranges: Vec<Vec<redis::Value>> = self.raw().must(&["CLUSTER", "SLOTS"]);
        ranges.into_iter().find_map(|range| {
            let bound = |at: usize| redis::from_redis_value::<u16>(range[at].clone()).ok();
            let owner: Vec<redis::Value> = redis::from_redis_value(range.get(2)?.clone()).ok()?;
            let port = redis::from_redis_value(owner.into_iter().nth(1)?).ok()?;
            (bound(0)?..=bound(1)?).contains(&slot).then_some(port)
        })
    }

    /// Its id in the cluster.
    pub fn id(&self) -> String {
        self.raw().must(&["CLUSTER", "MYID"])
    }
}

/// An authority, a server and a client that it signed.
pub struct Certificates {
    host: &'static str,
    years: (i32, i32),
}

impl Certificates {
    pub fn good() -> Self {
        Self { host: "localhost", years: (2020, 2100) }
    }

    pub fn of_host(host: &'static str) -> Self {
        Self { host, ..Self::good() }
    }

    pub fn expired() -> Self {
        Self { years: (2019, 2020), ..Self::good() }
    }

    /// Writes ca.crt, and .crt and .key of server and client, into `folder`.
    pub fn write(&self, folder: &std::path::Path) {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("the file is written");
        let key = KeyPair::generate().expect("a key is made");
        let mut params = CertificateParams::new(Vec::new()).expect("there are no names");
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("ca.crt", params.self_signed(&key).expect("it is signed").pem());
        let authority = Issuer::new(params, key);
        for who in ["server", "client"] {
            let key = KeyPair::generate().expect("a key is made");
            let mut params = CertificateParams::new(vec![self.host.to_owned()]).expect("the name is valid");
            params.distinguished_name.push(DnType::CommonName, who);
            let (from, to) = if who == "server" { self.years } else { (2020, 2100) };
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
            let certificate = params.signed_by(&key, &authority).expect("it is signed");
            write(&format!("{who}.crt"), certificate.pem());
            write(&format!("{who}.key"), key.serialize_pem());
        }
    }
}
