//! PostgreSQL's own verifiers: `pg_amcheck` on the running server, `pg_checksums` after its shutdown.

use std::path::Path;
use std::time::Duration;

use crate::model::Verdict;
use crate::postgres::{self, Target};
use crate::process::{self, Finished, ProcessError};

/// Checks every heap and B-tree of every database, and where `every_row` that each heap row is in its indexes.
///
/// # Errors
/// When `pg_amcheck` cannot be run to its end.
pub async fn check_amcheck(
    bin_directory: &Path,
    target: &Target,
    every_row: bool,
    deadline: Duration,
) -> Result<Verdict, ProcessError> {
    let mut command = process::command(bin_directory.join("pg_amcheck"));
    process::modest(&mut command);
    command
        .arg("--host")
        .arg(&target.host)
        .args([
            "--port",
            &target.port.to_string(),
            "--username",
            &target.user,
        ])
        .args(["--all", "--install-missing", "--no-password"])
        .args(every_row.then_some("--heapallindexed"))
        // A role may bring settings of its own.
        .env("PGOPTIONS", postgres::superuser_program_options());
    let finished = process::run(command, deadline).await?;
    Ok(judge_amcheck(&finished))
}

/// 0 is clean, 2 is corruption (its report is on standard output), all else is a check that was not made.
fn judge_amcheck(finished: &Finished) -> Verdict {
    let report = String::from_utf8_lossy(&finished.stdout);
    let first = report
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(2)
        .collect::<Vec<_>>()
        .join(" ");
    match finished.status.code() {
        Some(0) => Verdict::Ok,
        Some(2) => Verdict::Critical(format!("pg_amcheck found corruption: {first}")),
        _ => Verdict::Unknown(format!(
            "pg_amcheck could not check: {}",
            finished.last_words()
        )),
    }
}

/// Reads every page of the stopped cluster in `data` and compares its checksum, where the cluster keeps them.
///
/// # Errors
/// When `pg_checksums` cannot be run to its end.
pub async fn check_checksums(
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
    process::modest(&mut command);
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

    #[test]
    fn only_zero_is_clean_and_only_two_is_corruption() {
        let finished = |code: i32| Finished {
            status: ExitStatus::from_raw(code << 8),
            stdout: b"heap table \"shop.public.orders\", block 3:\n    xmin is bad\n".to_vec(),
            stderr: "pg_amcheck: error: no".to_owned(),
        };
        assert_eq!(judge_amcheck(&finished(0)), Verdict::Ok);
        assert!(
            matches!(judge_amcheck(&finished(2)), Verdict::Critical(reason) if reason.contains("block 3"))
        );
        assert!(
            matches!(judge_amcheck(&finished(1)), Verdict::Unknown(reason) if reason.contains("error: no"))
        );
    }
}
