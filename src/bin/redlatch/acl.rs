//! `redlatch acl`: the least rights that a user needs, and whether a user has them.

use clap::{Args, Subcommand};
use redlatch::{Error, call::Caller};
use serde_json::json;

use crate::{
    fleet::{Answer, failure_of_all},
    granted::{Grant, Untold, granted},
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{bad, escaped, good},
    product::{Hello, Version},
    rights::{Object, Right, Role, Wanted},
    table::table,
};

/// What to do with rights.
#[derive(Subcommand)]
pub enum AclVerb {
    /// Print rules for ACL SETUSER
    ///
    /// For instance: redis-cli ACL SETUSER app on '>password' $(redlatch acl print caller)
    Print(AclPrintOptions),
    /// Ask the servers whether a user has the rights
    ///
    /// By ACL DRYRUN, or as that user where there is none.
    Check(AclCheckOptions),
}

/// Options of both.
#[derive(Args)]
pub struct AclOptions {
    /// What the user does
    #[arg(default_value = "caller")]
    pub role: Role,
    /// Keys of plain locks, as patterns of Redis
    ///
    /// With * ? and []; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub plain: Vec<String>,
}

/// Options of `acl print`.
#[derive(Args)]
pub struct AclPrintOptions {
    /// What the user does.
    #[command(flatten)]
    pub grants: AclOptions,
    /// Version of the server that is to take the rules [default: the server is asked]
    #[arg(long = "for", value_name = "VERSION")]
    pub version: Option<Version>,
}

/// Options of `acl check`.
#[derive(Args)]
pub struct AclCheckOptions {
    /// The user
    pub user: String,
    /// What it is to be able to do.
    #[command(flatten)]
    pub grants: AclOptions,
}

/// Prints rules or checks a user.
pub async fn acl(verb: &AclVerb, global: &Global) -> Result<Outcome, Failure> {
    match verb {
        AclVerb::Print(options) => print(options, global).await,
        AclVerb::Check(options) => check(options, global).await,
    }
}

/// Each version knows other commands, and refuses rules with those that it does not know.
async fn print(options: &AclPrintOptions, global: &Global) -> Result<Outcome, Failure> {
    let wanted = options.grants.wanted(global)?;
    let (version, note) = match &options.version {
        Some(version) => (version.clone(), None),
        None => match asked(global).await {
            Ok(version) => (version, None),
            Err(failure) => {
                let why = failure.problem.message;
                let note = format!("these rules are for Redis 7.0, because no server was asked ({why}); see --for");
                (oldest(), Some(note))
            }
        },
    };
    let rules = wanted.rules(&version)?;
    let data = json!({ "role": options.grants.role.word(), "for": version.to_string(), "rules": rules });
    let outcome = Outcome::new(rules.join(" ") + "\n", data);
    Ok(match note {
        Some(note) => outcome.note(note),
        None => outcome,
    })
}

/// The version whose rules every server takes.
pub fn oldest() -> Version {
    Version::new(7, 0)
}

async fn asked(global: &Global) -> Result<Version, Failure> {
    Ok(version_of(&global.caller(Role::Deployer).await?).await?)
}

/// The version of `caller`'s server, as far as it tells.
async fn version_of(caller: &Caller) -> Result<Version, Error> {
    let product = Hello::of(caller).await?.product;
    Ok(product.map_or_else(oldest, |product| product.version))
}

/// What a server says of each right.
type Rights = Vec<(Right, Grant)>;

/// Asks every server, because each has users of its own.
async fn check(options: &AclCheckOptions, global: &Global) -> Result<Outcome, Failure> {
    let (user, wanted) = (options.user.clone(), options.grants.wanted(global)?);
    let named = wanted.clone();
    let ask = move |caller: Caller| {
        let (user, wanted) = (user.clone(), wanted.clone());
        async move {
            let node = caller.endpoint().to_string();
            rights_of(&caller, &user, &wanted).await.map_err(|untold| untold.failure(&user, &node))
        }
    };
    let mut answers = global.on_each(global.servers(Role::Deployer).await?, ask).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let mut rows = Vec::new();
    let mut list = Vec::new();
    let mut problems: Vec<_> = answers.iter().filter_map(Answer::problem).collect();
    for answer in &answers {
        let Ok(rights) = &answer.outcome else { continue };
        let node = &answer.server.address;
        for (right, granted) in rights {
            let (word, shown) = match granted {
                Grant::Granted => ("granted", good("granted")),
                Grant::Denied(_) => ("denied", bad("denied")),
                Grant::Unknown if right.spare => ("absent", "absent".to_owned()),
                Grant::Unknown => ("unknown", bad("unknown")),
            };
            rows.push([node.clone(), right.command.clone(), shown]);
            list.push(json!({ "node": node, "command": right.command, "state": word }));
            if !matches!(word, "granted" | "absent") {
                let problem = lacks(&options.user, right, *granted, &named, node);
                // A pattern that is missing is missing for every command.
                if !problems
                    .iter()
                    .any(|said: &Problem| (&said.node, &said.message) == (&problem.node, &problem.message))
                {
                    problems.push(problem);
                }
            }
        }
    }
    let different = !problems.is_empty();
    let data = json!({ "user": options.user, "role": options.grants.role.word(), "rights": list });
    let outcome = Outcome::new(table(&["SERVER", "COMMAND", "STATE"], &rows), data).rows("rights");
    let outcome = problems.into_iter().fold(outcome, Outcome::problem);
    Ok(if different { outcome.verdict(Verdict::Different) } else { outcome })
}

fn lacks(user: &str, right: &Right, granted: Grant, wanted: &Wanted, node: &str) -> Problem {
    let user = escaped(user.as_bytes());
    let command = right.command.replace('|', " ").to_uppercase();
    let problem = match granted {
        Grant::Denied(lacks) => {
            let (rules, role) = (wanted.rules_for(right, lacks).join(" "), wanted.role.word());
            let what = match lacks {
                Some(Object::Key) => format!("use the keys {rules}"),
                Some(Object::Channel) => format!("use the channels {rules}"),
                Some(Object::Nothing) | None => format!("run {command}"),
            };
            Problem::new("denied", format!("user {user} may not {what} on {node}"))
                .hint(format!("ACL SETUSER {user} {rules}; role {role} has it: `{}`", wanted.printed_by()))
        }
        Grant::Granted | Grant::Unknown => {
            Problem::new("unknown", format!("{node} does not tell whether user {user} may run {command}"))
        }
    };
    Problem { node: Some(node.to_owned()), ..problem }
}

/// What `user` may do on `caller`'s server.
pub async fn rights_of(caller: &Caller, user: &str, wanted: &Wanted) -> Result<Rights, Untold> {
    let rights = wanted.rights(&version_of(caller).await?)?;
    let granted = granted(caller, user, &rights).await?;
    Ok(rights.into_iter().zip(granted).collect())
}

impl AclOptions {
    /// What the user is to be able to do, on the servers that are meant.
    pub fn wanted(&self, global: &Global) -> Result<Wanted, Failure> {
        // A namespace that no lock can have is refused.
        global.key_of("-".as_ref())?;
        Ok(Wanted {
            role: self.role,
            namespace: global.namespace.clone(),
            plain: self.plain.clone(),
            endpoint: global.endpoint()?,
        })
    }
}
