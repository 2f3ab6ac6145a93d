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
        let untold = |what: &'static str| move |error| refusal::not_sent(what, error, &self.endpoint().login());
        let (primaries, replicas) = match &self.shared.servers {
            Servers::One { sentinels: None, .. } => return self.with_replicas().await,
            Servers::One { sentinels: Some(sentinels), .. } => {
                let what = "asking the sentinels";
                let primary = sentinels.candidates().next().await.map_err(untold(what))?;
                let replicas = sentinels.replicas().await.map_err(untold(what))?;
                (vec![primary.get_connection_info().addr().to_string()], replicas)
            }
            Servers::Cluster { cluster, .. } => {
                cluster.doubt();
                cluster.look().await.map_err(untold("CLUSTER SLOTS"))?;
                cluster.all()
            }
        };
        let primaries = primaries.iter().map(|address| (address, Role::Primary));
        let replicas = replicas.iter().map(|address| (address, Role::Replica));
        primaries.chain(replicas).map(|(address, role)| self.server(address, role)).collect()
    }

    fn server(&self, address: &str, role: Role) -> Result<Server, Error> {
        Ok(Server { address: address.to_owned(), role, endpoint: self.shared.endpoint.server(address)? })
    }

    /// The one server, and the replicas that it knows.
    async fn with_replicas(&self) -> Result<Vec<Server>, Error> {
        let own = |role| Server {
            address: self.shared.endpoint.to_string(),
            role,
            endpoint: Endpoint::clone(&self.shared.endpoint),
        };
        let by_role = self.allowed(&redis::cmd("ROLE"), || "ROLE".to_owned()).await?.and_then(of_role);
        let known = match by_role {
            Some(known) => Some(known),
            // Some that others look after have no ROLE.
            None => {
                let info = self.allowed(redis::cmd("INFO").arg("replication"), || "INFO".to_owned()).await?;
                info.and_then(|info| of_info(&redis::from_redis_value::<String>(info).ok()?))
            }
        };
        let (role, replicas) = known.unwrap_or((Role::Unknown, Vec::new()));
        let replicas = replicas.iter().map(|address| self.server(address, Role::Replica));
        std::iter::once(Ok(own(role))).chain(replicas).collect()
    }

    /// The reply; `None` when the server's ACL denies the command, or the server does not have it.
    async fn allowed(&self, command: &redis::Cmd, what: impl Fn() -> String) -> Result<Option<Value>, Error> {
        match self.command(command, what).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The role, and the replicas of a primary, as ROLE replies them.
fn of_role(reply: Value) -> Option<(Role, Vec<String>)> {
    let Value::Array(fields) = reply else { return None };
    let mut fields = fields.into_iter();
    let Value::BulkString(role) = fields.next()? else { return None };
    match role.as_slice() {
        b"master" => {}
        b"slave" => return Some((Role::Replica, Vec::new())),
        _ => return Some((Role::Unknown, Vec::new())),
    }
    let list: Vec<(String, String, String)> = redis::from_redis_value(fields.nth(1)?).unwrap_or_default();
    Some((Role::Primary, list.iter().map(|(host, port, _)| format!("{host}:{port}")).collect()))
}

/// The same as INFO tells it, with a line `slave0:ip=10.0.0.1,port=6379,…` for each replica.
fn of_info(info: &str) -> Option<(Role, Vec<String>)> {
    let field = |line: &str, name: &str| line.split(',').find_map(|part| Some(part.split_once(name)?.1.to_owned()));
    let replica = |line: &str| Some(format!("{}:{}", field(line, "ip=")?, field(line, "port=")?));
    match info.lines().find_map(|line| line.strip_prefix("role:"))? {
        "master" => {
            Some((Role::Primary, info.lines().filter(|line| line.starts_with("slave")).filter_map(replica).collect()))
        }
        _ => Some((Role::Replica, Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_names_the_replicas_of_a_primary() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n\
                    slave0:ip=::1,port=7001,state=online,offset=14,lag=0,type=replica\r\nmaster_replid:0\r\n";
        assert_eq!(of_info(info), Some((Role::Primary, vec!["::1:7001".to_owned()])));
        assert_eq!(of_info("role:slave\r\nmaster_host:a\r\n"), Some((Role::Replica, Vec::new())));
        assert_eq!(of_info("# Replication"), None);
    }
}
