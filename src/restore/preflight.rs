//! The looks before anything is fetched: the live server, the bucket, the programs, the disk.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::archive_end::measure_rpo;
use super::live::{self, Live, Silent};
use super::plan::{self, Pick, Plan};
use super::report::Report;
use super::restore_point::judge_name;
use super::run::Options;
use super::scratch::{Scratch, free_bytes, reserve_bytes};
use super::until::Until;
use super::watch::may_begin;
use super::young_gap::{AGAIN, Next, Watch};
use super::{RestoreError, tablespaces};
use crate::model::Verdict;
use crate::process;
use crate::repository::catalog::{self, Catalog};
use crate::repository::{HighWater, Program, Repository, RepositoryError};
use crate::restore::Setup;
use crate::storage::Cause;
use std::path::Path;

/// What the preflight found.
pub struct Found {
    pub program: Program,
    pub repository: Repository,
    pub catalog: Catalog,
    /// This node's server, or why it has nothing to say.
    pub live: Result<Live, Silent>,
    pub plan: Plan,
    /// The files that must be on the scratch disk after the fetch.
    pub listed: Vec<String>,
}

/// Decides what is restored and whether it may be; what the listing shows to be wrong goes into `report`.
///
/// # Errors
/// When there is nothing to restore, it would be dangerous, or it cannot be done here.
pub async fn preflight(
    setup: &Setup,
    options: &Options,
    scratch: &Scratch,
    report: &mut Report,
) -> Result<Found, RestoreError> {
    let (backup, until) = (options.backup.as_deref(), options.until.as_ref());
    let mut found = look(setup, (backup, Pick::Newest), until, report).await?;
    may_begin(
        (setup.postgres(), &setup.settings),
        found.live.as_ref().ok(),
    )?;
    let Found {
        catalog,
        live,
        plan,
        ..
    } = &found;
    // The end of the archive is of no interest to a test that stops before.
    if until.is_none() {
        report.looked("archive_end", live::judge_archive_end(live, catalog));
        report.excused = match live {
            Err(silent) if silent.is_nothing() => vec!["archive_end", "rpo"],
            Err(_) => Vec::new(),
            // A server that was asked may not have the WAL any more that it takes to measure the loss: of an old backup, no
            // WAL follows in the archive. The report says so, and that is no want of the backup.
            Ok(_) => vec!["rpo"],
        };
        look_at_loss(&setup.postgres().bin_directory, live, plan, catalog, report).await;
    }
    if options.is_guess {
        judge_name(&found, until).await?;
    }
    let Found { plan, .. } = &found;
    judge_version(&setup.postgres().bin_directory, plan).await?;
    let (directory, data) = (scratch.path(), setup.repository.data_directory());
    let reserve = reserve_bytes(directory, data);
    plan::judge_space(
        plan,
        directory,
        free_bytes(directory)?,
        reserve,
        scratch.kept(),
    )?;
    look_at_backup(&mut found, report).await?;
    Ok(found)
}

/// Reads the live server and the bucket, and plans the restore.
///
/// # Errors
/// When there is nothing to restore, it would be dangerous, or the bucket cannot be read.
pub async fn look(
    setup: &Setup,
    (backup, pick): (Option<&str>, Pick),
    until: Option<&Until>,
    report: &mut Report,
) -> Result<Found, RestoreError> {
    let repository = &setup.repository;
    let (program, _) = repository.program.find()?;
    // First the server and the mark, then the bucket: what they say to be archived by now must be in the listing.
    let live = live::look(setup.postgres()).await;
    let mark = repository.shared.stated_high_water().await?;
    let mut watch = Watch::begin(Instant::now());
    let asked = (backup, pick);
    let (catalog, plan) = loop {
        let mut catalog = read_catalog(repository, mark.clone(), backup, report).await?;
        let planned = plan_for(repository, &mut catalog, asked, until).await;
        // Before a target that can be reached no gap is of interest.
        let to_end = match (&planned, until) {
            (Ok(plan), None) => Some(plan.clone()),
            (Err(RestoreError::Unreachable { .. }), Some(_)) => {
                plan::plan(&catalog, &repository.location, asked, None).ok()
            }
            _ => None,
        };
        let next = to_end.map_or(Next::Believe, |plan| {
            let archived = live::archived(live.as_ref().ok(), &catalog);
            watch.judge(
                (&plan, &catalog),
                archived,
                (Instant::now(), Timestamp::now()),
            )
        });
        if next == Next::LookAgain {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        let mut plan = planned?;
        match next {
            Next::EndBefore => plan.end_before_gap(),
            Next::MayCome { under_way } => plan.gap_may_close(under_way),
            Next::Believe | Next::LookAgain => {}
        }
        break (catalog, plan);
    };
    let live_data = repository.data_directory();
    tablespaces::judge(program, &plan.sentinel.tablespaces, live_data)?;
    report.backup = Some(plan.backup.name.clone());
    report.system_identifier = plan.sentinel.system_identifier;
    report.looked("wal", plan.gaps.clone());
    Ok(Found {
        live: same_cluster(live, &plan),
        listed: Vec::new(),
        program,
        repository: repository.clone(),
        catalog,
        plan,
    })
}

async fn read_catalog(
    repository: &Repository,
    mark: Result<HighWater, String>,
    backup: Option<&str>,
    report: &mut Report,
) -> Result<Catalog, RestoreError> {
    let mut catalog = catalog::read(repository).await?;
    repository.judge_by_tests(&mut catalog).await?;
    catalog.learn_end(mark, &repository.location);
    report.backup = backup
        .or(catalog.newest().map(|newest| newest.name.as_str()))
        .map(str::to_owned);
    Ok(catalog)
}

/// What is restored by what is listed now.
async fn plan_for(
    repository: &Repository,
    catalog: &mut Catalog,
    asked: (Option<&str>, Pick),
    until: Option<&Until>,
) -> Result<Plan, RestoreError> {
    let plan = plan::plan(catalog, &repository.location, asked, until)?;
    if plan.gaps == Verdict::Ok {
        return Ok(plan);
    }
    // WAL that retention deleted is no gap.
    let known = repository.know_pruned(catalog).await;
    known.map_err(RepositoryError::from)?;
    plan::plan(catalog, &repository.location, asked, until)
}

/// Are the programs here of the backup's major version?
///
/// # Errors
/// When they are not, or cannot be asked.
pub async fn judge_version(bin: &Path, plan: &Plan) -> Result<(), RestoreError> {
    let mut version = process::command(bin.join("postgres"));
    version.arg("--version");
    let version = process::run(version, Duration::from_secs(10)).await?;
    let version = String::from_utf8_lossy(&version.stdout);
    plan::judge_version(&plan.sentinel, &version, bin)
}

/// Are the parts of the backup all there, and which files must come of them?
///
/// # Errors
/// When it is not whole, holds a tablespace that the program cannot place, or the bucket cannot be read.
pub async fn look_at_backup(found: &mut Found, report: &mut Report) -> Result<(), RestoreError> {
    let Found {
        program,
        repository,
        catalog,
        plan,
        ..
    } = &*found;
    let cut = catalog.why_cut(&plan.backup);
    report.looked(
        "tar_parts",
        cut.clone().map_or(Verdict::Ok, Verdict::Critical),
    );
    if let Some(reason) = cut {
        let backup = &plan.backup.name;
        return Err(RestoreError::Bad(format!(
            "{backup} cannot be restored: {reason}"
        )));
    }
    found.listed = listed_files(*program, repository, plan).await?;
    Ok(())
}

/// A live server that is another cluster's has nothing to say of this backup.
fn same_cluster(live: Result<Live, Silent>, plan: &Plan) -> Result<Live, Silent> {
    let live = live?;
    match plan.sentinel.system_identifier {
        Some(identifier) if identifier != live.server.system_identifier => {
            Err(Silent::Foreign(format!(
                "this node's server is another cluster ({}, the backup is of {identifier})",
                live.server.system_identifier
            )))
        }
        _ => Ok(live),
    }
}

/// What would be lost now: measured against the archive as it was listed, before the restore lets it grow.
async fn look_at_loss(
    bin: &Path,
    live: &Result<Live, Silent>,
    plan: &Plan,
    catalog: &Catalog,
    report: &mut Report,
) {
    let (live, end) = match (live, plan.path.reachable) {
        (Ok(live), Some(last)) => (live, last.end(catalog.wal.size)),
        (Ok(_), None) => return,
        (Err(silent), _) => {
            report.looked("rpo", Verdict::Unknown(silent.reason().to_owned()));
            return;
        }
    };
    if live.server.timeline > plan.path.timeline {
        let (newer, archived) = (live.server.timeline, plan.path.timeline);
        let reason = format!(
            "the live server is on timeline {newer}, the archive can be followed to timeline {archived} only"
        );
        report.looked("rpo", Verdict::Critical(reason));
        return;
    }
    let measured = measure_rpo(bin, live, plan.path.timeline, end).await;
    report.rpo_secs = measured.as_ref().ok().copied();
    report.looked(
        "rpo",
        measured.map_or_else(Verdict::Unknown, |_| Verdict::Ok),
    );
}

async fn listed_files(
    program: Program,
    repository: &Repository,
    plan: &Plan,
) -> Result<Vec<String>, RestoreError> {
    let mut listed = match catalog::stored_files(repository, &plan.backup.name).await {
        // Backups may be taken without the list; the verification then says so.
        Err(RepositoryError::Storage(error)) if error.cause() == Some(&Cause::NoSuchKey) => {
            Vec::new()
        }
        listed => listed?,
    };
    tablespaces::judge_listed(program, &listed)?;
    listed.retain(|path| path != tablespaces::MAP);
    Ok(listed)
}
