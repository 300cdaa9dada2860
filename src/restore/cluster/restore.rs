//! `xdb restore`: a cluster that is kept, for the worst day and for "the table as of 10:42".
//!
//! It fetches and recovers as every restore test does, but durably, and into an empty directory. The restored cluster is
//! promoted and stopped, no longer needs the bucket, and archives nothing until an operator enables that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::backup_settings::{HeldSetting, RestoredSettings, set_aside_settings};
use super::completion::{StoppedRestore, complete_restore, finish_hint};
use super::outlook::Outlook;
use super::shell::shell;
use super::startable::startable;
use super::work_directory::{Completion, WorkDirectory};
use crate::log;
use crate::model::{Lsn, Timeline, Verdict, Verification};
use crate::postgres;
use crate::restore::plan::Survey;
use crate::restore::recover::{
    OnMessage, Recovery, SHUTDOWN_KEPT, ScratchServer, proven_damage, refuse_root, report_fetch,
    report_recovery,
};
use crate::restore::scratch::{PlacedTablespace, placed_tablespaces, sync_volume};
use crate::restore::verify::{
    check_fetched, check_node, judge_prepared, judge_recovered, list_databases,
};
use crate::restore::{OnStep, RestoreError, Setup, Step, Verifications, named_reason, secs};

/// Limit of one query to a cluster that is kept.
const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// A cluster that was restored; the JSON of `xdb restore --json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RestoredCluster {
    pub directory: PathBuf,
    pub backup: String,
    pub system_identifier: Option<u64>,
    /// The timeline that was recovered.
    pub timeline: Option<Timeline>,
    /// The timeline that the promotion began.
    pub new_timeline: Timeline,
    /// Tablespaces, each of which wants a place of its own before the server starts.
    pub tablespaces: Vec<PlacedTablespace>,
    /// Settings that stay off until an operator resets them.
    pub held: Vec<HeldSetting>,
    /// Configuration files that the backup lacks, or that no server starts with: xdb wrote minimal ones.
    pub made_files: Vec<String>,
    /// End of the last record that was replayed.
    pub recovered_lsn: Option<Lsn>,
    /// Commit time of the last transaction that was replayed; `None` where the WAL held none.
    pub recovered_to: Option<Timestamp>,
    pub secs: f64,
    pub steps: Vec<Step>,
    pub verifications: Vec<Verification>,
    /// What is wrong with it, though it was restored.
    pub reason: Option<String>,
    /// Why xdb could not check that it was recovered up to the target or the end of the archive.
    pub unknown: Option<String>,
}

/// Restores what `outlook` judged. `progress` gets each step when it ends, `notify` the progress of a long one.
///
/// # Errors
/// [`RestoreError::Kept`]: a step after the recovery failed, and the cluster is there. Any other: nothing of it is left.
pub(crate) async fn restore_cluster(
    setup: &Setup,
    outlook: Outlook,
    on_step: OnStep<'_>,
    notify: OnMessage<'_>,
) -> Result<RestoredCluster, RestoreError> {
    let began = Instant::now();
    let forecast = outlook.forecast;
    let mut survey = outlook.survey;
    let mut work = WorkDirectory::open(&forecast.directory)?;
    let mut recovery = Recovery::for_kept_cluster(setup, outlook.record, on_step);
    let recovered = recover(&mut recovery, &mut work, &mut survey, notify).await;
    let directory = work.directory().to_owned();
    let bin = &setup.postgres().bin_directory;
    let sync = Instant::now();
    work.end_processes().await;
    let (new_timeline, back, made_files) = match (recovered, work.complete()) {
        (Ok(timeline), Some(Completion::Complete(back, control))) => {
            let made_files = check_and_sync(&directory, bin, &back, &control).await?;
            (timeline, back, made_files)
        }
        (Ok(_), Some(Completion::Unfinished(error))) => {
            return Err(unfinished_error(log::chain(&error), directory));
        }
        (Err(error), Some(Completion::Complete(back, control))) => {
            // Settings of the backup may keep the server from starting; that is reported beside `error`.
            let checked = check_and_sync(&directory, bin, &back, &control).await;
            return Err(kept_error(
                &error,
                checked.err().as_ref(),
                &back,
                directory,
                bin,
            ));
        }
        (Err(error), Some(Completion::Unfinished(next))) => {
            let reason = format!("{}; then: {}", log::chain(&error), log::chain(&next));
            return Err(unfinished_error(reason, directory));
        }
        (Err(error), None) => return Err(with_damage(error, &recovery.record.verifications)),
        (Ok(_), None) => {
            let reason = "it recovered, and its server did not open".to_owned();
            return Err(RestoreError::Server(reason));
        }
    };
    let tablespaces = placed_tablespaces(&directory, &survey.plan.sentinel.tablespaces);
    recovery.steps.end("sync", sync, None);
    let Recovery { record, steps, .. } = recovery;
    Ok(RestoredCluster {
        directory,
        backup: forecast.backup,
        system_identifier: record.system_identifier,
        timeline: record.timeline,
        new_timeline,
        tablespaces,
        held: back.held,
        made_files,
        recovered_lsn: record.recovered_lsn,
        recovered_to: record.recovered_to,
        secs: secs(began.elapsed()),
        reason: damage(&record.verifications),
        unknown: unknown_end(&record.verifications),
        steps: steps.into_list(),
        verifications: record.verifications.into_list(),
    })
}

/// Completes a restore in `directory` that was stopped after its recovery.
///
/// # Errors
/// When no restore was stopped there; [`RestoreError::Kept`] when a step fails again.
pub(crate) async fn finish_restore(
    bin: &Path,
    directory: &Path,
) -> Result<RestoredCluster, RestoreError> {
    refuse_root()?;
    let began = Instant::now();
    let stopped = StoppedRestore::open(directory)?;
    let directory = stopped.directory.clone();
    let control = postgres::control_data(bin, &stopped.data()).await?;
    let new_timeline = postgres::own_timeline(bin, &stopped.data()).await?;
    let completed = complete_restore(&directory, &control);
    let back =
        completed.map_err(|error| unfinished_error(log::chain(&error), directory.clone()))?;
    let made_files = check_and_sync(&directory, bin, &back, &control).await?;
    let marker = stopped.marker.as_ref();
    let backup = marker.and_then(|marker| marker.backup.clone());
    let tablespaces = marker.map(|marker| marker.tablespaces.as_slice());
    Ok(RestoredCluster {
        backup: backup.unwrap_or_else(|| "a backup of unknown name".to_owned()),
        system_identifier: Some(control.system_identifier),
        timeline: None,
        new_timeline,
        tablespaces: placed_tablespaces(&directory, tablespaces.unwrap_or_default()),
        held: back.held,
        made_files,
        recovered_lsn: None,
        recovered_to: None,
        secs: secs(began.elapsed()),
        reason: marker.and_then(|marker| marker.reason.clone()),
        unknown: marker.and_then(|marker| marker.unknown.clone()),
        steps: Vec::new(),
        verifications: Vec::new(),
        directory,
    })
}

/// What the first bad verification found.
fn damage(verifications: &Verifications) -> Option<String> {
    verifications.critical().map(named_reason)
}

/// Why it is unknown where the recovery ended, if it is.
fn unknown_end(verifications: &Verifications) -> Option<String> {
    const NAME: &str = "end_reached";
    match verifications.verdict(NAME)? {
        Verdict::Unknown(reason) => Some(format!("{NAME}: {reason}")),
        _ => None,
    }
}

/// Adds to `error` what a verification found bad before: that is its cause.
fn with_damage(error: RestoreError, verifications: &Verifications) -> RestoreError {
    match (error, damage(verifications)) {
        (RestoreError::Bad(words), Some(damage)) => {
            RestoreError::Bad(format!("{words} ({damage})"))
        }
        (error, _) => error,
    }
}

/// Fetches, recovers, and stops the cluster; returns its new timeline.
async fn recover(
    recovery: &mut Recovery<'_>,
    work: &mut WorkDirectory,
    survey: &mut Survey,
    notify: OnMessage<'_>,
) -> Result<Timeline, RestoreError> {
    let plan = &survey.plan;
    work.scratch.update_marker(|marker| {
        marker.backup = Some(plan.backup.name.clone());
        marker.tablespaces.clone_from(&plan.sentinel.tablespaces);
        marker.timeline = Some(plan.path.timeline);
    })?;
    let bin = &recovery.setup.postgres().bin_directory;
    let scratch = &work.scratch;
    let bytes = plan.sentinel.restored_size();
    report_fetch(recovery.fetch(scratch, survey), scratch, bytes, notify).await?;
    let verifications = &mut recovery.record.verifications;
    let control = check_fetched(verifications, bin, &scratch.data(), survey, true).await?;
    set_aside_settings(&scratch.data(), &work.aside())?;
    work.note_control(control.clone());

    let scratch = &work.scratch;
    let last = survey.plan.path.reachable;
    let last = last.map_or_else(String::new, |last| last.name(survey.catalog.wal.size));
    let recovered = recovery.recover(scratch, survey, &control);
    let (server, end) = report_recovery(recovered, scratch, &last, notify).await?;
    judge_recovered(&mut recovery.record, scratch, survey, &end)?;
    let verifications = &mut recovery.record.verifications;
    verify_kept(verifications, &server).await;
    let (reason, unknown) = (damage(verifications), unknown_end(verifications));

    let stop = Instant::now();
    server.shut_down(SHUTDOWN_KEPT).await;
    let Some((timeline, _)) = postgres::ended_at(bin, &scratch.data()).await? else {
        return Err(RestoreError::Server(
            "it recovered, and its shutdown failed".to_owned(),
        ));
    };
    recovery.steps.end("stop", stop, None);
    if reason.is_some() || unknown.is_some() {
        // Only `--finish` reads it, so a marker that cannot be written ends no restore.
        let _ = work.scratch.update_marker(|marker| {
            marker.reason = reason;
            marker.unknown = unknown;
        });
    }
    Ok(timeline)
}

/// Reports what this node lacks for the databases of a cluster that is kept, and its prepared transactions.
///
/// The cluster is restored, so that a query that fails here is reported and ends no restore.
async fn verify_kept(verifications: &mut Verifications, server: &ScratchServer) {
    match list_databases(server, QUERY_LIMIT, true).await {
        Ok((databases, prepared)) => {
            let prepared = judge_prepared(&prepared);
            verifications.add_unless_ok("prepared_transactions", prepared);
            let node = check_node(server, &databases, true).await;
            verifications.add_unless_ok("databases", node);
        }
        Err(error) => {
            let verdict = match proven_damage(&error) {
                Some(words) => Verdict::Critical(format!("they cannot be listed: {words}")),
                None => Verdict::Unknown(format!("what its databases need is unknown: {error}")),
            };
            verifications.add("databases", verdict);
        }
    }
}

/// Checks that a server starts on the cluster in `directory`, and waits until the disk has all of it. Returns the files that
/// xdb had to write.
///
/// # Errors
/// [`RestoreError::Kept`], with what is unknown now.
async fn check_and_sync(
    directory: &Path,
    bin: &Path,
    back: &RestoredSettings,
    control: &postgres::ControlData,
) -> Result<Vec<String>, RestoreError> {
    let kept = |error: &RestoreError, hint: String| RestoreError::Kept {
        reason: log::chain(error),
        directory: directory.to_owned(),
        hint,
    };
    let word = shell(directory);
    let made = startable(directory, bin, back, control).await;
    let made = made.map_err(|error| {
        let hint = format!(
            "the cluster is complete and stopped; xdb could not check whether a server starts with the settings of the backup: try it with `{}/postgres -D {word} -C data_directory`; then start it as runbooks/disaster_restore.md says",
            bin.display()
        );
        kept(&error, hint)
    })?;
    sync_volume(directory).await.map_err(|error| {
        let hint = format!(
            "the cluster is complete and stopped, and files on the disk may be incomplete: see the kernel's log (dmesg). Once the disk is good again, check them before use: {}/pg_checksums -D {word} --check",
            bin.display()
        );
        kept(&error, hint)
    })?;
    Ok(made)
}

/// The error for a recovered cluster that could not be completed.
fn unfinished_error(reason: String, directory: PathBuf) -> RestoreError {
    RestoreError::Kept {
        reason,
        hint: finish_hint(&directory),
        directory,
    }
}

/// The error for a restore that ended with `error` after the recovery, and perhaps with another one `then`.
fn kept_error(
    error: &RestoreError,
    then: Option<&RestoreError>,
    back: &RestoredSettings,
    directory: PathBuf,
    bin: &Path,
) -> RestoreError {
    let held: Vec<&str> = back.held.iter().map(|held| held.name).collect();
    let (word, held) = (shell(&directory), held.join(", "));
    let remedy = match error {
        RestoreError::LoginRefused { .. } => format!(
            "allow a login, without a server: `{}/postgres --single -D {word} template1`, then ALTER ROLE … LOGIN, ALTER ROLE … RESET ALL or ALTER DATABASE … ALLOW_CONNECTIONS true, and start it",
            bin.display()
        ),
        _ => "check its data before you use it: start it as runbooks/disaster_restore.md says, nothing has to be fetched again"
            .to_owned(),
    };
    let (reason, remedy) = match then {
        Some(RestoreError::Kept { reason, hint, .. }) => (
            format!("{}; then: {reason}", log::chain(error)),
            format!("{hint}\n{remedy}"),
        ),
        _ => (log::chain(error), remedy),
    };
    RestoreError::Kept {
        reason,
        hint: format!(
            "{remedy}\nthe cluster is complete and stopped; held back in {word}/postgresql.auto.conf until you RESET them: {held}"
        ),
        directory,
    }
}
