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
            let statement = statement(&lines[number..]);
            // The statement may stand in more than one place: leave out this one.
            let before = if number == 0 { "" } else { lines[number - 1] };
            let edit = (format!("{before}\n{statement}\n"), format!("{before}\n"));
            let name = format!("{script}:{}: without {}", number + 1, statement.trim().lines().next().unwrap());
            mutants.push(Mutant { name, scripts: vec![script], edits: vec![edit] });
        }
    }
    mutants
}

/// The statement that the first line begins.
fn statement(lines: &[&str]) -> String {
    let is_whole = |text: &String| text.matches(['(', '{']).count() == text.matches([')', '}']).count();
    (0..lines.len()).map(|end| lines[..=end].join("\n")).find(is_whole).expect("a statement ends")
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
                let edit = (format!("{}\n{}\n", pair[0], statement(&lines[number + 1..])), format!("{}\n", pair[0]));
                let name = format!("{script}:{}: without {}", number + 2, pair[1].trim());
                mutants.push(Mutant { name, scripts: vec![script], edits: vec![edit] });
            }
        }
    }
    mutants
}

/// Lines of a part that not every script with the part needs: one that does is among the others.
const NOT_NEEDED: [(&str, &str); 5] = [
    ("mutex/release", "outcome = 'own'"),
    ("mutex/force_release", "outcome = 'own'"),
    ("mutex/force_release", "released = holder"),
    ("mutex/force_release", "holder = string.sub(state, words_at, words_at + holder_length - 1)"),
    ("mutex/inspect", "holder = string.sub(state, words_at, words_at + holder_length - 1)"),
];

/// Of the mutants that pass those of lines that are needed.
fn missed(mutants: &[Mutant]) -> Vec<&str> {
    let is_needed = |name: &&str| {
        let is = |(script, line): &(&str, &str)| {
            name.split(':').next() == Some(script) && name.ends_with(&format!(": without {line}"))
        };
        !NOT_NEEDED.iter().any(is)
    };
    survivors(mutants).into_iter().filter(is_needed).collect()
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
