//! The servers of an endpoint, for whoever deploys to all of them.

use redis::Value;

use super::{Caller, Endpoint, Servers, refusal};
use crate::Error;

/// One server of an endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Server {
    /// `HOST:PORT`, or the path of a socket.
    pub address: String,
    /// What it is for the others.
    pub role: Role,
    /// What connects to this very server.
    pub endpoint: Endpoint,
}

/// What a server is for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// The server's ACL does not let us know.
    Unknown,
}

impl Role {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        }
    }
}

impl Caller {
    /// Every server that is known now, primaries first: the server with its replicas, the primary and the replicas
    /// that sentinels list, or all nodes of a cluster that have a slot or follow one that has.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn servers(&self) -> Result<Vec<Server>, Error> {
        let (primaries, replicas) = match &self.servers {
            Servers::One { sentinels: None, .. } => return self.with_replicas().await,
            Servers::One { sentinels: Some(sentinels), .. } => {
                let what = "asking the sentinels";
                let primary = sentinels.candidates().next().await.map_err(|error| refusal::not_sent(what, error))?;
                let replicas = sentinels.replicas().await.map_err(|error| refusal::not_sent(what, error))?;
                (vec![primary.get_connection_info().addr().to_string()], replicas)
            }
            Servers::Cluster { cluster, .. } => {
                cluster.doubt();
                cluster.look().await.map_err(|error| refusal::not_sent("CLUSTER SLOTS", error))?;
                cluster.all()
            }
        };
        let primaries = primaries.iter().map(|address| (address, Role::Primary));
        let replicas = replicas.iter().map(|address| (address, Role::Replica));
        primaries.chain(replicas).map(|(address, role)| self.server(address, role)).collect()
    }

    fn server(&self, address: &str, role: Role) -> Result<Server, Error> {
        Ok(Server { address: address.to_owned(), role, endpoint: self.endpoint.server(address)? })
    }

    /// The one server, and the replicas that it knows.
    async fn with_replicas(&self) -> Result<Vec<Server>, Error> {
        let own = |role| Server { address: self.endpoint.to_string(), role, endpoint: Endpoint::clone(&self.endpoint) };
        let reply = match self.command(&redis::cmd("ROLE"), || "ROLE".to_owned()).await {
            Ok(reply) => reply,
            Err(error) if error.code() == Some("NOPERM") => return Ok(vec![own(Role::Unknown)]),
            Err(error) => return Err(error),
        };
        let Value::Array(fields) = reply else { return Ok(vec![own(Role::Unknown)]) };
        let Some(Value::BulkString(role)) = fields.first() else { return Ok(vec![own(Role::Unknown)]) };
        if role != b"master" {
            return Ok(vec![own(Role::Replica)]);
        }
        let replicas: Vec<(String, String, String)> =
            fields.into_iter().nth(2).and_then(|list| redis::from_redis_value(list).ok()).unwrap_or_default();
        let replicas = replicas.iter().map(|(host, port, _)| self.server(&format!("{host}:{port}"), Role::Replica));
        std::iter::once(Ok(own(Role::Primary))).chain(replicas).collect()
    }
}
