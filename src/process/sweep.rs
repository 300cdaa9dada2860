//! Finding and killing what runs in a directory that is about to be removed.

use std::path::Path;
use std::time::{Duration, Instant};

use procfs::process::all_processes;
use rustix::process::{Pid, Signal, getpid, kill_process};

/// How long a PostgreSQL told to quit may take to free its shared memory.
const QUIT: Duration = Duration::from_secs(5);

/// Ends every process of ours whose working directory lies in `directory`, and returns how many there were.
///
/// `directory` is absolute and without links, else nothing is done.
///
/// SIGQUIT first, which is PostgreSQL's immediate shutdown and frees its shared memory, then SIGKILL until none is left.
/// Working directories are the one mark that survives `kill -9` of their parent: a scratch server, its
/// `restore_command` and WAL-G's prefetch children all stand there.
pub(crate) fn kill_all_under(directory: &Path) -> usize {
    // /proc shows resolved paths. A link is not followed: it may lead to a live server.
    match directory.canonicalize() {
        Ok(resolved) if resolved == directory => {}
        _ => return 0,
    }
    let found = processes_under(directory);
    for pid in &found {
        let _ = kill_process(*pid, Signal::QUIT);
    }
    let quit_by = Instant::now() + QUIT;
    while !processes_under(directory).is_empty() && Instant::now() < quit_by {
        std::thread::sleep(Duration::from_millis(20));
    }
    let give_up = Instant::now() + QUIT;
    loop {
        let left = processes_under(directory);
        if left.is_empty() || Instant::now() > give_up {
            return found.len();
        }
        // Stopped first, so that none of them forks while the others are killed.
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in &left {
                let _ = kill_process(*pid, signal);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn processes_under(directory: &Path) -> Vec<Pid> {
    let processes = all_processes().into_iter().flatten().flatten();
    processes
        .filter(|process| process.cwd().is_ok_and(|cwd| cwd.starts_with(directory)))
        .filter_map(|process| Pid::from_raw(process.pid()))
        .filter(|pid| *pid != getpid())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_what_stands_in_the_directory_is_killed() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch_path = scratch.path().canonicalize().unwrap();
        let inside = scratch_path.join("data");
        fs::create_dir(&inside).unwrap();
        let start = |cwd: &Path| {
            Command::new("sleep")
                .arg("60")
                .current_dir(cwd)
                .spawn()
                .unwrap()
        };
        let (mut stray, mut other) = (start(&inside), start(Path::new("/")));

        let link = scratch_path.join("link");
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        assert_eq!(kill_all_under(&link), 0, "a link was followed");
        let killed = kill_all_under(&scratch_path);

        assert_eq!(killed, 1);
        assert!(!stray.wait().unwrap().success());
        assert!(
            other.try_wait().unwrap().is_none(),
            "a process elsewhere was killed"
        );
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
