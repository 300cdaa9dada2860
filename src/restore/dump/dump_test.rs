//! One dump restore test, from the choice of the set to the removal of the scratch directory.

use std::time::Instant;

use jiff::Timestamp;
use tokio::time::timeout;

use super::DumpSetup;
use super::comparison::compare;
use super::empty_cluster::start_empty_cluster;
use super::extensions::live_extensions;
use super::loader::Loader;
use super::report::DumpReport;
use super::restore_plan::unread;
use crate::dump::{self, DumpSet, DumpedDatabase, Listed, Status};
use crate::log;
use crate::model::{SegmentSize, Verdict};
use crate::restore::drill::{beside, may_begin};
use crate::restore::plan::read_live_server;
use crate::restore::recover::{MAINTENANCE, refuse_root};
use crate::restore::scratch::{Scratch, judge_space, wal_kept};
use crate::restore::{Conclusion, OnStep, RestoreError, Steps, Verifications, secs};

/// A cluster without databases of its own, its WAL included.
const EMPTY_CLUSTER: u64 = 64 << 20;

/// Tests `set`, or the newest one; `on_step` gets each step when it ends.
///
/// Every test returns a report. Its processes and files are removed.
pub(crate) async fn run(setup: &DumpSetup, set: Option<&str>, on_step: OnStep<'_>) -> DumpReport {
    let started_at = Timestamp::now();
    let (began, limit) = (Instant::now(), setup.settings.timeout);
    let mut test = DumpTest {
        setup,
        steps: Steps::new(on_step),
        verifications: Verifications::default(),
        report: DumpReport::default(),
        deadline: began + limit,
    };
    let outcome = timeout(limit, test.whole(set)).await;
    let outcome = outcome.unwrap_or(Err(RestoreError::Deadline { after: limit }));
    let mut report = test.report.conclude(test.verifications, outcome);
    report.steps = test.steps.into_list();
    report.secs = secs(began.elapsed());
    prove(setup, &report, started_at).await;
    report
}

/// Keeps what the test found of its set, for every node and for `xdb dump prune`; nothing where the set was not judged.
async fn prove(setup: &DumpSetup, report: &DumpReport, started_at: Timestamp) {
    let failure = match report.conclusion {
        Conclusion::Passed => None,
        Conclusion::Failed if report.is_encrypted => Some(failed_parts(report)),
        Conclusion::Failed => Some(report.reason.clone().unwrap_or_default()),
        _ => return,
    };
    let Some(set) = &report.set else { return };
    let (set, when) = (
        (set.as_str(), report.system_identifier),
        (started_at, report.secs),
    );
    if let Err(error) = dump::keep_proof(&setup.dumps, set, when, failure.as_deref()).await {
        tracing::warn!(
            "the proof of this dump test is not in the bucket: {} (HINT: {})",
            log::chain(&error),
            error.hint()
        );
    }
}

/// What failed of an encrypted set, without the words of programs, which can quote its rows: they would be in the clear in the bucket.
fn failed_parts(report: &DumpReport) -> String {
    let failed = report.verifications.iter();
    let failed = failed.filter(|one| matches!(one.verdict, Verdict::Critical(_)));
    let names: Vec<&str> = failed.map(|one| one.name.as_str()).collect();
    format!(
        "its restore failed ({}); the reason can quote rows, so only the log and the alert of the node that tested it have it",
        names.join(", ")
    )
}

struct DumpTest<'a> {
    setup: &'a DumpSetup,
    steps: Steps<'a>,
    verifications: Verifications,
    report: DumpReport,
    deadline: Instant,
}

impl DumpTest<'_> {
    async fn whole(&mut self, name: Option<&str>) -> Result<(), RestoreError> {
        refuse_root()?;
        let began = Instant::now();
        let live = &self.setup.dumps.postgres.data_directory;
        let scratch = Scratch::open(&self.setup.settings.directory, live)?;
        let listed = self.choose(name).await?;
        let set = match (listed.status, listed.manifest) {
            // A later test may take a failure back.
            (Status::Complete | Status::Disproved, Some(set)) => set,
            (status, _) => {
                let reason = listed.reason.unwrap_or_default();
                let verdict = match status {
                    Status::Unknown => Verdict::Unknown(reason),
                    _ => Verdict::Critical(reason),
                };
                self.verifications.add("set", verdict);
                return Ok(());
            }
        };
        self.verifications.add("set", Verdict::Ok);
        self.report.left_out.clone_from(&set.left_out);
        self.report.is_encrypted = set.age_recipients().is_some();
        self.setup.dumps.judge_readable(&set).map_err(unread)?;
        judge_space(needed_bytes(&set), scratch.path(), live, scratch.kept())?;
        may_begin(
            self.setup.node(),
            read_live_server(&self.setup.dumps.postgres)
                .await
                .as_ref()
                .ok(),
        )?;
        self.steps.end("preflight", began, None);
        let outcome = beside(self.setup.node(), self.restore(&scratch, &set)).await;
        let began = Instant::now();
        let removed = scratch.remove();
        self.steps.end("tear_down", began, None);
        // The result of the test comes before an error of its removal.
        outcome.and(removed)
    }

    /// The set of this name, or the newest full one.
    async fn choose(&mut self, name: Option<&str>) -> Result<Listed, RestoreError> {
        let repository = self.setup.dumps.location.to_string();
        let listed = dump::list(&self.setup.dumps).await?;
        let chosen = match name {
            Some(name) => listed.iter().find(|set| set.set == name),
            None => dump::newest_full(&listed, &self.setup.dumps.cluster),
        };
        let chosen = chosen.cloned();
        let chosen = chosen.ok_or_else(|| match name {
            Some(set) => RestoreError::NoSuchSet {
                set: set.to_owned(),
                repository: repository.clone(),
            },
            None => RestoreError::NoDump {
                repository: repository.clone(),
            },
        })?;
        if chosen.status == Status::Incomplete {
            return Err(RestoreError::UnfinishedSet { set: chosen.set });
        }
        self.report.set = Some(chosen.set.clone());
        self.report.bytes = Some(chosen.stored_bytes);
        let manifest = chosen.manifest.as_ref();
        self.report.system_identifier = manifest.map(|set| set.system_identifier);
        Ok(chosen)
    }

    async fn restore(&mut self, scratch: &Scratch, set: &DumpSet) -> Result<(), RestoreError> {
        let began = Instant::now();
        let superuser = set.superuser.as_ref();
        let superuser = superuser.unwrap_or(&self.setup.dumps.postgres.user);
        let extensions = live_extensions(&self.setup.dumps.postgres).await;
        let started =
            start_empty_cluster(scratch, self.setup, superuser, extensions, self.deadline);
        let (server, left_out) = started.await?;
        let left_out = left_out.iter();
        let left_out =
            left_out.map(|what| format!("this node lacks what its server preloads: {what}"));
        self.report.notes.extend(left_out);
        self.judge_major(scratch, set)?;
        self.steps.end("init", began, None);

        let began = Instant::now();
        let loader = Loader {
            dumps: &self.setup.dumps,
            scratch,
            target: server.target(MAINTENANCE),
        };
        let globals = loader.globals(&set.globals).await?;
        self.verifications.add("globals", globals.clone());
        if globals != Verdict::Ok {
            // Without its roles every database would fail, for no fault of its own.
            return Ok(());
        }
        let mut restored: Vec<&DumpedDatabase> = Vec::new();
        for database in restore_order(&set.databases) {
            let Some(via) = connection_database(&database.name, &restored, set) else {
                let reason = "no other database is left to connect to".to_owned();
                self.verifications
                    .add(verification_name(database), Verdict::Unknown(reason));
                continue;
            };
            let came_back = loader.database(database, via).await?;
            let name = &database.name;
            let not_filled = came_back.not_filled.iter();
            self.report.notes.extend(not_filled.map(|view| {
                format!("database {name}: the materialized view {view} was not filled: it needs another server, and a test reaches none")
            }));
            match came_back.verdict {
                Verdict::Ok => restored.push(database),
                bad => self.verifications.add(verification_name(database), bad),
            }
        }
        self.steps.end("restore", began, Some(set.bytes()));

        let began = Instant::now();
        for database in restored {
            compare(&server, set, database, &mut self.verifications).await?;
        }
        self.steps.end("compare", began, None);
        Ok(())
    }

    /// Another major version may restore it; that would say nothing of what is restored on the worst day.
    fn judge_major(&self, scratch: &Scratch, set: &DumpSet) -> Result<(), RestoreError> {
        let path = scratch.data().join("PG_VERSION");
        let found = std::fs::read_to_string(&path).map_err(|source| RestoreError::File {
            operation: "read",
            path,
            source,
        })?;
        let (wanted, found) = (set.server_version / 10_000, found.trim().to_owned());
        if wanted.to_string() == found {
            return Ok(());
        }
        Err(RestoreError::WrongMajor {
            wanted,
            found,
            bin_directory: self.setup.dumps.postgres.bin_directory.clone(),
        })
    }
}

/// As the manifest has them, but for the one that all others are restored over.
fn restore_order(databases: &[DumpedDatabase]) -> impl Iterator<Item = &DumpedDatabase> {
    let is_last = |database: &&DumpedDatabase| database.name == MAINTENANCE;
    let others = databases.iter().filter(move |database| !is_last(database));
    others.chain(databases.iter().filter(is_last))
}

/// The database to connect to while the one called `name` is made again; `restored` are there for certain.
fn connection_database<'a>(
    name: &str,
    restored: &[&'a DumpedDatabase],
    set: &DumpSet,
) -> Option<&'a str> {
    if name != MAINTENANCE {
        return Some(MAINTENANCE);
    }
    let initdb_made = "postgres";
    if set.databases.iter().all(|it| it.name != initdb_made) {
        return Some(initdb_made);
    }
    restored.first().map(|database| database.name.as_str())
}

fn verification_name(database: &DumpedDatabase) -> String {
    format!("database: {}", database.name)
}

/// Room on the scratch disk: the databases as they were on the server, and WAL. A first xdb's set does not tell.
fn needed_bytes(set: &DumpSet) -> u64 {
    let sizes = set.databases.iter().filter_map(|it| it.database_bytes);
    let databases: u64 = sizes.sum();
    EMPTY_CLUSTER + databases + databases.min(wal_kept(SegmentSize::default()))
}
