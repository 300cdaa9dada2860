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
use super::forecast::{Forecast, forecast};
use super::place::{self, Brought, Place};
use super::plan::{self, Pick};
use super::preflight::{Found, judge_version, look, look_at_backup};
use super::report::{Report, Step, secs};
use super::restore_point::judge_name;
use super::run::{Options, SHUTDOWN_KEPT, Test, refuse_root};
use super::scratch::{free_bytes, reserve_bytes};
use super::sign::{self, Tell};
use super::tablespaces::{self, Placed};
use super::until::Until;
use crate::config::{Config, Loaded};
use crate::model::{Lsn, Timeline, Verdict, Verification};
use crate::postgres::{self, ControlData};
use crate::process;

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
                        format!("what lies before comes back with --until {end}; the rest is lost")
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
/// Why nothing came back; then nothing of it is left either.
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
    let (new_timeline, back, control) = match recovered {
        Ok(recovered) => recovered,
        Err(error) => {
            return Err(match place.keep() {
                Some(back) => kept(&error, &back, directory, bin),
                None => error,
            });
        }
    };
    let sync = Instant::now();
    place.finish()?;
    let made_files = startable(&directory, bin, &back, &control).await?;
    let tablespaces = tablespaces::placed(&directory, &found.plan.sentinel.tablespaces);
    test.step("sync", sync, None);
    let report = test.report;
    let bad = |verification: &&Verification| matches!(verification.verdict, Verdict::Critical(_));
    let bad = report.verifications.iter().find(bad);
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
        reason: bad
            .map(|bad| format!("{}: {}", bad.name, bad.verdict.reason().unwrap_or_default())),
        steps: report.steps,
        verifications: report.verifications,
    })
}

/// Fetches, recovers, stops; gives the timeline that the cluster is on then, and what is held back in it.
async fn recover(
    test: &mut Test<'_>,
    place: &mut Place,
    found: &mut Found,
    tell: Tell<'_>,
) -> Result<(Timeline, PutBack, ControlData), RestoreError> {
    let scratch = &place.scratch;
    let (data, aside) = (scratch.data(), scratch.path().join("brought"));
    let fetch = Instant::now();
    let bytes = found.plan.sentinel.restored_size();
    sign::of_fetch(test.fetch(scratch, found), scratch, bytes, tell).await?;
    test.step("fetch", fetch, Some(found.plan.fetch_bytes));
    let control = test.look_at_fetched(scratch, found).await?;
    brought::set_aside(&data, &aside)?;
    place.note_brought(Brought {
        aside,
        control: control.clone(),
    });

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
    let Some((timeline, _)) = postgres::ended_at(bin, &data).await? else {
        return Err(RestoreError::Server(
            "it recovered, and did not shut down in order".to_owned(),
        ));
    };
    let back = place.put_back()?;
    test.step("stop", stop, None);
    Ok((timeline, back, control))
}

/// A restore that ended with `error` after the recovery.
fn kept(error: &RestoreError, back: &PutBack, directory: PathBuf, bin: &Path) -> RestoreError {
    let held: Vec<&str> = back.held.iter().map(|held| held.name).collect();
    let (shown, held) = (directory.display(), held.join(", "));
    let mend = match error {
        RestoreError::Closed { .. } => format!(
            "let somebody in, without a server: `{}/postgres --single -D {shown} template1`, then ALTER ROLE … LOGIN, ALTER ROLE … RESET ALL or ALTER DATABASE … ALLOW_CONNECTIONS true, and start it",
            bin.display()
        ),
        _ => "start it as runbooks/disaster_restore.md says: nothing has to be fetched again"
            .to_owned(),
    };
    RestoreError::Kept {
        reason: crate::log::chain(error),
        hint: format!(
            "{mend}\nit is complete and stopped; held back in {shown}/postgresql.auto.conf until you RESET them: {held}"
        ),
        directory,
    }
}

/// Makes sure that a server finds its way with what the backup brought: an included file, or a directory elsewhere, may be
/// missing here. Names the files that xdb had to make.
///
/// # Errors
/// When a file cannot be moved or written.
async fn startable(
    data: &Path,
    bin: &Path,
    back: &PutBack,
    control: &ControlData,
) -> Result<Vec<String>, RestoreError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut made: Vec<String> = back.made.iter().map(|name| (*name).to_owned()).collect();
    let mut why = None;
    for setting in ["data_directory", "hba_file"] {
        let mut command = process::command(bin.join("postgres"));
        command.arg("-D").arg(data).args(["-C", setting]);
        let asked = process::run(command, LIMIT).await?;
        let text = String::from_utf8_lossy(&asked.stdout);
        let path = Path::new(text.trim());
        why = match setting {
            _ if !asked.status.success() => Some(asked.last_words()),
            "data_directory" if path != data => {
                Some(format!("its data_directory is {}", path.display()))
            }
            "hba_file" if !path.is_file() => {
                Some(format!("its hba_file {} is not here", path.display()))
            }
            _ => None,
        };
        if why.is_some() {
            break;
        }
    }
    if let Some(why) = why {
        let unusable = brought::replace(data, "postgresql.conf", control)?;
        made.push(format!(
            "postgresql.conf (that of the backup is now {unusable}: {why})"
        ));
    }
    Ok(made)
}
