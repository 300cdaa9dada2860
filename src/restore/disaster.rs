//! `xdb restore`: a cluster that is kept, for the worst day and for "the table as of 10:42".
//!
//! It fetches and recovers as every restore test does, but durably, and into an empty directory. The restored cluster is
//! promoted and stopped, no longer needs the bucket, and archives nothing until an operator enables that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::RestoreError;
use super::backup_settings::{self, Held, PutBack};
use super::completion::{self, Unfinished, finish_hint};
use super::outlook::Outlook;
use super::preflight::Found;
use super::progress::{self, Tell};
use super::report::{Report, Step, secs};
use super::run::{Options, SHUTDOWN_KEPT, Test, refuse_root};
use super::shell::shell;
use super::startable::startable;
use super::sync::sync_volume;
use super::tablespaces::{self, Placed};
use super::work_directory::{Left, Place};
use crate::log;
use crate::model::{Lsn, Timeline, Verdict, Verification};
use crate::postgres;
use crate::restore::Setup;

/// Ends a restore that hangs. A restore that makes progress is never this slow.
pub(super) const LIMIT: Duration = Duration::from_secs(14 * 24 * 3600);

/// A cluster that came back; the JSON of `xdb restore --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    pub directory: PathBuf,
    pub backup: String,
    pub system_identifier: Option<u64>,
    /// The timeline that was recovered.
    pub timeline: Option<Timeline>,
    /// The timeline that the promotion began.
    pub new_timeline: Timeline,
    /// Tablespaces, each of which wants a place of its own before the server starts.
    pub tablespaces: Vec<Placed>,
    /// Settings that stay off until an operator resets them.
    pub held: Vec<Held>,
    /// Configuration files that the backup lacks, or that no server starts with: xdb wrote minimal ones.
    pub made_files: Vec<String>,
    /// End of the last record that was replayed.
    pub recovered_lsn: Option<Lsn>,
    /// Commit time of the last transaction that was replayed; `None` where the WAL held none.
    pub recovered_to: Option<Timestamp>,
    pub secs: f64,
    pub steps: Vec<Step>,
    pub verifications: Vec<Verification>,
    /// What is wrong with it, though it came back.
    pub reason: Option<String>,
    /// Why xdb could not check that it came back up to the target or the end of the archive.
    pub unknown: Option<String>,
}

/// Restores what `outlook` judged. `progress` gets each step when it ends, `tell` the progress of a long one.
///
/// # Errors
/// [`RestoreError::Kept`]: a step after the recovery failed, and the cluster is there. Any other: nothing of it is left.
pub async fn restore(
    setup: &Setup,
    outlook: Outlook,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
    tell: Tell<'_>,
) -> Result<Restored, RestoreError> {
    let began = Instant::now();
    let forecast = outlook.forecast;
    let (mut found, report) = (outlook.found, outlook.report);
    let mut place = Place::open(&forecast.directory)?;
    let mut test = Test {
        setup,
        options: &Options::default(),
        progress,
        report,
        deadline: began + LIMIT,
        durable: true,
    };
    let recovered = recover(&mut test, &mut place, &mut found, tell).await;
    let directory = place.directory().to_owned();
    let bin = &setup.postgres().bin_directory;
    let sync = Instant::now();
    place.end_processes().await;
    let (new_timeline, back, made_files) = match (recovered, place.complete()) {
        (Ok(timeline), Some(Left::Complete(back, control))) => {
            let made_files = settle(&directory, bin, &back, &control).await?;
            (timeline, back, made_files)
        }
        (Ok(_), Some(Left::Unfinished(error))) => {
            return Err(unfinished(log::chain(&error), directory));
        }
        (Err(error), Some(Left::Complete(back, control))) => {
            // Settings of the backup may keep the server from starting; that is reported beside `error`.
            let settled = settle(&directory, bin, &back, &control).await;
            return Err(kept(&error, settled.err().as_ref(), &back, directory, bin));
        }
        (Err(error), Some(Left::Unfinished(next))) => {
            let reason = format!("{}; then: {}", log::chain(&error), log::chain(&next));
            return Err(unfinished(reason, directory));
        }
        (Err(error), None) => return Err(with_reason(error, &test.report)),
        (Ok(_), None) => {
            let reason = "it recovered, and its server did not open".to_owned();
            return Err(RestoreError::Server(reason));
        }
    };
    let tablespaces = tablespaces::placed(&directory, &found.plan.sentinel.tablespaces);
    test.step("sync", sync, None);
    let report = test.report;
    Ok(Restored {
        directory,
        backup: forecast.backup,
        system_identifier: report.system_identifier,
        timeline: report.timeline,
        new_timeline,
        tablespaces,
        held: back.held,
        made_files,
        recovered_lsn: report.recovered_lsn,
        recovered_to: report.recovered_to,
        secs: secs(began.elapsed()),
        reason: bad(&report),
        unknown: unknown_end(&report),
        steps: report.steps,
        verifications: report.verifications,
    })
}

/// Completes a restore in `directory` that was stopped after its recovery.
///
/// # Errors
/// When no restore was stopped there; [`RestoreError::Kept`] when a step fails again.
pub async fn finish(bin: &Path, directory: &Path) -> Result<Restored, RestoreError> {
    refuse_root()?;
    let began = Instant::now();
    let stopped = Unfinished::open(directory)?;
    let directory = stopped.directory.clone();
    let control = postgres::control_data(bin, &stopped.data()).await?;
    let new_timeline = postgres::own_timeline(bin, &stopped.data()).await?;
    let completed = completion::complete(&directory, &control);
    let back = completed.map_err(|error| unfinished(log::chain(&error), directory.clone()))?;
    let made_files = settle(&directory, bin, &back, &control).await?;
    let marker = stopped.marker.as_ref();
    let backup = marker.and_then(|marker| marker.backup.clone());
    let tablespaces = marker.map(|marker| marker.tablespaces.as_slice());
    Ok(Restored {
        backup: backup.unwrap_or_else(|| "a backup of unknown name".to_owned()),
        system_identifier: Some(control.system_identifier),
        timeline: None,
        new_timeline,
        tablespaces: tablespaces::placed(&directory, tablespaces.unwrap_or_default()),
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

/// The first verification that found something bad.
fn bad(report: &Report) -> Option<String> {
    let bad = |verification: &&Verification| matches!(verification.verdict, Verdict::Critical(_));
    let bad = report.verifications.iter().find(bad)?;
    let reason = bad.verdict.reason().unwrap_or_default();
    Some(format!("{}: {reason}", bad.name))
}

/// Why it is unknown where the recovery ended, if it is.
fn unknown_end(report: &Report) -> Option<String> {
    let mut all = report.verifications.iter();
    let end = all.find(|verification| verification.name == "end_reached")?;
    match &end.verdict {
        Verdict::Unknown(reason) => Some(format!("{}: {reason}", end.name)),
        _ => None,
    }
}

/// Adds to `error` what a verification found bad before: that is its cause.
fn with_reason(error: RestoreError, report: &Report) -> RestoreError {
    match (error, bad(report)) {
        (RestoreError::Bad(words), Some(seen)) => RestoreError::Bad(format!("{words} ({seen})")),
        (error, _) => error,
    }
}

/// Fetches, recovers, and stops the cluster; returns its new timeline.
async fn recover(
    test: &mut Test<'_>,
    place: &mut Place,
    found: &mut Found,
    tell: Tell<'_>,
) -> Result<Timeline, RestoreError> {
    let sentinel = &found.plan.sentinel;
    place.scratch.note(|marker| {
        marker.backup = Some(found.plan.backup.name.clone());
        marker.tablespaces.clone_from(&sentinel.tablespaces);
        marker.timeline = Some(found.plan.path.timeline);
    })?;
    let scratch = &place.scratch;
    let fetch = Instant::now();
    let bytes = sentinel.restored_size();
    progress::of_fetch(test.fetch(scratch, found), scratch, bytes, tell).await?;
    test.step("fetch", fetch, Some(found.plan.fetch_bytes));
    let control = test.look_at_fetched(scratch, found).await?;
    backup_settings::set_aside(&scratch.data(), &place.aside())?;
    place.note_control(control.clone());

    let scratch = &place.scratch;
    let recover = Instant::now();
    let last = found.plan.path.reachable;
    let last = last.map_or_else(String::new, |last| last.name(found.catalog.wal.size));
    let recovery = test.recover(scratch, found, &control);
    let (server, recovered) = progress::of_recovery(recovery, scratch, &last, tell).await?;
    let start = found.plan.sentinel.start_lsn;
    let replayed = recovered.lsn.0.saturating_sub(start.0);
    test.step("recover", recover, Some(replayed));
    test.settle_gaps(found, recovered.lsn);
    test.judge_point(scratch, found, &recovered)?;
    test.look_at_kept(&server).await;

    let stop = Instant::now();
    server.shut_down(SHUTDOWN_KEPT).await;
    let bin = &test.setup.postgres().bin_directory;
    let Some((timeline, _)) = postgres::ended_at(bin, &scratch.data()).await? else {
        return Err(RestoreError::Server(
            "it recovered, and its shutdown failed".to_owned(),
        ));
    };
    test.step("stop", stop, None);
    let (reason, unknown) = (bad(&test.report), unknown_end(&test.report));
    if reason.is_some() || unknown.is_some() {
        // Only `--finish` reads it, so a marker that cannot be written ends no restore.
        let _ = place.scratch.note(|marker| {
            marker.reason = reason;
            marker.unknown = unknown;
        });
    }
    Ok(timeline)
}

/// Checks that a server starts on the cluster in `directory`, and waits until the disk has all of it. Returns the files that
/// xdb had to write.
///
/// # Errors
/// [`RestoreError::Kept`], with what is unknown now.
async fn settle(
    directory: &Path,
    bin: &Path,
    back: &PutBack,
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
fn unfinished(reason: String, directory: PathBuf) -> RestoreError {
    RestoreError::Kept {
        reason,
        hint: finish_hint(&directory),
        directory,
    }
}

/// The error for a restore that ended with `error` after the recovery, and perhaps with another one `then`.
fn kept(
    error: &RestoreError,
    then: Option<&RestoreError>,
    back: &PutBack,
    directory: PathBuf,
    bin: &Path,
) -> RestoreError {
    let held: Vec<&str> = back.held.iter().map(|held| held.name).collect();
    let (word, held) = (shell(&directory), held.join(", "));
    let mend = match error {
        RestoreError::Closed { .. } => format!(
            "allow a login, without a server: `{}/postgres --single -D {word} template1`, then ALTER ROLE … LOGIN, ALTER ROLE … RESET ALL or ALTER DATABASE … ALLOW_CONNECTIONS true, and start it",
            bin.display()
        ),
        _ => "check its data before you use it: start it as runbooks/disaster_restore.md says, nothing has to be fetched again"
            .to_owned(),
    };
    let (reason, mend) = match then {
        Some(RestoreError::Kept { reason, hint, .. }) => (
            format!("{}; then: {reason}", log::chain(error)),
            format!("{hint}\n{mend}"),
        ),
        _ => (log::chain(error), mend),
    };
    RestoreError::Kept {
        reason,
        hint: format!(
            "{mend}\nthe cluster is complete and stopped; held back in {word}/postgresql.auto.conf until you RESET them: {held}"
        ),
        directory,
    }
}
