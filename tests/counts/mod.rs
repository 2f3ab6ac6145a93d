//! What a call costs the server, in instructions: one Redis thread runs the scripts of a whole fleet.

#[path = "measure.rs"]
mod measure;

use crate::support::say;

/// Ratios to the raw pair, so that another build of Redis changes them little.
const RECORD: &str = include_str!("record.txt");
/// How much more a path may cost than the record says.
const TOLERANCE: f64 = 1.03;

#[test]
fn no_path_costs_more_instructions_than_on_record() {
    let counts = measure::counts();
    let recorded: Vec<(&str, f64)> = RECORD
        .lines()
        .map(|line| line.rsplit_once(' ').expect("a path and its ratio"))
        .map(|(path, ratio)| (path.trim_end(), ratio.parse().expect("the ratio is a number")))
        .collect();
    for count in &counts {
        say(&format!("  {:<40} {:>9.0} instructions {:>7.3} x", count.path, count.instructions, count.ratio));
    }
    // The floors are what the others are measured by.
    let ours: Vec<_> =
        counts.iter().filter(|count| !count.path.starts_with("raw ") && !count.path.starts_with("a ")).collect();
    let measured: Vec<&str> = ours.iter().map(|count| count.path).collect();
    assert_eq!(measured, recorded.iter().map(|(path, _)| *path).collect::<Vec<_>>(), "tests/counts/record.txt");
    let dearer: Vec<String> = ours
        .iter()
        .zip(&recorded)
        .filter(|(count, (_, record))| count.ratio > record * TOLERANCE)
        .map(|(count, (_, record))| format!("{}: {:.3} x the raw pair, on record {record:.3}", count.path, count.ratio))
        .collect();
    assert!(dearer.is_empty(), "dearer than tests/counts/record.txt says:\n{}", dearer.join("\n"));
}
