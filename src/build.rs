//! Rebuilds the crate when a script is added: `include_dir!` alone sees edits, but not new files.

fn main() {
    println!("cargo::rerun-if-changed=lua/scripts");
    println!("cargo::rerun-if-changed=lua/lib");
}
