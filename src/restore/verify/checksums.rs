//! `pg_checksums` on the files of the copy, once its server is shut down.

use std::path::Path;
use std::time::Duration;

use crate::model::Verdict;
use crate::process::{self, Finished, ProcessError};

/// Reads every page of the stopped cluster in `data` and compares its checksum, where the cluster keeps them.
///
/// # Errors
/// When `pg_checksums` cannot be run to its end.
pub(crate) async fn check_checksums(
    bin_directory: &Path,
    data: &Path,
    kept: bool,
    deadline: Duration,
) -> Result<Verdict, ProcessError> {
    if !kept {
        let reason = "this cluster keeps no data checksums: a flipped bit in a table cannot be found (initdb --data-checksums, pg_checksums --enable)";
        return Ok(Verdict::Unknown(reason.to_owned()));
    }
    let mut command = process::command(bin_directory.join("pg_checksums"));
    process::low_priority(&mut command);
    command.args(["--check", "-D"]).arg(data);
    let finished = process::run(command, deadline).await?;
    Ok(judge_checksums(&finished))
}

/// Failed blocks are named on standard error; without one, the check was not made.
fn judge_checksums(finished: &Finished) -> Verdict {
    let failed = finished
        .stderr
        .lines()
        .find(|line| line.contains("checksum verification failed"));
    match failed {
        None if finished.status.success() => Verdict::Ok,
        None => Verdict::Unknown(format!(
            "pg_checksums could not check: {}",
            finished.last_words()
        )),
        Some(line) => Verdict::Critical(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn a_check_that_was_not_made_is_no_corruption() {
        let finished = |code: i32, stderr: &str| Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout: Vec::new(),
            stderr: stderr.to_owned(),
        };
        assert_eq!(judge_checksums(&finished(0, "")), Verdict::Ok);
        let running = finished(1, "pg_checksums: error: cluster must be shut down");
        assert!(matches!(judge_checksums(&running), Verdict::Unknown(_)));
        let bad = finished(
            1,
            "pg_checksums: error: checksum verification failed in file \"x\", block 1\n",
        );
        assert!(matches!(judge_checksums(&bad), Verdict::Critical(_)));
    }
}
