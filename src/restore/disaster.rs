//! `xdb restore`: a cluster that is kept, for the worst day and for "the table as of 10:42".
//!
//! The same fetch and recovery as in every restore test, but durable, in an empty directory, and to the end: what comes
//! out is promoted, stopped, needs the bucket no more, and archives nothing until a person says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::RestoreError;
use super::brought::{self, Held, PutBack};
use super::completion::{self, Unfinished, finish_hint};
use super::forecast::{Forecast, forecast};
use super::place::{self, Left, Place};
use super::plan::{self, Pick};
use super::preflight::{Found, judge_version, look, look_at_backup};
use super::report::{Report, Step, secs};
use super::restore_point::judge_name;
use super::run::{Options, SHUTDOWN_KEPT, Test, refuse_root};
use super::scratch::{free_bytes, reserve_bytes};
use super::shell::shell;
use super::sign::{self, Tell};
use super::startable::startable;
use super::sync::sync_volume;
use super::tablespaces::{self, Placed};
use super::until::Until;
use crate::config::{Config, Loaded};
use crate::log;
use crate::model::{Lsn, Timeline, Verdict, Verification};
use crate::postgres;

/// A person watches a restore, and no clock ends one that goes on; this only ends what hangs for ever.
const LIMIT: Duration = Duration::from_secs(14 * 24 * 3600);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub directory: PathBuf,
    /// The newest, or the last one before `until`, where `None`.
    pub backup: Option<String>,
    pub until: Option<Until>,
    /// It was not said to be the name of a restore point, and may be a slip: it is looked for first.
    pub is_guess: bool,
}

/// A restore that was looked at and not begun.
pub struct Outlook {
    pub forecast: Forecast,
    /// Newer backups that were not taken, each with what is known against it; empty where one was named.
    pub passed_over: Vec<String>,
    found: Found,
    report: Report,
}

/// A cluster that came back; the JSON of `xdb restore --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    pub directory: PathBuf,
    pub backup: String,
    pub system_identifier: Option<u64>,
    /// The timeline that was recovered.
    pub timeline: Option<Timeline>,
    /// The timeline that the cluster goes on as.
    pub new_timeline: Timeline,
    /// Tablespaces, each of which wants a place of its own before the server starts.
    pub tablespaces: Vec<Placed>,
    /// Settings that are off until a person says otherwise.
    pub held: Vec<Held>,
    /// Configuration files that the backup brought none of, or none that a server starts with: minimal ones were made.
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
}

impl Restored {
    /// Whether it could not be seen that the recovery ended where it should have.
    pub fn end_is_unknown(&self) -> bool {
        let mut all = self.verifications.iter();
        all.any(|it| it.name == "end_reached" && matches!(it.verdict, Verdict::Unknown(_)))
    }
}

/// Looks at what the restore would do; touches nothing.
///
/// # Errors
/// When it is refused, there is nothing to restore, or the bucket cannot be read.
pub async fn outlook(config: &Config, request: &Request) -> Result<Outlook, RestoreError> {
    refuse_root()?;
    place::judge(&request.directory)?;
    let mut report = Report::default();
    let (backup, until) = (request.backup.as_deref(), request.until.as_ref());
    let found = look(config, (backup, Pick::Good), until, &mut report).await?;
    if request.is_guess {
        judge_name(config, &found, until).await?;
    }
    let free = free_bytes(place::nearest(&request.directory))?;
    let is_named = backup.is_some_and(|name| name != plan::LATEST);
    let passed_over = match is_named {
        true => Vec::new(),
        false => plan::passed_over(&found.catalog, &found.plan.backup, until),
    };
    Ok(Outlook {
        passed_over,
        forecast: forecast(config, &found, &request.directory, free).await,
        found,
        report,
    })
}

impl Outlook {
    /// Whether it can be done: all the WAL on the way, the programs, the room, the backup's own parts.
    ///
    /// # Errors
    /// Why not.
    pub async fn judge(&mut self, config: &Config) -> Result<(), RestoreError> {
        let plan = &self.found.plan;
        if let Some(reason) = plan.gaps.reason() {
            let end = self.forecast.wal.as_ref().map(|wal| wal.to_lsn);
            return Err(RestoreError::Unreachable {
                reason: format!("the end of the archive cannot be reached: {reason}"),
                hint: match end {
                    Some(end) => {
                        format!(
                            "what lies before comes back with --until {end}; before the rest is given up, look for the missing segments in pg_wal of the old servers"
                        )
                    }
                    None => {
                        "`xdb backup list` shows how far each backup can be recovered".to_owned()
                    }
                },
            });
        }
        judge_version(config, plan).await?;
        // Beside a live cluster, on its own disk, some of that is left to it.
        let (directory, free) = (&self.forecast.directory, self.forecast.free_bytes);
        let live = &config.postgres.data_directory;
        let reserve = reserve_bytes(place::nearest(directory), live);
        plan::judge_space(plan, directory, free, reserve, &[])?;
        look_at_backup(&mut self.found, &mut self.report).await
    }
}

/// Restores what `outlook` judged; `progress` is told each step as it ends, `tell` how far a long one has come.
///
/// # Errors
/// Why nothing came back, and then nothing of it is left either; or [`RestoreError::Kept`]: what recovered is there, and what
/// failed came after.
pub async fn restore(
    loaded: &Loaded,
    outlook: Outlook,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
    tell: Tell<'_>,
) -> Result<Restored, RestoreError> {
    let began = Instant::now();
    let Outlook {
        forecast,
        mut found,
        report,
        ..
    } = outlook;
    let mut place = Place::open(&forecast.directory)?;
    let mut test = Test {
        loaded,
        options: &Options::default(),
        progress,
        report,
        deadline: began + LIMIT,
        durable: true,
    };
    let recovered = recover(&mut test, &mut place, &mut found, tell).await;
    let directory = place.directory().to_owned();
    let bin = &loaded.config.postgres.bin_directory;
    let sync = Instant::now();
    let (new_timeline, back, made_files) = match (recovered, place.complete()) {
        (Ok(timeline), Some(Left::Complete(back, control))) => {
            let made_files = settle(&directory, bin, &back, &control).await?;
            (timeline, back, made_files)
        }
        (Ok(_), Some(Left::Unfinished(error))) => return Err(unfinished(&error, directory)),
        (Err(error), Some(Left::Complete(back, control))) => {
            // What the backup brought may keep the server from starting; that it was kept is said all the same.
            let settled = settle(&directory, bin, &back, &control).await;
            return Err(kept(&error, settled.err().as_ref(), &back, directory, bin));
        }
        (Err(error), Some(Left::Unfinished(next))) => {
            let reason = format!("{}; then: {}", log::chain(&error), log::chain(&next));
            let hint = finish_hint(&directory);
            return Err(RestoreError::Kept {
                reason,
                directory,
                hint,
            });
        }
        (Err(error), None) => return Err(with_reason(error, &test.report)),
        (Ok(_), None) => {
            let reason = "it recovered, and xdb did not see its server open".to_owned();
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
        steps: report.steps,
        verifications: report.verifications,
    })
}

/// Completes a restore in `directory` that was stopped after its recovery.
///
/// # Errors
/// When there is none, or a step fails again: [`RestoreError::Kept`].
pub async fn finish(loaded: &Loaded, directory: &Path) -> Result<Restored, RestoreError> {
    refuse_root()?;
    let began = Instant::now();
    let bin = &loaded.config.postgres.bin_directory;
    let stopped = Unfinished::open(directory)?;
    let directory = stopped.directory.clone();
    let control = postgres::control_data(bin, &stopped.data()).await?;
    let new_timeline = postgres::own_timeline(bin, &stopped.data()).await?;
    let completed = completion::complete(&directory, &control);
    let back = completed.map_err(|error| unfinished(&error, directory.clone()))?;
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
        steps: Vec::new(),
        verifications: Vec::new(),
        directory,
    })
}

/// The first that is bad of what was seen.
fn bad(report: &Report) -> Option<String> {
    let bad = |verification: &&Verification| matches!(verification.verdict, Verdict::Critical(_));
    let bad = report.verifications.iter().find(bad)?;
    let reason = bad.verdict.reason().unwrap_or_default();
    Some(format!("{}: {reason}", bad.name))
}

/// What was found bad before is why the rest failed.
fn with_reason(error: RestoreError, report: &Report) -> RestoreError {
    match (error, bad(report)) {
        (RestoreError::Bad(words), Some(seen)) => RestoreError::Bad(format!("{words} ({seen})")),
        (error, _) => error,
    }
}

/// Fetches, recovers, stops; gives the timeline that the cluster is on then.
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
    })?;
    let scratch = &place.scratch;
    let fetch = Instant::now();
    let bytes = sentinel.restored_size();
    sign::of_fetch(test.fetch(scratch, found), scratch, bytes, tell).await?;
    test.step("fetch", fetch, Some(found.plan.fetch_bytes));
    let control = test.look_at_fetched(scratch, found).await?;
    brought::set_aside(&scratch.data(), &place.aside())?;
    place.note_control(control.clone());

    let scratch = &place.scratch;
    let recover = Instant::now();
    let last = found.plan.path.reachable;
    let last = last.map_or_else(String::new, |last| last.name(found.catalog.wal.size));
    let recovery = test.recover(scratch, found, &control);
    let (server, recovered) = sign::of_recovery(recovery, scratch, &last, tell).await?;
    let start = found.plan.sentinel.start_lsn;
    let replayed = recovered.lsn.0.saturating_sub(start.0);
    test.step("recover", recover, Some(replayed));
    test.settle_gaps(found, recovered.lsn);
    test.judge_point(scratch, found, &recovered)?;
    test.look_at_kept(&server).await;

    let stop = Instant::now();
    server.shut_down(SHUTDOWN_KEPT).await;
    let bin = &test.loaded.config.postgres.bin_directory;
    let Some((timeline, _)) = postgres::ended_at(bin, &scratch.data()).await? else {
        return Err(RestoreError::Server(
            "it recovered, and did not shut down in order".to_owned(),
        ));
    };
    test.step("stop", stop, None);
    if let Some(reason) = bad(&test.report) {
        // For `--finish` alone, should that be needed: no reason to give up here.
        let _ = place.scratch.note(|marker| marker.reason = Some(reason));
    }
    Ok(timeline)
}

/// Waits until the disk has all of the cluster in `directory`, and sees that a server starts on it. Names the files that xdb
/// had to make.
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
            "it is complete and stopped, and whether a server starts with the settings of the backup is unknown: try it with `{}/postgres -D {word} -C data_directory`; then start it as runbooks/disaster_restore.md says",
            bin.display()
        );
        kept(&error, hint)
    })?;
    sync_volume(directory).await.map_err(|error| {
        let hint = format!(
            "it is complete and stopped, and the disk may lack a part of it: see the kernel's log (dmesg). Where the disk is good again, check it before use: {}/pg_checksums -D {word} --check",
            bin.display()
        );
        kept(&error, hint)
    })?;
    Ok(made)
}

/// What recovered could not be completed.
fn unfinished(error: &RestoreError, directory: PathBuf) -> RestoreError {
    RestoreError::Kept {
        reason: log::chain(error),
        hint: finish_hint(&directory),
        directory,
    }
}

/// A restore that ended with `error` after the recovery, and may have seen another one `then`.
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
            "let somebody in, without a server: `{}/postgres --single -D {word} template1`, then ALTER ROLE … LOGIN, ALTER ROLE … RESET ALL or ALTER DATABASE … ALLOW_CONNECTIONS true, and start it",
            bin.display()
        ),
        _ => "look at what came back before you count on it: start it as runbooks/disaster_restore.md says, nothing has to be fetched again"
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
            "{mend}\nit is complete and stopped; held back in {word}/postgresql.auto.conf until you RESET them: {held}"
        ),
        directory,
    }
}
