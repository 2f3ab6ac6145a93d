//! Which node of a Redis Cluster serves a key. Only nodes that own slots are connected to, so a replica that hangs
//! delays nobody; the redis crate's cluster client is not used because it waits for all nodes to load a script.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{ConnectionAddr, ErrorKind, RedisError, RedisResult, Value};
use tokio::task::JoinSet;

use super::{
    connection::{Connection, Members, Seek, lock},
    endpoint::Endpoint,
    node::Node,
};

const SLOTS: u16 = 16384;

/// The nodes of a cluster and the slots they own. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    timeout: Duration,
    map: Mutex<Map>,
    nodes: Mutex<HashMap<String, Node>>,
    /// The addresses that the user named.
    seeds: Vec<ConnectionAddr>,
    /// The owners of slots, once they are known.
    members: Arc<Members>,
    /// Something did not go as the map says.
    doubted: AtomicBool,
    /// Held while the map is asked for.
    asking: tokio::sync::Mutex<()>,
}

/// The first and last slot of each range with the address of its owner, and the addresses of all replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Map {
    owners: Vec<(u16, u16, String)>,
    replicas: Vec<String>,
}

impl Cluster {
    /// Nothing is connected before the first [`look`](Self::look).
    pub(super) fn new(endpoint: Endpoint, seeds: Vec<ConnectionAddr>, timeout: Duration) -> Self {
        let open = {
            let endpoint = endpoint.clone();
            Box::new(move |address| endpoint.client(address))
        };
        Self(Arc::new(Inner {
            endpoint,
            timeout,
            map: Mutex::default(),
            nodes: Mutex::default(),
            members: Arc::new(Members { addresses: Mutex::new(seeds.clone()), open }),
            seeds,
            doubted: AtomicBool::new(true),
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// A connection to any node.
    pub(super) fn any_node(&self) -> Seek {
        Seek::AnyOf(Arc::clone(&self.0.members))
    }

    /// The node that owns the slot of `key`, as far as is known.
    pub(super) async fn owner(&self, key: &[u8]) -> RedisResult<Node> {
        if self.0.doubted.load(Ordering::Acquire) {
            self.look().await?;
        }
        let address = self.owner_address(key);
        address.map(|address| self.node(&address)).transpose()?.ok_or_else(unowned)
    }

    /// The address of the owner of the slot of `key`, as far as is known.
    pub(super) fn owner_address(&self, key: &[u8]) -> Option<String> {
        let slot = slot(key);
        let map = lock(&self.0.map);
        map.owners.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, owner)| owner.clone())
    }

    /// The node at `address`, which a redirection by `asked` named.
    pub(super) fn redirected(&self, asked: &Node, address: &str) -> Option<Node> {
        // Without a host it is that of the node which answered.
        let address = match (address.strip_prefix(':'), asked.address().rsplit_once(':')) {
            (Some(port), Some((host, _))) => format!("{host}:{port}"),
            _ => address.to_owned(),
        };
        self.node(&address).ok()
    }

    /// Something did not go as the map says: it is asked for before the next call.
    pub(super) fn doubt(&self) {
        self.0.doubted.store(true, Ordering::Release);
    }

    /// Every node that owns slots.
    pub(super) fn owners(&self) -> Vec<Node> {
        self.all().0.iter().filter_map(|address| self.node(address).ok()).collect()
    }

    /// Addresses of the owners of slots, and of replicas.
    pub(super) fn all(&self) -> (Vec<String>, Vec<String>) {
        let map = lock(&self.0.map);
        let mut owners: Vec<_> = map.owners.iter().map(|(_, _, owner)| owner.clone()).collect();
        owners.sort();
        owners.dedup();
        (owners, map.replicas.clone())
    }

    /// Asks for the map if it is doubted: every node at once, the first answer counts.
    pub(super) async fn look(&self) -> RedisResult<()> {
        let _turn = self.0.asking.lock().await;
        if !self.0.doubted.load(Ordering::Acquire) {
            return Ok(());
        }
        let (owners, replicas) = self.all();
        let seeds = self.0.seeds.iter().map(ToString::to_string);
        let addresses: BTreeSet<_> = owners.into_iter().chain(replicas).chain(seeds).collect();
        let mut answers: JoinSet<_> = addresses
            .iter()
            .filter_map(|address| self.node(address).ok())
            .map(|node| async move { (node.slots().await, node) })
            .collect();
        let mut trouble = None;
        while let Some(answer) = answers.join_next().await {
            let Ok((slots, node)) = answer else { continue };
            match slots.and_then(|slots| Map::parse(slots, node.address())) {
                Ok(map) => {
                    self.learn(map);
                    return Ok(());
                }
                Err(error) => trouble = Some(error),
            }
        }
        Err(trouble.unwrap_or_else(unowned))
    }

    fn learn(&self, map: Map) {
        let (before, _) = self.all();
        *lock(&self.0.map) = map;
        self.0.doubted.store(false, Ordering::Release);
        let (owners, _) = self.all();
        if !before.is_empty() && before != owners {
            tracing::info!(?owners, "the owners of the cluster's slots are others now");
        }
        *lock(&self.0.members.addresses) = owners.iter().filter_map(|owner| self.0.endpoint.address(owner)).collect();
        lock(&self.0.nodes).retain(|address, _| owners.contains(address));
    }

    fn node(&self, address: &str) -> RedisResult<Node> {
        if let Some(node) = lock(&self.0.nodes).get(address) {
            return Ok(node.clone());
        }
        let parsed = self.0.endpoint.address(address).ok_or_else(unowned)?;
        let client = self.0.endpoint.client(parsed)?;
        let connection = Connection::new(Seek::Fixed(Box::new(client)), self.0.timeout, |_| {});
        let node = Node::new(address.to_owned(), connection, self.0.timeout, self.0.endpoint.login());
        Ok(lock(&self.0.nodes).entry(address.to_owned()).or_insert(node).clone())
    }
}

impl Map {
    /// Reads the reply of CLUSTER SLOTS that the node at `asked` gave.
    fn parse(reply: Value, asked: &str) -> RedisResult<Self> {
        let ranges: Vec<Vec<Value>> = redis::from_redis_value(reply)?;
        let mut map = Self::default();
        for range in ranges {
            let mut fields = range.into_iter();
            let mut bound = || redis::from_redis_value::<u16>(fields.next().unwrap_or(Value::Nil));
            let (first, last) = (bound()?, bound()?);
            let mut addresses = fields.filter_map(|node| address(node, asked));
            let owner = addresses.next().ok_or_else(unowned)?;
            map.owners.push((first, last, owner));
            map.replicas.extend(addresses);
        }
        map.replicas.sort();
        map.replicas.dedup();
        if map.owners.is_empty() { Err(unowned()) } else { Ok(map) }
    }
}

/// `host port id …`; a node that does not know its own host leaves it out.
fn address(node: Value, asked: &str) -> Option<String> {
    let fields: Vec<Value> = redis::from_redis_value(node).ok()?;
    let mut fields = fields.into_iter();
    let host: Option<String> = redis::from_redis_value(fields.next()?).ok()?;
    let port: u16 = redis::from_redis_value(fields.next()?).ok()?;
    let asked = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
    let host = host.filter(|host| !matches!(host.as_str(), "" | "?")).unwrap_or_else(|| asked.to_owned());
    Some(format!("{host}:{port}"))
}

/// The slot of `key`: of what stands between its first `{` and the next `}`, unless that is nothing. CRC16 as the
/// cluster specification of Redis says.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let length = key[open + 1..].iter().position(|byte| *byte == b'}').filter(|length| *length > 0)?;
        Some(&key[open + 1..open + 1 + length])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

fn unowned() -> RedisError {
    (ErrorKind::Io, "no node of the cluster says who owns the slot").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(Vec::new())])
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 12739);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"a{}b"), crc16::State::<crc16::XMODEM>::calculate(b"a{}b") % SLOTS);
        assert_eq!(slot(b"a{{b}}c"), slot(b"{b"));
        assert_eq!(slot(b"a{b}{c}"), slot(b"b"));
        assert_ne!(slot(b"a{b"), slot(b"b"));
    }

    #[test]
    fn a_node_without_host_is_where_the_answer_came_from() {
        let range =
            |first, last, nodes: Vec<Value>| Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat());
        let reply = Value::Array(vec![
            range(0, 99, vec![node(text(""), 7000), node(text("b"), 7001)]),
            range(100, 16383, vec![node(Value::Nil, 7002), node(text("b"), 7001)]),
        ]);
        let map = Map::parse(reply, "a:7000").unwrap();
        assert_eq!(map.owners, [(0, 99, "a:7000".to_owned()), (100, 16383, "a:7002".to_owned())]);
        assert_eq!(map.replicas, ["b:7001"]);
    }

    #[test]
    fn a_cluster_without_slots_is_an_error() {
        assert!(Map::parse(Value::Array(Vec::new()), "a:7000").is_err());
        assert!(Map::parse(Value::Int(1), "a:7000").is_err());
    }
}
