//! The program's own `delete` and `backup-mark`: each deletion runs dry first, and may name nothing that the plan keeps.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::{PrunePlan, RetentionError};
use crate::model::SegmentSize;
use crate::process;
use crate::repository::{Program, Repository, RepositoryError, set_segment_size};

/// One call of a program's `delete`.
pub(super) enum Deletion<'a> {
    /// All that is older than this full backup.
    Before(&'a str),
    /// This backup, and what builds on it.
    Target(&'a str),
}

/// The configured program on one repository.
pub(super) struct Deleter<'a> {
    pub(super) repository: &'a Repository,
    pub(super) size: SegmentSize,
}

/// What a program said on one of its pipes while it deleted, or would have.
#[derive(Default)]
struct ProgramListing {
    /// It named an object to delete.
    named: bool,
    /// The first object that the plan keeps.
    kept: Option<String>,
    last_line: String,
}

impl ProgramListing {
    fn hear(&mut self, program: Program, plan: &PrunePlan, size: SegmentSize, line: &str) {
        if let Some(object) = program.listed_for_deletion(line) {
            self.named = true;
            if !plan.deletes(object, size) {
                self.kept.get_or_insert_with(|| object.to_owned());
            }
        }
        if !line.is_empty() {
            line.clone_into(&mut self.last_line);
        }
    }

    fn and(self, other: Self) -> Self {
        let last_line = match other.last_line.is_empty() {
            true => self.last_line,
            false => other.last_line,
        };
        Self {
            named: self.named || other.named,
            kept: self.kept.or(other.kept),
            last_line,
        }
    }

    /// What is not as planned. A dry run that names nothing was not understood: the plan has something to delete.
    fn disagrees(self, confirm: bool) -> Option<String> {
        let kept = self
            .kept
            .map(|object| format!("{object}, which retention keeps"));
        let nothing = "nothing that its dry run names, and retention has something to delete";
        kept.or_else(|| (!self.named && !confirm).then(|| nothing.to_owned()))
    }
}

impl Deleter<'_> {
    /// Marks `backup` permanent, or takes the mark away.
    pub(super) async fn mark(&self, backup: &str, permanent: bool) -> Result<(), RetentionError> {
        let (program, mut command) = self.command()?;
        command.args(program.backup_mark(backup, permanent));
        let finished =
            process::run(command, self.repository.program.archive.backup_timeout).await?;
        if finished.status.success() {
            return Ok(());
        }
        Err(failed(program, "backup-mark", finished.last_words()))
    }

    /// Lets the program say what it would delete, and holds that against `plan`.
    pub(super) async fn dry_run(
        &self,
        plan: &PrunePlan,
        deletion: &Deletion<'_>,
    ) -> Result<(), RetentionError> {
        self.run(plan, deletion, false).await
    }

    pub(super) async fn delete(
        &self,
        plan: &PrunePlan,
        deletion: &Deletion<'_>,
    ) -> Result<(), RetentionError> {
        self.run(plan, deletion, true).await
    }

    async fn run(
        &self,
        plan: &PrunePlan,
        deletion: &Deletion<'_>,
        confirm: bool,
    ) -> Result<(), RetentionError> {
        let (program, mut command) = self.command()?;
        command
            .args(match deletion {
                Deletion::Before(full) => program.delete_before(full, confirm),
                Deletion::Target(backup) => program.delete_target(backup, confirm),
            })
            .envs(program.deletion_settings());
        let read = async |stdout, stderr| {
            let pipes = tokio::join!(
                self.read(program, plan, stdout),
                self.read(program, plan, stderr)
            );
            pipes.0.and(pipes.1)
        };
        let after = self.repository.program.archive.backup_timeout;
        let streamed = timeout(after, process::stream_both(command, read)).await;
        let (status, said) = streamed.map_err(|_| RetentionError::TooSlow { after })??;
        if !status.success() {
            let said = Some(said.last_line).filter(|line| !line.is_empty());
            let reason = said.unwrap_or_else(|| status.to_string());
            return Err(failed(program, "delete", reason));
        }
        let program = program.to_string();
        let disagrees = said.disagrees(confirm);
        disagrees.map_or(Ok(()), |what| {
            Err(RetentionError::Disagrees { program, what })
        })
    }

    async fn read(
        &self,
        program: Program,
        plan: &PrunePlan,
        pipe: impl AsyncRead + Unpin,
    ) -> ProgramListing {
        let mut said = ProgramListing::default();
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        // A read error ends the output like its end does; the exit status judges.
        while reader
            .read_until(b'\n', &mut line)
            .await
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line);
            said.hear(program, plan, self.size, text.trim_end());
            line.clear();
        }
        said
    }

    fn command(&self) -> Result<(Program, Command), RetentionError> {
        let directory = self.repository.data_directory();
        let (program, mut command) = self.repository.command(directory)?;
        // By it both reckon which WAL a permanent backup needs.
        set_segment_size(&mut command, self.size);
        Ok((program, command))
    }
}

fn failed(program: Program, verb: &'static str, reason: String) -> RetentionError {
    RepositoryError::Failed {
        program: program.to_string(),
        verb,
        reason,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::retention::{Action, BackupPlan};

    const OLD: &str = "base_000000010000000000000002";
    const NEW: &str = "base_000000010000000000000008";

    fn listing_of(lines: &[String]) -> ProgramListing {
        let backup = |name: &str, action| BackupPlan {
            name: name.to_owned(),
            action,
            reason: String::new(),
            bytes: 0,
        };
        let plan = PrunePlan {
            backups: vec![backup(OLD, Action::Delete), backup(NEW, Action::Keep)],
            wal: Vec::new(),
            before: None,
        };
        let mut said = ProgramListing::default();
        for line in lines {
            said.hear(Program::WalG, &plan, SegmentSize::default(), line);
        }
        said
    }

    #[test]
    fn a_dry_run_that_names_what_is_kept_or_nothing_disagrees_on_either_pipe() {
        let new = |name| {
            format!("INFO: Object marked for deletion: {name}/metadata.json storage=default")
        };
        let old =
            |name| format!("INFO: \twill be deleted: {name}/metadata.json, from storage: default");
        let kept = format!("{NEW}/metadata.json, which retention keeps");
        let nothing = "nothing that its dry run names, and retention has something to delete";
        for (what, lines, dry) in [
            ("3.0.9", vec![new(OLD)], None),
            ("before 3.0.9", vec![old(OLD)], None),
            (
                "3.0.9, too much",
                vec![new(OLD), new(NEW)],
                Some(kept.as_str()),
            ),
            (
                "before 3.0.9, too much",
                vec![old(NEW)],
                Some(kept.as_str()),
            ),
            (
                "another wording",
                vec![format!("removes {OLD}")],
                Some(nothing),
            ),
            ("silent", vec![], Some(nothing)),
        ] {
            let disagrees = |said: ProgramListing| said.disagrees(false);
            let on_stdout = listing_of(&lines).and(listing_of(&[]));
            assert_eq!(disagrees(on_stdout).as_deref(), dry, "{what}");
            let on_stderr = listing_of(&[]).and(listing_of(&lines));
            assert_eq!(disagrees(on_stderr).as_deref(), dry, "{what}");
        }
        // After the deletion the bucket itself is read.
        assert_eq!(listing_of(&[]).disagrees(true), None);
    }
}
