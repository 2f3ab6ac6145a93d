//! Broken scripts that the conformance table has to notice: a guarantee counts as tested when the table fails without
//! the line that gives it.

mod faults;
mod worst;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

pub use faults::known_faults;
pub use worst::worst_faults;

use crate::{
    conformance::{Case, RawDriver, Runner, Sources, cases, shipped},
    support::Server,
};

/// A change of the shipped source that must be noticed.
pub struct Mutant {
    pub name: String,
    scripts: Vec<&'static str>,
    /// What is replaced, and by what, wherever it stands in these scripts.
    edits: Vec<(String, String)>,
}

/// Every check of an argument, left out.
fn checks_left_out(sources: &Sources) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for script in scripts() {
        let lines: Vec<&str> = sources[script].lines().collect();
        let checks = lines
            .windows(2)
            .filter(|pair| pair[0].trim_start().starts_with("if ") && pair[1].contains("redis.error_reply("));
        for pair in checks {
            let message = pair[1].split('\'').nth(1).unwrap();
            let edit = (format!("{}\n{}\n", pair[0], pair[1]), format!("if false then\n{}\n", pair[1]));
            mutants.push(Mutant {
                name: format!("{script} without: {message}"),
                scripts: vec![script],
                edits: vec![edit],
            });
        }
    }
    mutants
}

/// Every statement that writes, left out.
fn writes_left_out(sources: &Sources) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for script in scripts() {
        let lines: Vec<&str> = sources[script].lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !line.trim_start().starts_with("redis.call(") && !line.trim_start().starts_with("redis.pcall(") {
                continue;
            }
            let open = |text: &str| text.matches('(').count() == text.matches(')').count();
            let statement =
                (number..lines.len()).map(|end| lines[number..=end].join("\n")).find(|text| open(text)).unwrap();
            // The statement may stand in more than one place: leave out this one.
            let before = if number == 0 { "" } else { lines[number - 1] };
            let edit = (format!("{before}\n{statement}\n"), format!("{before}\n"));
            let name = format!("{script}:{}: without {}", number + 1, statement.trim().lines().next().unwrap());
            mutants.push(Mutant { name, scripts: vec![script], edits: vec![edit] });
        }
    }
    mutants
}

/// Every assignment to a variable that has a value, left out.
fn assignments_left_out(sources: &Sources) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for script in scripts() {
        let lines: Vec<&str> = sources[script].lines().collect();
        for (number, pair) in lines.windows(2).enumerate() {
            let is_name =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_, []#+".contains(&byte));
            let assigns = pair[1].trim_start().split_once(" = ").is_some_and(|(names, _)| is_name(names));
            // The clock needs this line for a tenth of each second only, and a busy machine may miss that.
            let in_time = pair[1].trim() == "now = string.format('%.0f', now_us)";
            if assigns
                && !in_time
                && !["local ", "if ", "for ", "@"].iter().any(|start| pair[1].trim_start().starts_with(start))
            {
                let edit = (format!("{}\n{}\n", pair[0], pair[1]), format!("{}\n", pair[0]));
                let name = format!("{script}:{}: without {}", number + 2, pair[1].trim());
                mutants.push(Mutant { name, scripts: vec![script], edits: vec![edit] });
            }
        }
    }
    mutants
}

/// Lines that the table does not miss yet: of the key's life after a hand-off, of the queue's clock and of the search for
/// closed places. The simulation, the model and `tests/faults` see what they are for.
const NOT_MISSED: [(&str, &str); 12] = [
    ("mutex/acquire", "expires_ms = must_expire_later and expires_ms + math.floor(retention_ms / 8) or lock[8]"),
    ("mutex/", "told = lease / 3 > length_ms"),
    ("mutex/acquire", "head = ticket + 1"),
    ("mutex/acquire", "old_head = head"),
    ("mutex/acquire", "swept = 0"),
    ("mutex/", "behind_ms = math.max(behind_ms, seen_ms - now_ms)"),
    ("mutex/", "redis.call('HSET', KEYS[1], 'expires_ms', expires_ms)"),
    ("mutex/acquire", "redis.pcall('HSET', KEYS[1], 'swept', swept)"),
    ("mutex/acquire", "redis.call('PEXPIREAT', KEYS[1], expires_ms)"),
    ("mutex/force_release", "redis.pcall('HSET', KEYS[1], 'behind_ms', behind_ms)"),
    ("mutex/release", "redis.pcall('HSET', KEYS[1], 'behind_ms', behind_ms)"),
    ("mutex/release", "redis.call('PEXPIREAT', KEYS[1], expires_ms)"),
];

/// Of the mutants that pass those of lines that the table ought to miss.
fn missed(mutants: &[Mutant]) -> Vec<&str> {
    let known = |name: &&str| {
        !NOT_MISSED
            .iter()
            .any(|(script, line)| name.starts_with(script) && name.ends_with(&format!(": without {line}")))
    };
    survivors(mutants).into_iter().filter(known).collect()
}

fn scripts() -> Vec<&'static str> {
    redlatch::bundle::embedded().unwrap().scripts().iter().map(|script| script.name()).collect()
}

impl Mutant {
    /// Whether the case calls a script that is changed.
    fn concerns(&self, case: &Case) -> bool {
        case.steps.iter().any(|step| step.script().is_some_and(|called| self.scripts.contains(&called)))
    }

    /// The scripts with this change. A change that finds nothing to replace is an error of the mutant.
    pub fn apply(&self, shipped: &Sources) -> Sources {
        let mut sources = shipped.clone();
        for (from, to) in &self.edits {
            let mut found = false;
            for script in &self.scripts {
                let source = sources.get_mut(*script).unwrap();
                found |= source.contains(from.as_str());
                *source = source.replace(from.as_str(), to);
            }
            assert!(found, "{}: there is no {from:?} in {:?}", self.name, self.scripts);
        }
        for script in &self.scripts {
            assert_ne!(sources[*script], shipped[*script], "{}: {script} is unchanged", self.name);
        }
        sources
    }
}

/// Runs the table with each mutant and returns those that pass. Prints which case caught the others.
fn survivors(mutants: &[Mutant]) -> Vec<&str> {
    let shipped = shipped();
    let mut cases = cases();
    // Short ones first, and those that fill a queue last.
    cases.sort_by_key(|case| (case.steps.iter().any(|step| step.place.contains(" EVAL ")), case.steps.len()));
    let next = AtomicUsize::new(0);
    let work = || {
        let server = Server::start(&[]).unwrap();
        let mut survivors = Vec::new();
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut driver = RawDriver::new(&server, mutant.apply(&shipped));
            let mut runner = Runner::new(&server, &mut driver);
            match cases.iter().filter(|case| mutant.concerns(case)).find_map(|case| runner.run(case).err()) {
                Some(failure) => println!("{}\n  caught by {}", mutant.name, failure.lines().next().unwrap()),
                None => survivors.push(mutant.name.as_str()),
            }
        }
        survivors
    };
    let found: BTreeSet<&str> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    println!("{} mutants, {} survive", mutants.len(), found.len());
    found.into_iter().collect()
}

#[test]
fn the_table_catches_every_known_fault() {
    assert_eq!(survivors(&known_faults()), Vec::<&str>::new());
}

#[test]
fn the_table_catches_every_check_that_is_left_out() {
    assert_eq!(survivors(&checks_left_out(&shipped())), Vec::<&str>::new());
}

#[test]
fn the_table_catches_every_write_that_is_left_out() {
    assert_eq!(missed(&writes_left_out(&shipped())), Vec::<&str>::new());
}

#[test]
fn the_table_catches_every_assignment_that_is_left_out() {
    assert_eq!(missed(&assignments_left_out(&shipped())), Vec::<&str>::new());
}
