//! The environment of the command of `run`: what its lease adds, what it does not get, and what a `run` within learns
//! from it.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use redlatch::{Client, Lease, Name};
use serde_json::json;

use crate::{
    child::Variable,
    outcome::{Outcome, Problem, Verdict},
    output::{base64_of, text_of},
};

const URL: &str = "REDLATCH_URL";
const PASSWORD: &str = "REDLATCH_PASSWORD";
/// The leases of this command and of those around it: fence, space, key; a line each. Names have no line ends.
const HELD: &str = "REDLATCH_HELD";

/// What the command finds in its environment, or does not find.
pub fn of_command(client: &Client, lease: &Lease, with_passwords: bool) -> Vec<Variable> {
    let (name, fence) = (lease.name().as_bytes(), lease.fence().to_string());
    let mut held = env::var_os(HELD).unwrap_or_default().into_vec();
    held.extend_from_slice(format!("{fence} ").as_bytes());
    held.extend_from_slice(&client.namespace().mutex_key(lease.name()));
    held.push(b'\n');
    let mut variables = vec![
        ("REDLATCH_NAME", Some(OsStr::from_bytes(name).to_owned())),
        ("REDLATCH_FENCE", Some(fence.into())),
        (HELD, Some(OsString::from_vec(held))),
    ];
    if !with_passwords {
        variables.push((PASSWORD, None));
        // What is no text is no URL, and might hold anything.
        variables.push((URL, env::var(URL).ok().map(|url| without_password(&url).into())));
    }
    variables
}

/// The URL, whatever it is, without what stands between the user and the last `@`, and without passwords behind the `?`.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, _)| url.split_at(scheme.len() + 3));
    let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    let user = login.split(':').next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query: Vec<_> = query.split('&').filter(|part| !part.is_empty() && !part.contains("password=")).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{scheme}{user}{at}{address}{mark}{}", query.join("&"))
}

/// The answer when the name is held by a `run` around this one: it will not be free before this one has ended. A server
/// that does not answer decides nothing.
pub async fn refuse_to_wait_for_ourselves(client: &Client, name: &Name, exit_code: u8) -> Option<Outcome> {
    let key = client.namespace().mutex_key(name);
    let held = env::var_os(HELD)?.into_vec();
    let fences: Vec<_> = held
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(key.as_slice())?.strip_suffix(b" "))
        .collect();
    if fences.is_empty() {
        return None;
    }
    // The same name on another server, or a lease that was lost, is another matter.
    let lock = client.caller().inspect(&key, 0).await.ok()?;
    let fence = lock.fence.to_string();
    if !lock.held || !fences.contains(&fence.as_bytes()) {
        return None;
    }
    let message =
        format!("{name} is held by the `redlatch run` that this command runs under: the wait would never end");
    let data = json!({ "name": text_of(name.as_bytes()), "name_base64": base64_of(name.as_bytes()), "held": false, "fence": fence });
    Some(Outcome::new("", data).verdict(Verdict::Held(exit_code)).problem(Problem::new("held", message)))
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[track_caller]
    fn assert_inherits(url: &str, inherited: &str) {
        assert_eq!(without_password(url), inherited);
    }

    #[test]
    fn a_url_is_inherited_without_its_passwords() {
        for same in
            ["redis://a", "rediss://user@a:1/2", "unix:///run/redis.sock", "redis+cluster://a,b:2", "", "nonsense"]
        {
            assert_inherits(same, same);
        }
        assert_inherits("redis://:secret@a:1/2", "redis://a:1/2");
        assert_inherits("redis://user:secret@a:1/2", "redis://user@a:1/2");
        assert_inherits("redis://user:s/e:c@r#t?@a:1", "redis://user@a:1");
        assert_inherits(
            "redis+sentinel://u:s@a,b/orders/2?sentinel_user=w&sentinel_password=x",
            "redis+sentinel://u@a,b/orders/2?sentinel_user=w",
        );
    }
}
