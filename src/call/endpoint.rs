//! Which servers are meant, and how to log in to them.

use std::fmt;

use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisResult, TlsCertificates,
};

use super::{misdirected, refusal::Login};
use crate::Error;

const FORMS: &str = "write redis://[USER@]HOST[:PORT][/DB], unix:///PATH, redis+sentinel://HOST[:PORT],…/NAME or \
                     redis+cluster://HOST[:PORT],…; rediss for TLS";
const SENTINEL_PORT: &str = ":26379";

/// One server, the primary that sentinels watch, or a cluster; with user, password and certificates.
///
/// Parsed from a URL:
///
/// - `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `unix:///PATH`: one server;
/// - `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/NAME[/DB]`: the primary `NAME` of these sentinels, which are asked
///   anew after every switch; `?sentinel_user=` and `?sentinel_password=` log in to the sentinels themselves;
/// - `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…`: the Redis Cluster that these nodes belong to.
///
/// `rediss` instead of `redis` means TLS, to sentinels too. Certificates and host names are always checked, against the
/// system's authorities or those of [`tls_ca`](Self::tls_ca).
///
/// ```
/// use redlatch::call::Endpoint;
///
/// let endpoint = Endpoint::parse("rediss+sentinel://app:secret@10.0.0.1,10.0.0.2/orders")?;
/// assert_eq!(endpoint.to_string(), "orders of 10.0.0.1:26379,10.0.0.2:26379");
/// # Ok::<(), redlatch::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) topology: Topology,
    settings: RedisConnectionInfo,
    tls: bool,
    certificates: TlsCertificates,
    role: Option<&'static str>,
}

/// How the servers belong together.
#[derive(Clone, Debug)]
pub(super) enum Topology {
    Single(ConnectionAddr),
    Sentinel { sentinels: Vec<ConnectionAddr>, primary: String, login: RedisConnectionInfo },
    Cluster { seeds: Vec<ConnectionAddr> },
}

impl Endpoint {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is not one of the forms above. The message does not repeat it.
    pub fn parse(url: &str) -> Result<Self, Error> {
        if let Some(mistake) = misdirected::mistake(url) {
            return Err(Error::invalid(mistake));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(not_understood)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        match (base, kind) {
            ("redis" | "rediss" | "valkey" | "valkeys", "sentinel") => Self::sentinel(base, rest),
            ("redis" | "rediss" | "valkey" | "valkeys", "cluster") => Self::cluster(base, rest),
            _ => Ok(Self::of(&parse(url)?, |address| Topology::Single(address.clone()))),
        }
    }

    fn of(info: &ConnectionInfo, topology: impl FnOnce(&ConnectionAddr) -> Topology) -> Self {
        Self {
            topology: topology(info.addr()),
            settings: settings(info.redis_settings().clone()),
            tls: matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
            certificates: TlsCertificates { client_tls: None, root_cert: None },
            role: Some("caller"),
        }
    }

    fn sentinel(scheme: &str, rest: &str) -> Result<Self, Error> {
        let parts = Parts::of(rest, SENTINEL_PORT);
        let (name, db) = parts.path.split_once('/').unwrap_or((parts.path, ""));
        if name.is_empty() {
            return Err(Error::invalid("the URL does not name the primary that the sentinels watch, write …/NAME"));
        }
        let mut login = RedisConnectionInfo::default();
        for (key, value) in url::form_urlencoded::parse(parts.query.as_bytes()) {
            login = match key.as_ref() {
                "sentinel_user" => login.set_username(value),
                "sentinel_password" => login.set_password(value),
                _ => return Err(not_understood()),
            };
        }
        let infos = parts.infos(scheme, db)?;
        let sentinels = infos.iter().map(|info| info.addr().clone()).collect();
        let first = infos.first().ok_or_else(not_understood)?;
        Ok(Self::of(first, |_| Topology::Sentinel { sentinels, primary: name.to_owned(), login: settings(login) }))
    }

    fn cluster(scheme: &str, rest: &str) -> Result<Self, Error> {
        let parts = Parts::of(rest, "");
        if !matches!(parts.path, "" | "0") || !parts.query.is_empty() {
            return Err(not_understood());
        }
        let infos = parts.infos(scheme, "")?;
        let seeds = infos.iter().map(|info| info.addr().clone()).collect();
        Ok(Self::of(infos.first().ok_or_else(not_understood)?, |_| Topology::Cluster { seeds }))
    }

    /// The same with this password.
    pub fn password(mut self, password: &str) -> Self {
        self.settings = self.settings.set_password(password);
        self
    }

    /// Whether there is a password.
    pub fn has_password(&self) -> bool {
        let of_sentinels = match &self.topology {
            Topology::Sentinel { login, .. } => login.password().is_some(),
            Topology::Single(_) | Topology::Cluster { .. } => false,
        };
        self.settings.password().is_some() || of_sentinels
    }

    /// Whether a user is named without whom the server could not know it: it would serve the default user instead.
    pub fn lacks_password(&self) -> bool {
        self.settings.username().is_some_and(|user| !user.is_empty()) && self.settings.password().is_none()
    }

    /// The same, trusting only the certificate authorities in `pem`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the URL is not one for TLS, or `pem` is not PEM.
    pub fn tls_ca(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.certificates.root_cert = Some(pem.to_vec());
        self.checked("the certificate authority")
    }

    /// The same, showing servers the certificate in `cert` with its private `key`, both PEM.
    ///
    /// # Errors
    ///
    /// As [`tls_ca`](Self::tls_ca).
    pub fn tls_cert(mut self, cert: &[u8], key: &[u8]) -> Result<Self, Error> {
        self.certificates.client_tls = Some(ClientTlsConfig { client_cert: cert.to_vec(), client_key: key.to_vec() });
        self.checked("the certificate or its key")
    }

    fn checked(self, what: &str) -> Result<Self, Error> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        if !self.tls {
            return Err(Error::invalid("certificates are for TLS, write rediss:// instead of redis://"));
        }
        let has_certificate = |pem: &[u8]| matches!(CertificateDer::pem_slice_iter(pem).next(), Some(Ok(_)));
        let ca = self.certificates.root_cert.as_ref().is_none_or(|pem| has_certificate(pem));
        let own = self.certificates.client_tls.as_ref().is_none_or(|tls| {
            has_certificate(&tls.client_cert) && PrivateKeyDer::from_pem_slice(&tls.client_key).is_ok()
        });
        if ca && own { Ok(self) } else { Err(Error::invalid(format!("{what} is not PEM"))) }
    }

    /// What the redis crate needs to connect to the one server of this endpoint; `None` for sentinels and clusters, and
    /// with certificates.
    pub fn connection_info(&self) -> Option<ConnectionInfo> {
        match &self.topology {
            Topology::Single(address @ (ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_))) => {
                let info = address.clone().into_connection_info().ok()?;
                Some(info.set_redis_settings(self.settings.clone()))
            }
            Topology::Single(_) | Topology::Sentinel { .. } | Topology::Cluster { .. } => None,
        }
    }

    /// Whether connections are encrypted.
    pub(super) fn has_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster { .. })
    }

    /// Whether sentinels say where its primary is.
    pub fn has_sentinels(&self) -> bool {
        matches!(self.topology, Topology::Sentinel { .. })
    }

    /// The user that is logged in to the servers.
    pub fn user(&self) -> &str {
        self.settings.username().unwrap_or("default")
    }

    /// The number of the database that is selected.
    pub fn database(&self) -> i64 {
        self.settings.db()
    }

    /// The same, with connections that servers list under the name of `program` instead of `redlatch`: an operator's own
    /// are not those of a caller.
    pub fn introduced_as(mut self, program: &str) -> Self {
        self.settings = self.settings.set_lib_name(program, env!("CARGO_PKG_VERSION"));
        self
    }

    /// The same for a user who is to have the rights that `redlatch acl print` prints for `role`, `None` for none of
    /// them: an error about a right that is missing names it. A caller otherwise.
    pub fn of_role(mut self, role: Option<&'static str>) -> Self {
        self.role = role;
        self
    }

    /// The same for a caller that loads no scripts.
    pub(super) fn of_strict(self) -> Self {
        let role = self.role.map(|role| if role == "caller" { "strict" } else { role });
        self.of_role(role)
    }

    pub(super) fn login(&self) -> Login {
        Login::of(self.user(), self.role)
    }

    /// The same login for one server of this endpoint, given as `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when that is not an address.
    pub fn server(&self, address: &str) -> Result<Self, Error> {
        let address = self.address(address).ok_or_else(not_understood)?;
        Ok(Self { topology: Topology::Single(address), ..self.clone() })
    }

    /// `HOST:PORT` as an address that is connected to like the others.
    pub(super) fn address(&self, text: &str) -> Option<ConnectionAddr> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = port.parse().ok()?;
        Some(if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        })
    }

    /// What connects to the server at `address`.
    pub(super) fn client(&self, address: ConnectionAddr) -> RedisResult<redis::Client> {
        self.open(address, self.settings.clone())
    }

    /// What connects to the sentinel at `address`.
    pub(super) fn sentinel_client(
        &self,
        address: ConnectionAddr,
        login: &RedisConnectionInfo,
    ) -> RedisResult<redis::Client> {
        self.open(address, login.clone())
    }

    fn open(&self, address: ConnectionAddr, settings: RedisConnectionInfo) -> RedisResult<redis::Client> {
        let info = address.into_connection_info()?;
        // Without nodelay a command waits for the acknowledgement of the one before.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        if self.tls {
            // A program that uses rustls too may have chosen another provider, which then counts.
            let _ = rustls::crypto::ring::default_provider().install_default();
            redis::Client::build_with_tls(info, self.certificates.clone())
        } else {
            redis::Client::open(info)
        }
    }
}

/// Without user and password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |addresses: &[ConnectionAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.topology {
            Topology::Single(address) => address.fmt(f),
            Topology::Sentinel { sentinels, primary, .. } => {
                write!(f, "{} of {}", primary.escape_debug(), list(sentinels))
            }
            Topology::Cluster { seeds } => f.write_str(&list(seeds)),
        }
    }
}

/// What follows the scheme of a URL with several hosts.
struct Parts<'a> {
    login: &'a str,
    hosts: Vec<String>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str, default_port: &str) -> Self {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let with_port = |host: &str| {
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            if has_port { host.to_owned() } else { format!("{host}{default_port}") }
        };
        Self { login, hosts: hosts.split(',').map(with_port).collect(), path, query }
    }

    /// Each host as if it stood alone.
    fn infos(&self, scheme: &str, db: &str) -> Result<Vec<ConnectionInfo>, Error> {
        self.hosts.iter().map(|host| parse(&format!("{scheme}://{}{host}/{db}", self.login))).collect()
    }
}

fn settings(settings: RedisConnectionInfo) -> RedisConnectionInfo {
    settings.set_protocol(ProtocolVersion::RESP3).set_lib_name("redlatch", env!("CARGO_PKG_VERSION"))
}

fn parse(url: &str) -> Result<ConnectionInfo, Error> {
    url.into_connection_info().map_err(|_| not_understood())
}

fn not_understood() -> Error {
    Error::invalid(format!("the URL is not understood, {FORMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_is(url: &str, shown: &str) {
        let endpoint = Endpoint::parse(url).unwrap();
        assert_eq!(endpoint.to_string(), shown);
        assert!(!format!("{endpoint:?}").contains("s%cret"), "{endpoint:?}");
    }

    #[track_caller]
    fn assert_refused(url: &str) {
        let error = Endpoint::parse(url).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn urls_of_every_topology_are_understood() {
        assert_is("redis://example.org", "example.org:6379");
        assert_is("rediss://app:s%25cret@example.org:7000/3", "example.org:7000");
        assert_is("unix:///run/redis.sock", "/run/redis.sock");
        assert_is("redis+sentinel://a,b:7,[::1]:8/orders", "orders of a:26379,b:7,::1:8");
        assert_is("redis+sentinel://u:s%25cret@a/orders/2?sentinel_password=s%25cret", "orders of a:26379");
        assert_is("rediss+cluster://u:p%40ss@a:1,b", "a:1,b:6379");
    }

    #[test]
    fn a_url_that_is_not_understood_is_not_repeated() {
        assert_refused("s3cret");
        assert_refused("http://s3cret@host");
        assert_refused("redis+sentinel://:s3cret@host");
        assert_refused("redis+sentinel://:s3cret@host/name?x=s3cret");
        assert_refused("redis+cluster://:s3cret@host/4");
        assert_refused("redis+cluster://:s3cret@/");
        assert_refused("rediss://:s3cret@host#insecure");
        assert_refused("redis+other://:s3cret@host");
    }

    #[test]
    fn the_login_of_the_servers_is_not_that_of_the_sentinels() {
        let endpoint =
            Endpoint::parse("redis+sentinel://u:p%40ss@a/orders/2?sentinel_user=w&sentinel_password=x").unwrap();
        assert_eq!(endpoint.settings.username(), Some("u"));
        assert_eq!(endpoint.settings.password(), Some("p@ss"));
        assert_eq!(endpoint.settings.db(), 2);
        let Topology::Sentinel { login, .. } = endpoint.topology else { panic!("not a sentinel") };
        assert_eq!((login.username(), login.password()), (Some("w"), Some("x")));
    }

    #[test]
    fn a_command_does_not_wait_for_the_acknowledgement_of_the_one_before() {
        let endpoint = Endpoint::parse("redis://a").unwrap();
        let client = endpoint.client(endpoint.address("a:1").unwrap()).unwrap();
        assert!(client.get_connection_info().tcp_settings().nodelay());
    }

    #[test]
    fn certificates_need_tls_and_must_be_pem() {
        let refused = |url: &str| Endpoint::parse(url).unwrap().tls_ca(b"no").unwrap_err().to_string();
        assert_eq!(refused("redis://host"), "certificates are for TLS, write rediss:// instead of redis://");
        assert_eq!(refused("rediss://host"), "the certificate authority is not PEM");
    }
}
