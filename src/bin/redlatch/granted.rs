//! Whether a user has rights: by ACL DRYRUN, and where that is not to be had by asking as that user.

use redlatch::{Error, call::Caller};

use crate::{
    ask::{Withheld, is_absent},
    outcome::{Cause, Failure},
    output::escaped,
    rights::{Object, Right, Role, grant_to_ask},
};

/// How many words a command takes at least is known to the server alone.
const MOST_WORDS: usize = 8;

/// Whether a user has a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    Granted,
    /// It lacks the command itself, or only the key or channel; `None` when the server does not tell which.
    Denied(Option<Object>),
    /// The server does not tell.
    Unknown,
}

/// Why nothing can be said of a user's rights.
pub enum Untold {
    /// There is no such user.
    NoUser,
    /// The server does not tell of others.
    Withheld(Withheld),
    /// Something went wrong.
    Trouble(Error),
}

impl From<Error> for Untold {
    fn from(error: Error) -> Self {
        Self::Trouble(error)
    }
}

impl Untold {
    /// The failure of a verb that cannot do without.
    pub fn failure(self, user: &str, node: &str) -> Failure {
        let user = escaped(user.as_bytes());
        let alone = "let the user ask for itself: put its own URL into REDLATCH_URL";
        match self {
            Self::NoUser => Failure::new(Cause::Configuration, format!("there is no user {user} on {node}")),
            Self::Withheld(Withheld::Denied) => {
                Failure::new(Cause::Denied, format!("{node} does not tell the rights of {user}: ACL DRYRUN is denied"))
                    .hint(format!("{}; or {alone}", grant_to_ask("ACL DRYRUN", Role::Deployer)))
            }
            Self::Withheld(Withheld::Absent) => Failure::new(
                Cause::Configuration,
                format!("{node} does not tell the rights of {user}: it has no ACL DRYRUN, which came with Redis 7.0"),
            )
            .hint(alone),
            Self::Trouble(error) => error.into(),
        }
    }
}

/// Whether the server lets `user` use each of `rights`.
pub async fn granted(caller: &Caller, user: &str, rights: &[Right]) -> Result<Vec<Grant>, Untold> {
    let mut granted = Vec::new();
    for right in rights {
        granted.push(match dry_run(caller, user, right).await {
            Err(Untold::Withheld(_)) if caller.endpoint().user() == user => by_asking(caller, right).await?,
            told => told?,
        });
    }
    Ok(granted)
}

/// What ACL DRYRUN says.
async fn dry_run(caller: &Caller, user: &str, right: &Right) -> Result<Grant, Untold> {
    for filler in 0..MOST_WORDS {
        let mut command = redis::cmd("ACL");
        command.arg("DRYRUN").arg(user).arg(&right.probe).arg(vec!["1"; filler]);
        match caller.command(&command, || "ACL DRYRUN".to_owned()).await {
            Ok(reply) => {
                return Ok(redis::from_redis_value(reply).map_or(Grant::Unknown, |words: String| Grant::said(&words)));
            }
            Err(error) if error.code() == Some("NOPERM") => return Err(Untold::Withheld(Withheld::Denied)),
            Err(error) if is_absent(&error) => return Err(Untold::Withheld(Withheld::Absent)),
            Err(error) if error.to_string().contains("wrong number of arguments") => {}
            // It knows either the command or the user not; ACL it has shown to know.
            Err(error) if error.code() == Some("ERR") => {
                let mut command = redis::cmd("ACL");
                command.arg("DRYRUN").arg(user).arg("ACL").arg("WHOAMI");
                let known = caller.command(&command, || "ACL DRYRUN".to_owned()).await.is_ok();
                return if known { Ok(Grant::Unknown) } else { Err(Untold::NoUser) };
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Grant::Unknown)
}

impl Grant {
    /// The words of ACL DRYRUN.
    fn said(words: &str) -> Self {
        match words {
            "OK" => Self::Granted,
            _ if words.ends_with(" key") => Self::Denied(Some(Object::Key)),
            _ if words.ends_with(" channel") => Self::Denied(Some(Object::Channel)),
            _ => Self::Denied(Some(Object::Nothing)),
        }
    }
}

/// Tries the command in a way that changes nothing. The server looks at rights before anything else.
async fn by_asking(caller: &Caller, right: &Right) -> Result<Grant, Error> {
    let outcome = match right.command.as_str() {
        "subscribe" => match caller.subscribe(&right.probe[1]).await {
            Ok(false) => return Ok(Grant::Denied(None)),
            outcome => outcome.map(|_| ()),
        },
        _ => {
            let mut command = redis::Cmd::new();
            command.arg(&right.harmless);
            caller.command(&command, || right.command.to_uppercase()).await.map(|_| ())
        }
    };
    match outcome {
        Ok(()) => Ok(Grant::Granted),
        Err(error) if error.code() == Some("NOPERM") => {
            let of = match error.lacks().and_then(|rule| rule.chars().next()) {
                Some('~') => Object::Key,
                Some('&') => Object::Channel,
                _ => Object::Nothing,
            };
            Ok(Grant::Denied(Some(of)))
        }
        Err(error) if is_absent(&error) => Ok(Grant::Unknown),
        Err(error) if error.code().is_some() => Ok(Grant::Granted),
        Err(error) => Err(error),
    }
}
