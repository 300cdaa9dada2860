//! The binary: PostgreSQL's own calls first, then the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Before clap, tracing and any runtime: PostgreSQL calls these for each segment, and reads their exit codes.
    // Clap's own 2 for wrong usage would end a recovery early and "successfully".
    let (config, arguments) = split_config(&arguments);
    match arguments.split_first() {
        Some((_, [only])) if only == "--help" || only == "-h" => {}
        Some((verb, rest)) if verb == "wal-push" => {
            return xdb::archive::wal_push(config, rest).into();
        }
        Some((verb, rest)) if verb == "wal-fetch" => {
            return xdb::archive::wal_fetch(config, rest).into();
        }
        _ => {}
    }
    xdb::cli::main()
}

/// Takes a leading `--config FILE` or `--config=FILE` off.
fn split_config(arguments: &[OsString]) -> (Option<PathBuf>, &[OsString]) {
    match arguments {
        [flag, file, rest @ ..] if flag == "--config" => (Some(file.into()), rest),
        [first, rest @ ..] => match first
            .to_str()
            .and_then(|first| first.strip_prefix("--config="))
        {
            Some(file) => (Some(file.into()), rest),
            None => (None, arguments),
        },
        [] => (None, arguments),
    }
}
