//! Which programs run on this machine, whoever started them.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use procfs::process::all_processes;

/// The processes that run a program whose file is one of `is_program` with `argument`, a wrapper's interpreter included.
///
/// What `/proc` hides, as with `hidepid`, is not found.
pub(crate) fn running(is_program: impl Fn(&Path) -> bool, argument: &str) -> Vec<i32> {
    let processes = all_processes().into_iter().flatten().flatten();
    processes
        .filter(|process| {
            // As bytes: `Process::cmdline` fails where a word is not UTF-8.
            let mut line = Vec::new();
            let file = process.open_relative("cmdline");
            let read = file.is_ok_and(|mut file| file.read_to_end(&mut line).is_ok());
            read && is_of(&line, &is_program, argument)
        })
        .map(|process| process.pid())
        .collect()
}

/// Whether a command line, each of its words ended by a zero byte, is one of such a program with `argument`.
fn is_of(line: &[u8], is_program: &impl Fn(&Path) -> bool, argument: &str) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let is_program = |word: &&[u8]| is_program(Path::new(OsStr::from_bytes(word)));
    // The program itself, or the script that an interpreter was given.
    words.iter().take(2).any(is_program)
        && words
            .iter()
            .skip(1)
            .any(|word| *word == argument.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_command_line() {
        let wal_g = |path: &Path| path.file_name() == Some(OsStr::new("wal-g"));
        let is = |line: &str| is_of(line.as_bytes(), &wal_g, "backup-push");
        for line in [
            "/usr/local/bin/wal-g\0backup-push\0/data\0",
            "wal-g\0--config\0/etc/wal-g.json\0backup-push\0/data\0",
            "/bin/sh\0/usr/local/bin/wal-g\0backup-push\0/data\0",
        ] {
            assert!(is(line), "{line:?}");
        }
        for line in [
            "",
            "/usr/local/bin/wal-g\0daemon\0socket\0",
            "/usr/local/bin/walrus\0backup-push\0/data\0",
            "xdb\0backup\0push\0",
            "grep\0-r\0wal-g\0backup-push\0",
        ] {
            assert!(!is(line), "{line:?}");
        }
    }
}
