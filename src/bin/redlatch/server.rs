//! Which server is meant, the password for it, and the connection.

use std::{
    env::VarError,
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    sync::Once,
    time::Duration,
};

use redlatch::{
    Client, ClientBuilder, Error, ErrorKind, Event, Name, Namespace,
    call::{Caller, Endpoint},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    opt::Global,
    outcome::{Cause, Failure},
    output::say,
    rights::Role,
};

const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

impl Global {
    /// A connection that runs scripts and loads none by itself, for work that takes the rights of `role`.
    pub async fn caller(&self, role: Role) -> Result<Caller, Failure> {
        Caller::connect(&self.operators()?.of_role(Some(role.word())), self.timeout, true, |_| {})
            .await
            .map_err(unconnected)
    }

    /// As [`caller`](Self::caller) for a caller, but a script that is missing is loaded on the way.
    pub async fn healing_caller(&self) -> Result<Caller, Failure> {
        self.healing_caller_as(Role::Caller).await
    }

    /// As [`healing_caller`](Self::healing_caller), for work that takes the rights of `role`.
    pub async fn healing_caller_as(&self, role: Role) -> Result<Caller, Failure> {
        let endpoint = self.operators()?.of_role(Some(role.word()));
        let caller = Caller::connect(&endpoint, self.timeout, false, |_| {}).await.map_err(unconnected)?;
        self.tell_of_server(&caller).await;
        Ok(caller)
    }

    /// As [`endpoint`](Self::endpoint), for connections that are not to be counted among those of callers.
    fn operators(&self) -> Result<Endpoint, Failure> {
        Ok(self.endpoint()?.introduced_as("redlatch-cli"))
    }

    /// A client whose leases are `ttl` long and bear `label`, and what it has to tell. Outside what is wrong with the
    /// connection, inside what is wrong with the settings.
    pub async fn connect(
        &self,
        ttl: Duration,
        label: &str,
    ) -> Result<Result<(Client, UnboundedReceiver<Event>), Failure>, Error> {
        let endpoint = match self.key_of(OsStr::new("-")).and_then(|_| self.endpoint()) {
            Ok(endpoint) => endpoint,
            Err(failure) => return Ok(Err(failure)),
        };
        let (events, heard) = unbounded_channel();
        let builder: ClientBuilder = Client::builder().namespace(&self.namespace).timeout(self.timeout);
        let builder = builder.ttl(ttl).label(label).events(events);
        Ok(Ok((builder.connect_to(&endpoint).await?, heard)))
    }

    /// A name from the command line, and the key that stands for it.
    pub fn key_of(&self, name: &OsStr) -> Result<(Name, Vec<u8>), Failure> {
        let name = Name::new(name.as_bytes())?;
        let key = Namespace::new(&self.namespace)?.mutex_key(&name);
        Ok((name, key))
    }

    /// The address that is meant, without user and password, as far as it is known.
    pub fn node(&self) -> Option<String> {
        Some(self.address().ok()?.to_string())
    }

    /// The servers that are meant, with password and certificates.
    pub fn endpoint(&self) -> Result<Endpoint, Failure> {
        let mut endpoint = self.address()?;
        if let Some(password) = self.password()? {
            endpoint = endpoint.password(&password);
        }
        if let Some(path) = &self.tls_ca {
            endpoint = endpoint.tls_ca(&read(path)?).map_err(|error| misconfigured(&error))?;
        }
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            endpoint = endpoint.tls_cert(&read(cert)?, &read(key)?).map_err(|error| misconfigured(&error))?;
        }
        Ok(endpoint)
    }

    fn address(&self) -> Result<Endpoint, Failure> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => match variable("REDLATCH_URL")? {
                Some(url) => url,
                None => variable("REDIS_URL")?.unwrap_or_else(|| DEFAULT_URL.to_owned()),
            },
        };
        if self.url.is_some() && parse(&url)?.has_password() {
            return Err(Failure::new(
                Cause::Configuration,
                "--url has a password, which every user of this machine can read",
            )
            .hint("put the URL into REDLATCH_URL, or the password into REDLATCH_PASSWORD or a --password-file"));
        }
        parse(&self.of_topology(&url)?)
    }

    /// The URL with what --cluster, --sentinel and --master say.
    fn of_topology(&self, url: &str) -> Result<String, Failure> {
        if !self.cluster && self.sentinel.is_empty() {
            return Ok(url.to_owned());
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(misplaced)?;
        if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(misplaced());
        }
        let Some(primary) = self.master.as_ref().filter(|_| !self.sentinel.is_empty()) else {
            return Ok(format!("{scheme}+cluster://{rest}"));
        };
        // Of the URL only user, password and database count: the sentinels know where the primary is.
        let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
        let login = authority.rfind('@').map_or("", |at| &authority[..=at]);
        Ok(format!("{scheme}+sentinel://{login}{}/{primary}/{db}", self.sentinel.join(",")))
    }

    fn password(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.password_file else {
            return variable("REDLATCH_PASSWORD");
        };
        let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, "read", &error))?;
        self.warn_of_readers(path);
        match text.lines().next() {
            None | Some("") => {
                Err(Failure::new(Cause::Configuration, format!("{path:?} has no password in its first line")))
            }
            Some(password) => Ok(Some(password.to_owned())),
        }
    }

    /// A password that every user of the machine can read is none.
    fn warn_of_readers(&self, path: &Path) {
        static SAID: Once = Once::new();
        let others = std::fs::metadata(path).map_or(0, |file| file.permissions().mode() & 0o044);
        if others != 0 && !self.quiet {
            SAID.call_once(|| say(&format!("{path:?} has a password and others can read it, run chmod 600 on it")));
        }
    }
}

/// A setting from the environment. One that says nothing is a mistake, as a secret that a pipeline lacks: without it
/// another server would be meant.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    let wrong = |what| Failure::new(Cause::Configuration, format!("{name} is {what}"));
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Err(wrong("empty").hint(format!("give {name} a value, or unset it"))),
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(wrong("not UTF-8").hint("bytes of a URL may be written as %XX")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::file(path, "read", &error))
}

fn parse(url: &str) -> Result<Endpoint, Failure> {
    Endpoint::parse(url)
        .map_err(|error| misconfigured(&error).hint("it comes from --url, REDLATCH_URL or REDIS_URL, in this order"))
}

fn misplaced() -> Failure {
    Failure::new(Cause::Configuration, "--cluster and --sentinel need a URL that begins with redis:// or rediss://")
}

/// Why there is no connection. What the library calls invalid then is the URL or a certificate.
pub fn unconnected(error: Error) -> Failure {
    if error.kind() == ErrorKind::Invalid { misconfigured(&error) } else { error.into() }
}

fn misconfigured(error: &Error) -> Failure {
    Failure::new(Cause::Configuration, error.to_string())
}
