//! Children that yield to whatever else this machine does.

use rustix::fs::{Mode, OFlags};
use tokio::process::Command;

use super::capped;

/// Makes all that `command` starts yield to the rest of the machine.
///
/// The lowest share of the processors, and of the disk: without an I/O priority of its own a process has that of its nice
/// value (ioprio_set(2)). Where memory runs out, the kernel ends these first, and neither PostgreSQL nor the archiver;
/// and where xdb has a cgroup to divide, they cannot take more than [`low_priority_limit`](super::low_priority_limit).
pub(crate) fn low_priority(command: &mut Command) {
    let capped = capped::procs();
    // SAFETY: between fork and exec only setpriority(2), open(2) and write(2) are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // What may not be done is no reason not to run.
            let _ = rustix::process::nice(19);
            let open = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty());
            if let Ok(file) = open {
                let _ = rustix::io::write(&file, b"1000");
            }
            if let Some(procs) = capped {
                let _ = rustix::io::write(procs, b"0");
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process;

    #[tokio::test]
    async fn a_low_priority_child_and_its_children_come_last() {
        let mut command = process::command("sh");
        command.args(["-c", "nice; cat /proc/self/oom_score_adj"]);
        low_priority(&mut command);
        let finished = process::run(command, Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "19\n1000\n");
    }
}
