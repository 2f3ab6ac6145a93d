//! The module's copies of what the scripts say are exact.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Word and number of each `@reply` in a script's header.
fn replies_in_header(script: &str) -> BTreeMap<String, u32> {
    let header = read(&format!("lua/scripts/{script}.v1.lua"));
    let replies = header.lines().filter_map(|line| line.strip_prefix("@reply "));
    replies
        .map(|reply| {
            let (number, rest) = reply.split_once(' ').unwrap();
            let word = rest.split(':').next().unwrap();
            (word.to_owned(), number.parse().unwrap())
        })
        .collect()
}

#[test]
fn reply_words_are_those_of_the_headers() {
    let mut compared = 0;
    for block in read("lua/lib/resty/redlatch/replies.lua").split("  [\"").skip(1) {
        let (script, lines) = block.split_once("\"]").unwrap();
        let words: BTreeMap<_, _> = lines
            .lines()
            .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
            .filter_map(|(word, number)| Some((word.to_owned(), number.parse::<u32>().ok()?)))
            .collect();
        assert_eq!(words, replies_in_header(script), "{script}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn embedded_digests_are_those_of_the_bundle() {
    let scripts = read("lua/lib/resty/redlatch/scripts.lua");
    for line in read("lua/scripts/SHA1SUMS").lines() {
        let (digest, file) = line.split_once("  ").unwrap();
        let (script, version) = file.strip_suffix(".lua").and_then(|file| file.split_once(".v")).unwrap();
        let block = format!("  [\"{script}\"] = {{\n    version = {version},\n    digest = \"{digest}\",\n");
        assert!(scripts.contains(&block), "{file} is not in scripts.lua with its digest: generate it again");
    }
}
