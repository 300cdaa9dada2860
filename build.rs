//! How the program is linked, and what is compiled into it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    // PostgreSQL starts `xdb wal-push` for each segment, and half of that start was relocating a program that may lie
    // anywhere. At a fixed address there is nothing to relocate; heap, stack and libraries stay where chance puts them.
    println!("cargo:rustc-link-arg-bin=xdb=-no-pie");
    println!("cargo:rerun-if-changed=build.rs");
    // A check is a file, and so is a runbook: neither needs a line in src/.
    embed("SHIPPED", "checks", "toml", "shipped_checks.rs");
    embed("RUNBOOKS", "runbooks", "md", "shipped_runbooks.rs");
}

/// Writes a table of the files in `folder`: stem and text of each, by name.
fn embed(table: &str, folder: &str, extension: &str, output: &str) {
    println!("cargo:rerun-if-changed={folder}");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let entries = fs::read_dir(root.join(folder)).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    let mut text = format!("pub(crate) static {table}: &[(&str, &str)] = &[\n");
    for path in paths {
        let stem = path.file_stem().expect("it has an extension");
        writeln!(text, "    ({stem:?}, include_str!({path:?})),").expect("a String takes it");
    }
    text.push_str("];\n");
    let directory = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&directory).join(output), text).expect("cargo's directory can be written");
}
