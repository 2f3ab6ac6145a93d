//! Pages that would drift from the tests they speak of.

use std::{collections::BTreeSet, fs, path::Path};

/// The ids in the first column of the tables of `docs/faults.md`.
fn explained() -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")).unwrap();
    let ids = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    ids.filter(|id| is_id(id)).map(str::to_lowercase).collect()
}

/// The ids that the names of tests begin with: `q2_q3_a_wait_that_…` has two.
fn named(folder: &Path, ids: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            named(&path, ids);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1).filter(|rest| !rest.starts_with('('));
            ids.extend(names.flat_map(|name| name.split('_').take_while(|word| is_id(word))).map(str::to_owned));
        }
    }
}

fn is_id(word: &str) -> bool {
    let (letter, number) = word.split_at_checked(1).unwrap_or_default();
    "CQNSRIXcqnsrix".contains(letter) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn every_fault_that_a_test_names_is_explained_and_every_one_explained_has_a_test() {
    let mut named_by_tests = BTreeSet::new();
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut named_by_tests);
    assert_eq!(named_by_tests, explained());
}
