//! Which server is meant, the password for it, and the connection.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Duration};

use redis::{ConnectionInfo, IntoConnectionInfo};
use redlatch::{Client, ClientBuilder, Name, Namespace, call::Caller};
use url::Url;

use crate::{
    opt::Global,
    outcome::{Cause, Failure},
};

const DEFAULT_URL: &str = "redis://127.0.0.1:6379";
const FORMS: &str = "write redis://[USER@]HOST[:PORT][/DB] or unix:///PATH";

impl Global {
    /// A connection that runs scripts and loads none by itself.
    pub async fn caller(&self) -> Result<Caller, Failure> {
        Ok(Caller::connect(&self.full_url()?, self.timeout, true, |_| {}).await?)
    }

    /// As [`caller`](Self::caller), but a script that the server lacks is loaded on the way.
    pub async fn healing_caller(&self) -> Result<Caller, Failure> {
        Ok(Caller::connect(&self.full_url()?, self.timeout, false, |_| {}).await?)
    }

    /// A client whose leases are `ttl` long.
    pub async fn client(&self, ttl: Duration) -> Result<Client, Failure> {
        self.key_of(OsStr::new("-"))?;
        let builder: ClientBuilder = Client::builder().namespace(&self.namespace).timeout(self.timeout).ttl(ttl);
        Ok(builder.connect(&self.full_url()?).await?)
    }

    /// A name from the command line, and the key that stands for it.
    pub fn key_of(&self, name: &OsStr) -> Result<(Name, Vec<u8>), Failure> {
        let name = Name::new(name.as_bytes())?;
        let key = Namespace::new(&self.namespace)?.mutex_key(&name);
        Ok((name, key))
    }

    /// The server's address without user and password, as far as it is known.
    pub fn node(&self) -> Option<String> {
        Some(parse(&self.plain_url().ok()?).ok()?.addr().to_string())
    }

    /// The URL as it was given.
    fn plain_url(&self) -> Result<String, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
        let Some(url) = &self.url else {
            let from_environment = variable("REDLATCH_URL").or_else(|| variable("REDIS_URL"));
            return Ok(from_environment.unwrap_or_else(|| DEFAULT_URL.to_owned()));
        };
        if parse(url)?.redis_settings().password().is_some() {
            return Err(Failure::new(
                Cause::Configuration,
                "--url has a password, which every user of this machine can read",
            )
            .hint("put the URL into REDLATCH_URL, or the password into REDLATCH_PASSWORD or a --password-file"));
        }
        Ok(url.clone())
    }

    /// The URL with the password in it.
    /// The URL with the password.
    pub fn full_url(&self) -> Result<String, Failure> {
        let plain = self.plain_url()?;
        parse(&plain)?;
        let Some(password) = self.password()? else { return Ok(plain) };
        let mut url = Url::parse(&plain).map_err(|_| not_understood())?;
        if matches!(url.scheme(), "unix" | "redis+unix" | "valkey+unix") {
            let others: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(key, _)| key != "pass")
                .map(|(key, value)| (key.into(), value.into()))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(others).append_pair("pass", &password);
        } else {
            // The URL's own encoding takes `%` for the start of an encoded byte.
            url.set_password(Some(&password.replace('%', "%25"))).map_err(|()| not_understood())?;
        }
        Ok(url.into())
    }

    fn password(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.password_file else {
            return Ok(std::env::var("REDLATCH_PASSWORD").ok().filter(|password| !password.is_empty()));
        };
        let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, "read", &error))?;
        match text.lines().next() {
            None | Some("") => {
                Err(Failure::new(Cause::Configuration, format!("{path:?} has no password in its first line")))
            }
            Some(password) => Ok(Some(password.to_owned())),
        }
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, Failure> {
    url.into_connection_info().map_err(|_| not_understood())
}

fn not_understood() -> Failure {
    Failure::new(Cause::Configuration, format!("the URL is not understood, {FORMS}"))
        .hint("it comes from --url, REDLATCH_URL or REDIS_URL, in this order")
}
