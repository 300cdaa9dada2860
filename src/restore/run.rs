//! One restore test, from the look at the bucket to the removal of the scratch directory.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::RestoreError;
use super::live;
use super::plan;
use super::preflight::{Found, preflight};
use super::report::{Report, Step, secs};
use super::scratch::{Scratch, free_bytes};
use super::server::{Ended, ScratchServer, configure, restore_command};
use super::verify::{self, Recovered, SqlCheck};
use super::words::{is_damage, speaks_of_network};
use crate::archive::{COULD_NOT_LOOK, catalog, command};
use crate::config::Loaded;
use crate::model::Verdict;
use crate::postgres::{self, ControlData, PostgresError};
use crate::process;

/// The one database that every cluster has.
const MAINTENANCE: &str = "template1";

/// Both programs read it.
const RETRIES: &str = "WALG_DOWNLOAD_FILE_RETRIES";

/// What of the configuration a single test may override.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The newest where `None`.
    pub backup: Option<String>,
    pub sql: Vec<SqlCheck>,
}

/// Runs a restore test of the configured repository; `progress` is told each step as it ends.
///
/// However it ends, there is a report; and whatever the test started or made is gone.
pub async fn run(
    loaded: &Loaded,
    options: &Options,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> Report {
    let limit = loaded.config.restore_test.timeout;
    let deadline = Instant::now() + limit;
    let mut test = Test {
        loaded,
        options,
        progress,
        report: Report::default(),
        deadline,
    };
    let outcome = timeout(limit, test.whole()).await;
    let outcome = outcome.unwrap_or(Err(RestoreError::Deadline { after: limit }));
    test.report.conclude(outcome)
}

struct Test<'a> {
    loaded: &'a Loaded,
    options: &'a Options,
    progress: &'a mut (dyn FnMut(&Step) + Send + Sync),
    report: Report,
    deadline: Instant,
}

impl Test<'_> {
    async fn whole(&mut self) -> Result<(), RestoreError> {
        let config = &self.loaded.config;
        refuse_root()?;
        let began = Instant::now();
        let live = &config.postgres.data_directory;
        let scratch = Scratch::open(&config.restore_test.directory, live)?;
        let backup = self.options.backup.as_deref();
        let found = preflight(config, backup, &scratch, &mut self.report).await?;
        self.step("preflight", began, None);
        let outcome = self.restore(&scratch, &found).await;
        let began = Instant::now();
        let removed = scratch.remove();
        self.step("tear_down", began, None);
        // What the test found comes before what it could not clear away.
        outcome.and(removed)
    }

    async fn restore(&mut self, scratch: &Scratch, found: &Found) -> Result<(), RestoreError> {
        let began = Instant::now();
        self.fetch(scratch, found).await?;
        self.step("fetch", began, Some(found.plan.fetch_bytes));
        let control = self.look_at_fetched(scratch, found).await?;

        let recover = Instant::now();
        let (server, recovered) = self.recover(scratch, found, &control).await?;
        self.report.rto_secs = Some(secs(began.elapsed()));
        let replayed = recovered
            .lsn
            .0
            .saturating_sub(found.plan.sentinel.start_lsn.0);
        self.step("recover", recover, Some(replayed));
        self.judge_point(scratch, found, &recovered)?;

        let verify = Instant::now();
        let read = self.verify(scratch, &control, server).await?;
        self.step("verify", verify, Some(read));
        Ok(())
    }

    async fn fetch(&self, scratch: &Scratch, found: &Found) -> Result<(), RestoreError> {
        let name = &found.plan.backup.name;
        let (program, mut command) =
            command(&self.loaded.config, &found.repository, &scratch.data())?;
        command
            .args(program.backup_fetch(&scratch.data(), name))
            .current_dir(scratch.path());
        if !self.loaded.config.archive.settings.contains_key(RETRIES) {
            // wal-g's own 15, five minutes apart, would spend hours on one damaged part.
            command.env(RETRIES, "3");
        }
        let finished = process::run(command, self.left()).await?;
        if finished.status.success() {
            return Ok(());
        }
        let words = finished.last_words();
        if disk_is_full(scratch, &finished.stderr) {
            return Err(RestoreError::DiskFull {
                doing: "the backup was fetched",
            });
        }
        // The program calls a lost S3 and a damaged object by similar names; the bucket itself, and the words, tell
        // them apart. One that was killed says nothing at all.
        let answers = catalog::tar_parts(&found.bucket, &found.repository, name)
            .await
            .is_ok();
        if !answers || finished.status.code().is_none() || speaks_of_network(&finished.stderr) {
            return Err(RestoreError::StorageLost {
                doing: "the backup was fetched",
                words,
            });
        }
        Err(RestoreError::Bad(format!(
            "{program} cannot fetch {name}: {words}"
        )))
    }

    /// Is what was fetched a whole cluster, and safe to start?
    async fn look_at_fetched(
        &mut self,
        scratch: &Scratch,
        found: &Found,
    ) -> Result<ControlData, RestoreError> {
        refuse_restored_tablespaces(scratch)?;
        let unreadable = |source| RestoreError::File {
            operation: "read",
            path: scratch.data(),
            source,
        };
        let files = verify::restored_files(&scratch.data()).map_err(unreadable)?;
        let files = verify::judge_files(&found.listed, &files);
        let whole = !matches!(files, Verdict::Critical(_));
        self.report.looked("files", files);
        let bin = &self.loaded.config.postgres.bin_directory;
        let control = postgres::control_data(bin, &scratch.data()).await;
        match control {
            Ok(control) if whole => Ok(control),
            Ok(_) => Err(RestoreError::Bad(
                "what was fetched is not whole".to_owned(),
            )),
            Err(error @ PostgresError::NotADataDirectory { .. }) => Err(RestoreError::Bad(
                format!("what was fetched is no data directory: {error}"),
            )),
            Err(error) => Err(error.into()),
        }
    }

    async fn recover(
        &self,
        scratch: &Scratch,
        found: &Found,
        control: &ControlData,
    ) -> Result<(ScratchServer, Recovered), RestoreError> {
        let xdb = std::env::current_exe().map_err(|source| RestoreError::File {
            operation: "find",
            path: "the running xdb".into(),
            source,
        })?;
        configure(
            scratch,
            control,
            found.plan.path.timeline,
            &restore_command(&xdb),
        )?;
        let mut environment = self.loaded.to_environment();
        // wal-fetch has no use for it, and restored code runs in that server.
        environment.retain(|(name, _)| name != "XDB_POSTGRES_PASSWORD");
        // A prefetch directory of the live server's must neither serve this drill nor be filled by it.
        let own = scratch.data().join("pg_wal").to_string_lossy().into_owned();
        environment.push((
            "XDB_ARCHIVE_SETTINGS_WALG_PREFETCH_DIR".to_owned(),
            own.into(),
        ));
        let settings = &self.loaded.config.postgres;
        let mut server = ScratchServer::start(scratch, settings, &environment)?;
        let reason = match server.wait_until_open(&scratch.log(), self.deadline).await {
            Ok(()) => {
                let target = server.target(MAINTENANCE);
                let connection = postgres::connect(&target, self.left()).await?;
                let recovered = verify::recovered(&connection, &scratch.data()).await?;
                return Ok((server, recovered));
            }
            Err(Ended::TooSlow) => {
                let after = self.loaded.config.restore_test.timeout;
                return Err(RestoreError::Deadline { after });
            }
            Err(Ended::Refused(reason)) => {
                let hint = "postgres.user must be a superuser of the backed up cluster".to_owned();
                return Err(RestoreError::Refused { reason, hint });
            }
            Err(Ended::Stopped(reason)) => reason,
        };
        if disk_is_full(scratch, &reason) {
            return Err(RestoreError::DiskFull {
                doing: "WAL was replayed",
            });
        }
        if reason.contains(COULD_NOT_LOOK) {
            return Err(RestoreError::StorageLost {
                doing: "WAL was replayed",
                words: reason,
            });
        }
        if !is_damage(&reason) {
            return Err(RestoreError::Server(reason));
        }
        Err(RestoreError::Bad(format!(
            "PostgreSQL could not recover: {reason}"
        )))
    }

    async fn verify(
        &mut self,
        scratch: &Scratch,
        control: &ControlData,
        server: ScratchServer,
    ) -> Result<u64, RestoreError> {
        let bin = &self.loaded.config.postgres.bin_directory;
        let (tables, bytes) = verify::check_tables(&server).await?;
        self.report.looked("tables", tables);
        let amcheck = verify::check_amcheck(bin, &server.target(MAINTENANCE), self.left()).await?;
        self.report.looked("amcheck", amcheck);
        for check in &self.options.sql {
            let answer = verify::check_sql(&server, check, self.left()).await;
            self.report.looked(format!("sql: {}", check.query), answer);
        }
        server.shut_down().await;
        if !control.checksums {
            self.report.excused.push("checksums");
        }
        let checksums =
            verify::check_checksums(bin, &scratch.data(), control.checksums, self.left()).await?;
        self.report.looked("checksums", checksums);
        Ok(bytes)
    }

    /// Which cluster, which timeline, how far.
    fn judge_point(
        &mut self,
        scratch: &Scratch,
        found: &Found,
        recovered: &Recovered,
    ) -> Result<(), RestoreError> {
        let server = &recovered.server;
        if server.data_directory != scratch.data() {
            return Err(RestoreError::Refused {
                reason: format!(
                    "the server that answers keeps its data in {}",
                    server.data_directory.display()
                ),
                hint: "something else listens on the scratch socket".to_owned(),
            });
        }
        let report = &mut self.report;
        report.system_identifier = Some(server.system_identifier);
        report.timeline = Some(recovered.timeline);
        report.recovered_lsn = Some(recovered.lsn);
        report.recovered_to = recovered.to;
        let backup = found.plan.sentinel.system_identifier;
        let live = found
            .live
            .as_ref()
            .ok()
            .map(|live| live.server.system_identifier);
        let identity = verify::judge_identity(server.system_identifier, backup, live);
        report.looked("system_identifier", identity);
        let path = &found.plan.path;
        let timeline = verify::judge_timeline(recovered, path.timeline, path.switched_at);
        report.looked("timeline", timeline);
        let size = found.catalog.wal.size;
        let end = live::judge_end(recovered.lsn, path.reachable, path.newest, size);
        report.looked("end_reached", end);
        Ok(())
    }

    fn step(&mut self, name: &'static str, began: Instant, bytes: Option<u64>) {
        let step = Step {
            name,
            secs: secs(began.elapsed()),
            bytes,
        };
        (self.progress)(&step);
        self.report.steps.push(step);
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

pub(super) fn refuse_root() -> Result<(), RestoreError> {
    if !process::runs_as_root() {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: "PostgreSQL cannot be started as root".to_owned(),
        hint: "run it as the database's user: runuser -u postgres -- xdb …".to_owned(),
    })
}

/// The last look before a server is started on what was fetched: a link there leads to live files.
fn refuse_restored_tablespaces(scratch: &Scratch) -> Result<(), RestoreError> {
    let folder = scratch.data().join("pg_tblspc");
    let mut entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    match entries.next() {
        Some(entry) => Err(plan::refuse_tablespace(
            &entry.file_name().to_string_lossy(),
            "an unknown place",
        )),
        None => Ok(()),
    }
}

pub(super) fn disk_is_full(scratch: &Scratch, words: &str) -> bool {
    const NOTHING_LEFT: u64 = 1 << 20;
    words.contains("No space left on device")
        || free_bytes(scratch.path()).is_ok_and(|free| free < NOTHING_LEFT)
}
