//! The program's own `delete` and `backup-mark`: each deletion runs dry first, and may name nothing that the plan keeps.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::Plan;
use crate::archive::{ArchiveError, Program, Repository, environment};
use crate::config::Config;
use crate::model::SegmentSize;
use crate::process::{self, ProcessError};

/// One call of a program's `delete`.
pub(super) enum Deletion<'a> {
    /// All that is older than this full backup.
    Before(&'a str),
    /// This backup, and what builds on it.
    Target(&'a str),
}

/// The configured program on one repository.
pub(super) struct Deleter<'a> {
    pub(super) config: &'a Config,
    pub(super) repository: &'a Repository,
    pub(super) size: SegmentSize,
}

/// What a program said while it deleted, or would have.
#[derive(Default)]
struct Said {
    /// The first object that the plan keeps.
    kept: Option<String>,
    last_line: String,
}

impl Deleter<'_> {
    /// Marks `backup` permanent, or takes the mark away.
    pub(super) async fn mark(&self, backup: &str, permanent: bool) -> Result<(), ArchiveError> {
        let (program, mut command) = self.command()?;
        command.args(program.backup_mark(backup, permanent));
        let finished = process::run(command, self.config.archive.backup_timeout).await?;
        if finished.status.success() {
            return Ok(());
        }
        Err(failed(program, "backup-mark", finished.last_words()))
    }

    /// Lets the program say what it would delete, and holds that against `plan`.
    pub(super) async fn dry_run(
        &self,
        plan: &Plan,
        deletion: &Deletion<'_>,
    ) -> Result<(), ArchiveError> {
        self.run(plan, deletion, false).await
    }

    pub(super) async fn delete(
        &self,
        plan: &Plan,
        deletion: &Deletion<'_>,
    ) -> Result<(), ArchiveError> {
        self.run(plan, deletion, true).await
    }

    async fn run(
        &self,
        plan: &Plan,
        deletion: &Deletion<'_>,
        confirm: bool,
    ) -> Result<(), ArchiveError> {
        let (program, mut command) = self.command()?;
        command
            .args(match deletion {
                Deletion::Before(full) => program.delete_before(full, confirm),
                Deletion::Target(backup) => program.delete_target(backup, confirm),
            })
            .envs(program.deletion_settings());
        let read = async |stdout| Ok::<_, ProcessError>(self.read(program, plan, stdout).await);
        let after = self.config.archive.backup_timeout;
        let streamed = timeout(after, process::stream(command, read)).await;
        let (finished, said) = streamed.map_err(|_| ArchiveError::TooSlow { after })??;
        if !finished.status.success() {
            let said = Some(said.last_line).filter(|line| !line.is_empty());
            let reason = said.unwrap_or_else(|| finished.last_words());
            return Err(failed(program, "delete", reason));
        }
        let program = program.to_string();
        said.kept.map_or(Ok(()), |object| {
            Err(ArchiveError::Disagrees { program, object })
        })
    }

    async fn read(&self, program: Program, plan: &Plan, stdout: impl AsyncRead + Unpin) -> Said {
        let mut said = Said::default();
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // A read error ends the output like its end does; the exit status judges.
        while reader
            .read_until(b'\n', &mut line)
            .await
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if let Some(object) = program.listed_for_deletion(text)
                && !plan.deletes(object, self.size)
            {
                said.kept.get_or_insert_with(|| object.to_owned());
            }
            text.clone_into(&mut said.last_line);
            line.clear();
        }
        said
    }

    fn command(&self) -> Result<(Program, Command), ArchiveError> {
        let directory = &self.config.postgres.data_directory;
        let (program, mut command) = environment::command(self.config, self.repository, directory)?;
        // In MiB. By it both reckon which WAL a permanent backup needs.
        command.env("WALG_PG_WAL_SIZE", (self.size.bytes() >> 20).to_string());
        Ok((program, command))
    }
}

fn failed(program: Program, verb: &'static str, reason: String) -> ArchiveError {
    ArchiveError::Failed {
        program: program.to_string(),
        verb,
        reason,
    }
}
