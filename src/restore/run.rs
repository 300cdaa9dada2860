//! One restore test, from the look at the bucket to the removal of the scratch directory.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::RestoreError;
use super::live::{self, Live};
use super::plan::{self, Plan};
use super::report::{Conclusion, Report, Step, judge_verifications};
use super::scratch::{Scratch, free_bytes};
use super::server::{Ended, ScratchServer, configure, restore_command};
use super::verify::{self, Recovered, SqlCheck};
use crate::archive::catalog::{self, Catalog};
use crate::archive::{ArchiveError, Program, Repository, command};
use crate::config::{Config, Loaded};
use crate::model::{Verdict, Verification};
use crate::postgres::{self, ControlData};
use crate::process;
use crate::storage::{Bucket, Cause};

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
    progress: &mut (dyn FnMut(&Step) + Send),
) -> Report {
    let limit = loaded.config.restore_test.timeout;
    let mut test = Test {
        loaded,
        options,
        progress,
        report: Report::default(),
        deadline: Instant::now() + limit,
    };
    let outcome = timeout(limit, test.whole())
        .await
        .unwrap_or(Err(RestoreError::Deadline { after: limit }));
    conclude(test.report, outcome)
}

fn conclude(mut report: Report, outcome: Result<(), RestoreError>) -> Report {
    match outcome {
        Ok(()) => match judge_verifications(&report.verifications) {
            None => (report.passed, report.conclusion) = (true, Conclusion::Passed),
            Some(bad) => {
                report.reason = Some(format!(
                    "{}: {}",
                    bad.name,
                    bad.verdict.reason().unwrap_or_default()
                ));
                report.hint = Some(
                    "runbooks are with the checks; `xdb backup list` shows the archive".to_owned(),
                );
                report.conclusion = Conclusion::Failed;
            }
        },
        Err(error) => {
            report.conclusion = match &error {
                RestoreError::Bad(_) => Conclusion::Failed,
                RestoreError::Refused { .. } | RestoreError::Busy { .. } => Conclusion::Refused,
                _ => Conclusion::NotRun,
            };
            report.hint = error.hint();
            report.reason = Some(crate::log::chain(&error));
        }
    }
    report
}

struct Test<'a> {
    loaded: &'a Loaded,
    options: &'a Options,
    progress: &'a mut (dyn FnMut(&Step) + Send),
    report: Report,
    deadline: Instant,
}

/// What the preflight found.
struct Found {
    repository: Repository,
    bucket: Bucket,
    catalog: Catalog,
    live: Result<Live, String>,
    plan: Plan,
    /// What each backup of the chain lists; the last is what must be on the disk.
    listed: Vec<String>,
}

impl Test<'_> {
    async fn whole(&mut self) -> Result<(), RestoreError> {
        let config = &self.loaded.config;
        refuse_root()?;
        let began = Instant::now();
        let scratch = Scratch::open(
            &config.restore_test.directory,
            &config.postgres.data_directory,
        )?;
        let found = self.preflight(&scratch).await?;
        self.step("preflight", began, None);
        let outcome = self.restore(&scratch, &found).await;
        let began = Instant::now();
        scratch.remove()?;
        self.step("tear_down", began, None);
        outcome
    }

    async fn preflight(&mut self, scratch: &Scratch) -> Result<Found, RestoreError> {
        let config = &self.loaded.config;
        let (_, _) = Program::find(config)?;
        let repository = Repository::of(config)?;
        let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
        // First the server, then the bucket: what it says to have archived by now must be in the listing.
        let live = live::look(config).await;
        let catalog = catalog::read(&bucket, &repository).await?;
        let plan = plan::plan(&catalog, &repository, self.options.backup.as_deref());
        if let Some(name) = plan
            .as_ref()
            .ok()
            .map(|plan| plan.backup.name.clone())
            .or(self.options.backup.clone())
        {
            self.report.backup = Some(name);
        }
        let plan = plan?;
        self.report.system_identifier = plan.sentinel.system_identifier;
        let live = same_cluster(live, &plan);
        self.verified(plan.findings.iter().cloned());
        self.verified([Verification::new(
            "archive_end",
            live::judge_archive_end(&live, &catalog),
        )]);

        let version = process::run(version_command(config), Duration::from_secs(10)).await?;
        plan::judge_version(
            &plan.sentinel,
            &String::from_utf8_lossy(&version.stdout),
            &config.postgres.bin_directory,
        )?;
        plan::judge_space(&plan, scratch.path(), free_bytes(scratch.path())?)?;
        let listed = self
            .look_into_backup(&bucket, &repository, &plan, &catalog)
            .await?;
        Ok(Found {
            repository,
            bucket,
            catalog,
            live,
            plan,
            listed,
        })
    }

    /// The parts of each backup of the chain, and the files that the last one lists.
    async fn look_into_backup(
        &mut self,
        bucket: &Bucket,
        repository: &Repository,
        plan: &Plan,
        catalog: &Catalog,
    ) -> Result<Vec<String>, RestoreError> {
        let mut parts = Verdict::Ok;
        for member in &plan.chain {
            let stored = catalog::tar_parts(bucket, repository, member).await?;
            let sizes: Vec<u64> = stored.iter().map(|part| part.size).collect();
            let Some(sentinel) = catalog
                .backup(member)
                .and_then(|backup| backup.sentinel.as_ref())
            else {
                continue;
            };
            if parts == Verdict::Ok {
                parts = plan::judge_tar_parts(member, sentinel, &sizes);
            }
        }
        self.verified([Verification::new("tar_parts", parts)]);
        let listed = match catalog::stored_files(bucket, repository, &plan.backup.name).await {
            Ok(listed) => listed,
            Err(ArchiveError::Storage(error)) if error.cause() == Some(&Cause::NoSuchKey) => {
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let tablespace = listed
            .iter()
            .find_map(|path| path.strip_prefix("pg_tblspc/"));
        match tablespace
            .and_then(|path| path.split('/').next())
            .filter(|oid| !oid.is_empty())
        {
            Some(oid) => Err(plan::refuse_tablespace(oid, "an unknown place")),
            None => Ok(listed),
        }
    }

    async fn restore(&mut self, scratch: &Scratch, found: &Found) -> Result<(), RestoreError> {
        let began = Instant::now();
        self.fetch(scratch, found).await?;
        self.step("fetch", began, Some(found.plan.fetch_bytes));
        refuse_restored_tablespaces(scratch)?;

        let config = &self.loaded.config;
        let control = postgres::control_data(&config.postgres.bin_directory, &scratch.data()).await;
        let control = control.map_err(|error| {
            RestoreError::Bad(format!("what was fetched is no cluster: {error}"))
        })?;
        let files =
            verify::restored_files(&scratch.data()).map_err(|source| RestoreError::File {
                operation: "read",
                path: scratch.data(),
                source,
            })?;
        self.verified([Verification::new(
            "files",
            verify::judge_files(&found.listed, &files),
        )]);

        let recover = Instant::now();
        let server = self.recover(scratch, found, &control).await?;
        self.report.rto_secs = Some(began.elapsed().as_secs_f64());
        let replayed = found.plan.path.segments * control.segment_size.bytes();
        self.step("recover", recover, Some(replayed));

        let verify = Instant::now();
        let read = self.verify(scratch, found, &control, server).await?;
        self.step("verify", verify, Some(read));
        Ok(())
    }

    async fn fetch(&self, scratch: &Scratch, found: &Found) -> Result<(), RestoreError> {
        let config = &self.loaded.config;
        let (program, mut command) = command(config, &found.repository, &scratch.data())?;
        command
            .args(program.backup_fetch(&scratch.data(), &found.plan.backup.name))
            .current_dir(scratch.path());
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
        // The program calls a lost S3 and a damaged object by similar names; the bucket itself tells them apart.
        if catalog::tar_parts(&found.bucket, &found.repository, &found.plan.backup.name)
            .await
            .is_err()
        {
            return Err(RestoreError::StorageLost {
                doing: "the backup was fetched",
                words,
            });
        }
        let sizes =
            judge_verifications(&self.report.verifications).and_then(|bad| bad.verdict.reason());
        let also = sizes
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        Err(RestoreError::Bad(format!(
            "{program} cannot fetch {}: {words}{also}",
            found.plan.backup.name
        )))
    }

    async fn recover(
        &self,
        scratch: &Scratch,
        found: &Found,
        control: &ControlData,
    ) -> Result<ScratchServer, RestoreError> {
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
        // A prefetch directory of the live server's must not serve or fill from this drill.
        let own = scratch.data().join("pg_wal").to_string_lossy().into_owned();
        environment.push((
            "XDB_ARCHIVE_SETTINGS_WALG_PREFETCH_DIR".to_owned(),
            own.into(),
        ));
        let settings = &self.loaded.config.postgres;
        let mut server = ScratchServer::start(scratch, settings, &environment)?;
        let reason = match server.wait_until_open(&scratch.log(), self.deadline).await {
            Ok(()) => return Ok(server),
            Err(Ended::TooSlow) => {
                return Err(RestoreError::Deadline {
                    after: self.loaded.config.restore_test.timeout,
                });
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
        // Words of this crate: `storage::Cause` and `process::ProcessError`.
        if ["S3 does not answer", "was stopped: it was not done"]
            .iter()
            .any(|lost| reason.contains(lost))
        {
            return Err(RestoreError::StorageLost {
                doing: "WAL was replayed",
                words: reason,
            });
        }
        Err(RestoreError::Bad(format!(
            "PostgreSQL could not recover: {reason}"
        )))
    }

    async fn verify(
        &mut self,
        scratch: &Scratch,
        found: &Found,
        control: &ControlData,
        server: ScratchServer,
    ) -> Result<u64, RestoreError> {
        let config = &self.loaded.config;
        let connection = postgres::connect(&server.target("template1"), self.left()).await?;
        let recovered = verify::recovered(&connection, &scratch.data()).await?;
        drop(connection);
        self.judge_point(scratch, found, &recovered)?;
        self.measure_rpo(found, &recovered).await;
        let (tables, bytes) = verify::check_tables(&server).await?;
        self.verified([tables]);
        let bin = &config.postgres.bin_directory;
        let amcheck = verify::check_amcheck(bin, &server.target("template1"), self.left()).await?;
        self.verified([amcheck]);
        for check in &self.options.sql {
            let answer = verify::check_sql(&server, check, self.left()).await;
            self.verified([answer]);
        }
        server.shut_down().await;
        let checksums =
            verify::check_checksums(bin, &scratch.data(), control.checksums, self.left()).await?;
        self.verified([checksums]);
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
        self.report.system_identifier = Some(server.system_identifier);
        self.report.timeline = Some(recovered.timeline);
        self.report.recovered_lsn = Some(recovered.lsn);
        self.report.recovered_to = recovered.to;
        let live = found
            .live
            .as_ref()
            .ok()
            .map(|live| live.server.system_identifier);
        let path = &found.plan.path;
        let size = found.catalog.wal.size;
        self.verified([
            Verification::new(
                "system_identifier",
                verify::judge_identity(
                    server.system_identifier,
                    found.plan.sentinel.system_identifier,
                    live,
                ),
            ),
            Verification::new(
                "timeline",
                verify::judge_timeline(recovered.timeline, path.timeline),
            ),
            Verification::new(
                "end_reached",
                live::judge_end(recovered.lsn, path.reachable, path.newest, size),
            ),
        ]);
        Ok(())
    }

    async fn measure_rpo(&mut self, found: &Found, recovered: &Recovered) {
        let measured = match &found.live {
            Ok(live) => {
                live::measure_rpo(&self.loaded.config, live, recovered.timeline, recovered.lsn)
                    .await
            }
            Err(reason) => Err(reason.clone()),
        };
        let verdict = match measured {
            Ok(secs) => {
                self.report.rpo_secs = Some(secs);
                Verdict::Ok
            }
            Err(reason) => Verdict::Unknown(reason),
        };
        self.verified([Verification::new("rpo", verdict)]);
    }

    fn verified(&mut self, verifications: impl IntoIterator<Item = Verification>) {
        self.report.verifications.extend(verifications);
    }

    fn step(&mut self, name: &'static str, began: Instant, bytes: Option<u64>) {
        let step = Step {
            name,
            secs: began.elapsed().as_secs_f64(),
            bytes,
        };
        (self.progress)(&step);
        self.report.steps.push(step);
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// PostgreSQL does not run as root, and what root restores is nobody else's to clean up.
fn refuse_root() -> Result<(), RestoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: "PostgreSQL cannot be started as root".to_owned(),
        hint: "run it as the database's user: runuser -u postgres -- xdb restore-test".to_owned(),
    })
}

/// A live server that is another cluster's has nothing to say of this backup.
fn same_cluster(live: Result<Live, String>, plan: &Plan) -> Result<Live, String> {
    let live = live?;
    match plan.sentinel.system_identifier {
        Some(identifier) if identifier != live.server.system_identifier => Err(format!(
            "this node's server is another cluster ({}, the backup is of {identifier})",
            live.server.system_identifier
        )),
        _ => Ok(live),
    }
}

/// The last look before a server is started on what was fetched: a link there leads to live files.
fn refuse_restored_tablespaces(scratch: &Scratch) -> Result<(), RestoreError> {
    let folder = scratch.data().join("pg_tblspc");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    match entries.map(|entry| entry.file_name()).next() {
        Some(oid) => Err(plan::refuse_tablespace(
            &oid.to_string_lossy(),
            "an unknown place",
        )),
        None => Ok(()),
    }
}

fn version_command(config: &Config) -> tokio::process::Command {
    let mut command = process::command(config.postgres.bin_directory.join("postgres"));
    command.arg("--version");
    command
}

fn disk_is_full(scratch: &Scratch, words: &str) -> bool {
    const NOTHING_LEFT: u64 = 1 << 20;
    words.contains("No space left on device")
        || free_bytes(scratch.path()).is_ok_and(|free| free < NOTHING_LEFT)
}
