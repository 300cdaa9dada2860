//! Copies one file, verifies the copy and pushes that.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::{Candidate, FillContext, FillError};
use crate::archive::wal::client::refuse_cut;
use crate::archive::wal::{WalError, push};
use crate::model::{Lsn, TimelineHistory};
use crate::process;
use crate::repository::{RepositoryError, segment_header};

impl FillContext<'_> {
    /// Stores one; the inner error says why it is left alone.
    pub(super) async fn store(
        &self,
        candidate: &Candidate,
        cluster: u64,
        dry_run: bool,
    ) -> Result<Result<(), String>, FillError> {
        let name = &candidate.name;
        let (data, staging, of) = (self.data().to_owned(), self.staging.clone(), name.clone());
        let copied = process::on_a_thread(move || copy(&data, &staging, &of)).await;
        let copy = match copied {
            Ok(copy) => copy,
            Err(error) => return Ok(Err(format!("it cannot be copied: {error}"))),
        };
        let judged = match &candidate.history {
            None => {
                let (of, file) = (name.clone(), copy.clone());
                let judge = move || segment_header::judge_pages(&of, &file, cluster);
                match process::on_a_thread(judge).await {
                    Ok(()) => self.check_records(name, &copy).await?,
                    bad => bad,
                }
            }
            Some(history) => judge_history(&copy, history),
        };
        if judged.is_err() {
            return Ok(judged);
        }
        // The primary may have stored it meanwhile.
        let stored = self.repository.stored_as(name).await?;
        let bytes = std::fs::metadata(&copy).map_or(0, |found| found.len());
        if let Err(cut) = refuse_cut(&stored, name, bytes) {
            let hint = cut.hint().unwrap_or_default();
            return Ok(Err(format!("{cut}; {hint}")));
        }
        if dry_run || !stored.is_empty() {
            return Ok(Ok(()));
        }
        self.push(name, &copy).await?;
        Ok(self.compare(name, &copy).await?)
    }

    /// Has `pg_waldump` read every record with its checksum, up to the segment's end or the switch in it.
    async fn check_records(
        &self,
        name: &str,
        copy: &Path,
    ) -> Result<Result<(), String>, FillError> {
        let Some((segment, end)) = segment_header::segment_of(name, copy) else {
            return Ok(Err("it is no WAL segment".to_owned()));
        };
        let start = Lsn(end.0 - std::fs::metadata(copy).map_or(0, |found| found.len()));
        let mut command = process::command(
            self.repository
                .program
                .postgres
                .bin_directory
                .join("pg_waldump"),
        );
        command
            .env("LC_ALL", "C")
            .arg("--quiet")
            .arg(format!("--path={}", self.staging.join("pg_wal").display()))
            .arg(format!("--timeline={}", segment.timeline))
            .arg(format!("--start={start}"))
            .arg(format!("--end={end}"));
        let finished = process::run(command, self.repository.program.archive.push_timeout).await?;
        Ok(if finished.status.success() {
            Ok(())
        } else {
            Err(finished.last_words())
        })
    }

    async fn push(&self, name: &str, copy: &Path) -> Result<(), WalError> {
        let (program, mut command) = self.repository.command(&self.staging)?;
        command.arg("wal-push").arg(copy);
        command.current_dir(&self.staging);
        let ended =
            process::run_attached(command, self.repository.program.archive.push_timeout).await;
        if ended.as_ref().is_ok_and(ExitStatus::success) {
            return Ok(());
        }
        self.repository.give_up_uploads(name).await;
        Err(RepositoryError::Failed {
            program: program.to_string(),
            verb: "wal-push",
            reason: ended?.to_string(),
        }
        .into())
    }

    /// Whether the bucket holds what was pushed, once.
    async fn compare(&self, name: &str, copy: &Path) -> Result<Result<(), String>, WalError> {
        let bytes = std::fs::metadata(copy).map_or(0, |found| found.len());
        let stored = self.repository.whole_as(name, bytes).await?;
        let name = name.to_owned();
        match stored.as_slice() {
            [] => Err(WalError::NotThere {
                program: self.repository.program.archive.program.clone(),
                reason: format!("{name} is not whole in the bucket"),
            }),
            [_] => {
                let same = push::same_content(self.repository, &stored, copy, &name);
                // Where xdb cannot read it, the program decides.
                same.await.map(|_| Ok(()))
            }
            _ => Err(WalError::Twice { name }),
        }
    }
}

/// Copies `name` of the server in `data` to `staging`, where the program finds it and nothing else.
fn copy(data: &Path, staging: &Path, name: &str) -> std::io::Result<PathBuf> {
    let _ = std::fs::remove_dir_all(staging);
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700).recursive(true);
    private.create(staging.join("pg_wal/archive_status"))?;
    let copy = staging.join("pg_wal").join(name);
    std::fs::copy(data.join("pg_wal").join(name), &copy)?;
    Ok(copy)
}

fn judge_history(copy: &Path, expected: &TimelineHistory) -> Result<(), String> {
    let text = std::fs::read_to_string(copy).map_err(|error| error.to_string())?;
    let history: TimelineHistory = text.parse().map_err(|error| format!("{error}"))?;
    if &history == expected {
        Ok(())
    } else {
        Err("it is not the history that leads to the primary's timeline".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_must_lead_to_the_primarys_timeline() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("00000003.history");
        let expected = "1\t0/90000A0\tr\n".parse().unwrap();
        for (text, good) in [
            ("1\t0/90000A0\tr\n", true),
            ("1\t0/90000A8\tr\n", false),
            ("nonsense", false),
            ("", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(judge_history(&file, &expected).is_ok(), good, "{text:?}");
        }
    }
}
