//! `redlatch load`: preloads every script that a server lacks, on all servers: a replica that has them can be promoted
//! without a call that finds its script missing. Callers that find their scripts need no right to load.

use std::{collections::HashMap, time::Duration};

use clap::Args;
use redlatch::{
    Error,
    bundle::{self, Script},
    call::{self, Caller},
};
use serde_json::{Value, json};

use crate::{
    ask::{Withheld, ask, is_absent},
    duration,
    fleet::{Answer, failure_of_all, named},
    opt::Global,
    outcome::{Cause, Failure, Outcome, Verdict},
    output::{bad, good},
    product::{Hello, Product},
    rights::{Role, grant_to_ask},
    table::{DIGEST, LEAST, table},
    watch,
    width::{columns, folded},
};

/// Options of `load`.
#[derive(Args)]
pub struct LoadOptions {
    /// Only say what would be loaded
    #[arg(long)]
    pub dry_run: bool,
    /// Exit with 0 as long as one server was reached
    #[arg(long)]
    pub allow_partial: bool,
    /// Stay, and look again and again [default: 10s]
    ///
    /// After a restart, SCRIPT FLUSH, a switch of the primary or a new server, scripts are back within this time.
    #[arg(long, value_name = "INTERVAL", value_parser = duration::parse, num_args = 0..=1, require_equals = true,
        default_missing_value = "10s", conflicts_with = "dry_run")]
    pub watch: Option<Duration>,
    /// With --watch: serve /metrics, /live, /ready
    ///
    /// The metrics are for Prometheus.
    #[arg(long, value_name = "HOST:PORT", requires = "watch")]
    pub metrics_addr: Option<String>,
}

/// What `load` found and did on a server.
struct Loaded {
    /// In the order of the scripts.
    states: Vec<State>,
    /// Whether callers hear messages.
    pushes: bool,
    /// Whether the user may not ask which replicas there are.
    hides_replicas: bool,
}

/// What `load` found and did with a script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was there.
    Present,
    /// It is not there, because nothing was to be loaded.
    Missing,
    /// It was missing and is there now.
    Loaded,
}

/// Loads what is missing; a second run finds nothing to do.
pub async fn load(options: &LoadOptions, global: &Global) -> Result<Outcome, Failure> {
    if let Some(interval) = options.watch {
        return watch::watch(options, global, interval).await;
    }
    let scripts = bundle::embedded().map_err(Error::from)?.scripts();
    let dry_run = options.dry_run;
    let servers = global.servers(Role::Deployer).await?;
    let alone = servers.iter().all(|server| server.role == call::Role::Unknown);
    let mut answers = global.on_each(servers, move |caller| load_on(caller, scripts, dry_run, alone)).await;
    if let Some(failure) = failure_of_all(&mut answers) {
        return Err(failure);
    }
    let outcome = Outcome::new(view(scripts, &answers), data(scripts, &answers, dry_run)).rows("scripts");
    let outcome = if dry_run { outcome } else { outcome.report() };
    let outcome = notes(&answers).fold(outcome, Outcome::note);
    let problems: Vec<_> = answers.iter().filter_map(Answer::problem).collect();
    Ok(if problems.is_empty() {
        outcome
    } else {
        let verdict = if options.allow_partial { Verdict::Fine } else { Verdict::Partly };
        problems.into_iter().fold(outcome.verdict(verdict), Outcome::problem)
    })
}

/// Loads what `caller`'s server lacks, or says only what that is.
pub async fn load_missing(caller: Caller, scripts: &'static [Script], dry_run: bool) -> Result<Vec<State>, Failure> {
    Ok(load_on(caller, scripts, dry_run, false).await?.states)
}

/// Where a script is evicted that came by EVAL, one that is there already is loaded too if that makes it stay: how it
/// came nobody can tell.
async fn load_on(caller: Caller, scripts: &'static [Script], dry_run: bool, alone: bool) -> Result<Loaded, Failure> {
    let Hello { product, pushes } = Hello::of(&caller).await?;
    runs_scripts(&caller, product.as_ref()).await?;
    let pin = product.is_some_and(|product| product.forgets_evals() && product.pins_what_is_there());
    let mut states = Vec::new();
    for (script, present) in scripts.iter().zip(caller.exists(scripts).await?) {
        if !dry_run && (pin || !present) {
            caller.load(script).await?;
        }
        states.push(match (present, dry_run) {
            (true, _) => State::Present,
            (false, true) => State::Missing,
            (false, false) => State::Loaded,
        });
    }
    let hides_replicas = alone && ask(&caller, &["ROLE"]).await? == Err(Withheld::Denied);
    Ok(Loaded { states, pushes, hides_replicas })
}

/// Refuses a server on which scripts can be loaded and not run: said here, and not by the first caller.
async fn runs_scripts(caller: &Caller, product: Option<&Product>) -> Result<(), Failure> {
    if let Err(error) = caller.command(&redis::cmd("TIME"), || "TIME".to_owned()).await
        && is_absent(&error)
    {
        return Err(error.into());
    }
    if product.is_some_and(Product::may_replicate_scripts)
        && let Ok(reply) = ask(caller, &["CONFIG", "GET", REPLICATE_EFFECTS]).await?
        && redis::from_redis_value::<HashMap<String, String>>(reply).is_ok_and(|it| it.values().any(|it| it == "no"))
    {
        let why = "the server replicates scripts and not what they do, which no script that reads the clock survives";
        return Err(Failure::new(Cause::Configuration, why).hint(format!("CONFIG SET {REPLICATE_EFFECTS} yes")));
    }
    Ok(())
}

/// A setting of Redis 6.2.
const REPLICATE_EFFECTS: &str = "lua-replicate-commands";

fn notes(answers: &[Answer<Loaded>]) -> impl Iterator<Item = String> {
    let silent = answers.iter().filter(|answer| answer.outcome.as_ref().is_ok_and(|loaded| !loaded.pushes));
    let silent = silent.map(|Answer { server, .. }| {
        let address = &server.address;
        format!("{address} has no RESP3 (HELLO 3), or a proxy hides it: no message reaches callers, so waiters poll")
    });
    let alone = answers.iter().filter(|answer| answer.outcome.as_ref().is_ok_and(|loaded| loaded.hides_replicas));
    silent.chain(alone.map(|Answer { server, .. }| {
        let grant = grant_to_ask("ROLE", Role::Deployer);
        format!("{} does not say which replicas it has, so nothing was loaded there: {grant}", server.address)
    }))
}

fn view(scripts: &[Script], answers: &[Answer<Loaded>]) -> String {
    let done = |state| {
        let of = |answer: &&Answer<Loaded>| answer.outcome.as_ref().is_ok_and(|loaded| loaded.states.contains(&state));
        answers.iter().filter(of).map(|answer| answer.server.address.as_str()).collect::<Vec<_>>()
    };
    let (loaded, missing) = (count(answers, State::Loaded), count(answers, State::Missing));
    let reached: Vec<_> =
        answers.iter().filter(|answer| answer.outcome.is_ok()).map(|answer| answer.server.address.as_str()).collect();
    let summary = match (loaded, missing) {
        (0, 0) => {
            return folded(&format!("nothing to do: all {} scripts are on {}\n", scripts.len(), named(&reached)));
        }
        (0, _) => format!("{missing} to load on {}\n", named(&done(State::Missing))),
        _ => format!("{loaded} loaded on {}\n", named(&done(State::Loaded))),
    };
    let states = |number: usize| {
        answers.iter().map(move |answer| match &answer.outcome {
            Ok(loaded) => match loaded.states.get(number) {
                Some(State::Loaded) => good("loaded"),
                Some(State::Missing) => "missing".to_owned(),
                Some(State::Present) | None => "present".to_owned(),
            },
            Err(_) => bad("?"),
        })
    };
    list(answers) + &matrix(scripts, answers.len(), states) + &folded(&summary)
}

/// Scripts by servers, which have numbers when there is more than one.
pub fn matrix<S: Iterator<Item = String>>(scripts: &[Script], servers: usize, states: impl Fn(usize) -> S) -> String {
    let mut head = vec!["SCRIPT".to_owned(), DIGEST.to_owned()];
    let folds = servers > 1 && columns().is_some_and(|columns| columns < 2 * LEAST + 2 + servers * STATE);
    match servers {
        1 => head.push("STATE".to_owned()),
        _ if folds => head.push("STATE".to_owned()),
        many => head.extend((1..=many).map(|number| format!("[{number}]"))),
    }
    let row = |(number, script): (usize, &Script)| {
        let states: Vec<_> = if folds { vec![on_which(states(number))] } else { states(number).collect() };
        [title(script), script.digest().to_string()].into_iter().chain(states).collect::<Vec<_>>()
    };
    table(&head, &scripts.iter().enumerate().map(row).collect::<Vec<_>>())
}

/// What a column of states takes.
const STATE: usize = 9;

/// `present [1] [3], missing [2]`: for more servers than the terminal has columns for.
fn on_which(states: impl Iterator<Item = String>) -> String {
    let mut servers: Vec<(String, Vec<String>)> = Vec::new();
    for (number, state) in states.enumerate() {
        let number = format!("[{}]", number + 1);
        match servers.iter_mut().find(|(other, _)| *other == state) {
            Some((_, numbers)) => numbers.push(number),
            None => servers.push((state, vec![number])),
        }
    }
    match servers.as_slice() {
        [(state, _)] => format!("{state} on all"),
        several => several
            .iter()
            .map(|(state, numbers)| format!("{state} {}", numbers.join(" ")))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The servers with their numbers, unless there is only one.
fn list<T>(answers: &[Answer<T>]) -> String {
    if answers.len() == 1 {
        return String::new();
    }
    let row = |(number, Answer { server, .. }): (usize, &Answer<T>)| {
        [format!("[{}]", number + 1), server.address.clone(), server.role.as_str().to_owned()]
    };
    table(&["", "SERVER", "ROLE"], &answers.iter().enumerate().map(row).collect::<Vec<_>>()) + "\n"
}

fn data(scripts: &[Script], answers: &[Answer<Loaded>], dry_run: bool) -> Value {
    let nodes: Vec<_> = answers
        .iter()
        .map(|answer| {
            let count = |state| {
                answer.outcome.as_ref().ok().map(|loaded| loaded.states.iter().filter(|other| **other == state).count())
            };
            json!({
                "node": answer.server.address, "role": answer.server.role.as_str(), "ok": answer.outcome.is_ok(),
                "loaded": count(State::Loaded), "missing": count(State::Missing),
            })
        })
        .collect();
    let rows: Vec<_> = answers
        .iter()
        .filter_map(|answer| Some((answer, answer.outcome.as_ref().ok()?)))
        .flat_map(|(answer, loaded)| {
            scripts.iter().zip(&loaded.states).map(|(script, state)| {
                json!({
                    "node": answer.server.address, "name": script.name(), "version": script.version(),
                    "digest": script.digest().as_str(), "state": state.word(),
                })
            })
        })
        .collect();
    json!({
        "dry_run": dry_run, "loaded": count(answers, State::Loaded), "missing": count(answers, State::Missing),
        "nodes": nodes, "scripts": rows,
    })
}

fn count(answers: &[Answer<Loaded>], state: State) -> usize {
    let states = answers.iter().filter_map(|answer| Some(&answer.outcome.as_ref().ok()?.states));
    states.flatten().filter(|other| **other == state).count()
}

impl State {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Loaded => "loaded",
        }
    }
}

/// `mutex/acquire v1`.
pub fn title(script: &Script) -> String {
    format!("{} v{}", script.name(), script.version())
}
