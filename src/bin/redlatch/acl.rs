//! `redlatch acl`: the least rights that a user needs, and whether a user has them.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use redlatch::call::Caller;
use serde_json::json;

use crate::{
    fleet::{Answer, failure_of_all},
    opt::Global,
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{bad, escaped, good, table},
    rights::{Right, Role, Wanted},
};

/// What to do with rights.
#[derive(Subcommand)]
pub enum AclVerb {
    /// Print rules for ACL SETUSER: redis-cli ACL SETUSER app on '>password' $(redlatch acl print caller)
    Print(AclPrintOptions),
    /// Ask the servers whether a user has the rights, with ACL DRYRUN (Redis 7.0)
    Check(AclCheckOptions),
}

/// Options of `acl print`.
#[derive(Args)]
pub struct AclPrintOptions {
    /// What the user does
    #[arg(default_value = "caller")]
    pub role: Role,
    /// Keys of plain locks, with * ? and [] as in Redis; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub plain: Vec<String>,
}

/// Options of `acl check`.
#[derive(Args)]
pub struct AclCheckOptions {
    /// The user
    pub user: String,
    /// What it is to be able to do.
    #[command(flatten)]
    pub grants: AclPrintOptions,
}

/// Prints rules or checks a user.
pub async fn acl(verb: &AclVerb, global: &Global) -> Result<Outcome, Failure> {
    match verb {
        AclVerb::Print(options) => print(options, global),
        AclVerb::Check(options) => check(options, global).await,
    }
}

fn print(options: &AclPrintOptions, global: &Global) -> Result<Outcome, Failure> {
    let rules = options.wanted(global)?.rules()?;
    let data = json!({ "role": options.role.word(), "rules": rules });
    Ok(Outcome::new(rules.join(" ") + "\n", data))
}

/// Asks every server, because each has users of its own.
async fn check(options: &AclCheckOptions, global: &Global) -> Result<Outcome, Failure> {
    let rights = options.grants.wanted(global)?.rights()?;
    let (user, wanted) = (options.user.clone(), rights.clone());
    let ask = move |caller: Caller| {
        let (user, wanted) = (user.clone(), wanted.clone());
        async move { granted(&caller, &user, &wanted).await }
    };
    let mut answers = global.on_each(global.servers().await?, ask).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let mut rows = Vec::new();
    let mut list = Vec::new();
    let mut problems: Vec<_> = answers.iter().filter_map(Answer::problem).collect();
    for answer in &answers {
        let Ok(granted) = &answer.outcome else { continue };
        let node = &answer.server.address;
        for right in &rights {
            let (word, shown) = match granted.get(&right.command).copied().flatten() {
                Some(true) => ("granted", good("granted")),
                Some(false) => ("denied", bad("denied")),
                None => ("unknown", "unknown".to_owned()),
            };
            rows.push([node.clone(), right.command.clone(), shown]);
            list.push(json!({ "node": node, "command": right.command, "state": word }));
            if word == "denied" {
                let user = escaped(options.user.as_bytes());
                let message = format!("{user} may not {} on {node}", right.probe.join(" ").to_lowercase());
                let hint = format!("ACL SETUSER {user} +{}, or the whole of `redlatch acl print`", right.command);
                problems.push(Problem { node: Some(node.clone()), ..Problem::new("denied", message).hint(hint) });
            }
        }
    }
    let different = !problems.is_empty();
    let data = json!({ "user": options.user, "role": options.grants.role.word(), "rights": list });
    let outcome = Outcome::new(table(&["SERVER", "COMMAND", "STATE"], &rows), data).rows("rights");
    let outcome = problems.into_iter().fold(outcome, Outcome::problem);
    Ok(if different { outcome.verdict(Verdict::Different) } else { outcome })
}

/// Which of `rights` the server would let `user` use.
pub async fn granted(
    caller: &Caller,
    user: &str,
    rights: &[Right],
) -> Result<BTreeMap<String, Option<bool>>, redlatch::Error> {
    let mut granted = BTreeMap::new();
    for right in rights {
        granted.insert(right.command.clone(), right.is_granted(caller, user).await?);
    }
    Ok(granted)
}

impl AclPrintOptions {
    /// What the user is to be able to do, on the servers that are meant.
    pub fn wanted<'a>(&'a self, global: &'a Global) -> Result<Wanted<'a>, Failure> {
        // A namespace that no lock can have is refused.
        global.key_of("-".as_ref())?;
        Ok(Wanted {
            role: self.role,
            namespace: &global.namespace,
            plain: &self.plain,
            cluster: global.endpoint()?.is_cluster(),
        })
    }
}
