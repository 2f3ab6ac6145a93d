//! `redlatch status`: which scripts the server has, its version and its role.

use redlatch::{bundle, call::Caller};
use serde_json::json;

use crate::{
    load::title,
    opt::{Global, StatusOptions},
    outcome::{Failure, Outcome, Problem, Verdict},
    output::{bad, good, table},
};

/// What a server says of itself. A user without the right to INFO does not hear it.
struct Kind {
    product: &'static str,
    version: String,
    role: String,
}

/// Asks only, changes nothing.
pub async fn status(options: &StatusOptions, global: &Global) -> Result<Outcome, Failure> {
    let scripts = bundle::embedded().map_err(redlatch::Error::from)?.scripts();
    let caller = global.caller().await?;
    let present = caller.exists(scripts).await?;
    let kind = Kind::of(&caller).await?;
    let node = global.node().unwrap_or_default();
    let state = |present: bool| if present { "present" } else { "missing" };
    let rows: Vec<_> = scripts
        .iter()
        .zip(&present)
        .map(|(script, &present)| {
            let word = if present { good(state(present)) } else { bad(state(present)) };
            [title(script), script.digest().to_string(), word]
        })
        .collect();
    let list: Vec<_> = scripts
        .iter()
        .zip(&present)
        .map(|(script, &present)| {
            json!({
                "node": node, "name": script.name(), "version": script.version(), "digest": script.digest().as_str(),
                "state": state(present),
            })
        })
        .collect();
    let missing = present.iter().filter(|present| !**present).count();
    let Kind { product, version, role } = &kind;
    let text = format!("{node}  {product} {version}  {role}\n\n") + &table(["SCRIPT", "DIGEST", "STATE"], &rows);
    let data = json!({
        "nodes": [{ "node": node, "product": product, "version": version, "role": role, "missing": missing }],
        "missing": missing,
        "scripts": list,
    });
    let outcome = Outcome::new(text, data).rows("scripts");
    Ok(if options.check && missing > 0 { scripts_missing(outcome, missing, &node) } else { outcome })
}

/// The same outcome, now saying that `missing` scripts are not on `node`.
pub fn scripts_missing(outcome: Outcome, missing: usize, node: &str) -> Outcome {
    let problem = Problem::new("missing", format!("{missing} of the bundle's scripts are missing on {node}"));
    let problem = Problem { node: Some(node.to_owned()), ..problem.hint("load them with `redlatch load`") };
    outcome.verdict(Verdict::Different).problem(problem)
}

impl Kind {
    async fn of(caller: &Caller) -> Result<Self, Failure> {
        let reply = match caller.command(&redis::cmd("INFO"), || "INFO".to_owned()).await {
            Ok(reply) => redis::from_redis_value::<String>(reply).unwrap_or_default(),
            Err(error) if error.code() == Some("NOPERM") => String::new(),
            Err(error) => return Err(error.into()),
        };
        let field = |name: &str| reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let valkey = field("valkey_version");
        Ok(Self {
            product: if valkey.is_some() { "valkey" } else { "redis" },
            version: valkey.or(field("redis_version")).unwrap_or("unknown version").to_owned(),
            role: match field("role") {
                Some("master") => "primary",
                Some("slave") => "replica",
                Some(_) | None => "unknown role",
            }
            .to_owned(),
        })
    }
}
