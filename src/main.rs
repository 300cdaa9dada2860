//! The binary: PostgreSQL's own calls first, then the command line.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Before clap, tracing and any runtime: PostgreSQL calls these for each segment, and reads their exit codes.
    match arguments.split_first() {
        Some((verb, rest)) if !asks_for_help(rest) => match verb.to_str() {
            Some("wal-push") => return xdb::archive::wal_push(rest).into(),
            Some("wal-fetch") => return xdb::archive::wal_fetch(rest).into(),
            _ => {}
        },
        _ => {}
    }
    xdb::cli::main()
}

fn asks_for_help(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
}
