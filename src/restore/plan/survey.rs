//! What a restore is planned from: the live server, the bucket, the programs.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::live_server::{LiveServer, NoLiveServer, last_archived_segment, read_live_server};
use super::restore_plan::{Pick, Plan, judge_major_version, plan_restore};
use super::tablespaces::{judge_listed_tablespaces, judge_tablespaces};
use super::until::Until;
use super::young_gap::{GapDecision, GapWatch, RECHECK};
use crate::model::Verdict;
use crate::process;
use crate::repository::catalog::{self, Catalog};
use crate::repository::{HighWater, Program, Repository, RepositoryError};
use crate::restore::scratch::TABLESPACE_MAP;
use crate::restore::{RestoreError, RestoreRecord, Setup, Verifications};
use crate::storage::Cause;

/// A restore that is planned, with what it was planned from.
pub(crate) struct Survey {
    pub program: Program,
    pub repository: Repository,
    pub catalog: Catalog,
    /// This node's server, or why there is none to compare with.
    pub live: Result<LiveServer, NoLiveServer>,
    pub plan: Plan,
    /// The files that must be on the scratch disk after the fetch.
    pub listed: Vec<String>,
}

/// Reads the live server and the bucket, and plans the restore.
///
/// # Errors
/// When there is nothing to restore, it would be dangerous, or the bucket cannot be read.
pub(crate) async fn survey(
    setup: &Setup,
    (backup, pick): (Option<&str>, Pick),
    until: Option<&Until>,
    record: &mut RestoreRecord,
) -> Result<Survey, RestoreError> {
    let repository = &setup.repository;
    let (program, _) = repository.program.find()?;
    // First the server and the mark, then the bucket: what they say to be archived by now must be in the listing.
    let live = read_live_server(setup.postgres()).await;
    let mark = repository.shared.stated_high_water().await?;
    let mut watch = GapWatch::begin(Instant::now());
    let request = (backup, pick);
    let (catalog, plan) = loop {
        let mut catalog = read_catalog(repository, mark.clone(), backup, record).await?;
        let planned = plan_for(repository, &mut catalog, request, until).await;
        // Before a target that can be reached no gap is of interest.
        let to_end = match (&planned, until) {
            (Ok(plan), None) => Some(plan.clone()),
            (Err(RestoreError::Unreachable { .. }), Some(_)) => {
                plan_restore(&catalog, &repository.location, request, None).ok()
            }
            _ => None,
        };
        let next = to_end.map_or(GapDecision::Believe, |plan| {
            let archived = last_archived_segment(live.as_ref().ok(), &catalog);
            watch.judge(
                (&plan, &catalog),
                archived,
                (Instant::now(), Timestamp::now()),
            )
        });
        if next == GapDecision::Recheck {
            tokio::time::sleep(RECHECK).await;
            continue;
        }
        let mut plan = planned?;
        match next {
            GapDecision::EndBefore => plan.end_before_gap(),
            GapDecision::MayClose { under_way } => plan.gap_may_close(under_way),
            GapDecision::Believe | GapDecision::Recheck => {}
        }
        break (catalog, plan);
    };
    let live_data = repository.data_directory();
    judge_tablespaces(program, &plan.sentinel.tablespaces, live_data)?;
    record.backup = Some(plan.backup.name.clone());
    record.system_identifier = plan.sentinel.system_identifier;
    record.verifications.add("wal", plan.gaps.clone());
    Ok(Survey {
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
    record: &mut RestoreRecord,
) -> Result<Catalog, RestoreError> {
    let mut catalog = catalog::read(repository).await?;
    repository.read_tests_and_damage(&mut catalog).await?;
    catalog.apply_high_water(mark, &repository.location);
    record.backup = backup
        .or(catalog.newest().map(|newest| newest.name.as_str()))
        .map(str::to_owned);
    Ok(catalog)
}

/// What is restored by what is listed now.
async fn plan_for(
    repository: &Repository,
    catalog: &mut Catalog,
    request: (Option<&str>, Pick),
    until: Option<&Until>,
) -> Result<Plan, RestoreError> {
    let plan = plan_restore(catalog, &repository.location, request, until)?;
    if plan.gaps == Verdict::Ok {
        return Ok(plan);
    }
    // WAL that retention deleted is no gap.
    let known = repository.know_pruned(catalog).await;
    known.map_err(RepositoryError::from)?;
    plan_restore(catalog, &repository.location, request, until)
}

/// Are the programs here of the backup's major version?
///
/// # Errors
/// When they are not, or cannot be run.
pub(crate) async fn check_version(bin: &Path, plan: &Plan) -> Result<(), RestoreError> {
    let mut version = process::command(bin.join("postgres"));
    version.arg("--version");
    let version = process::run(version, Duration::from_secs(10)).await?;
    let version = String::from_utf8_lossy(&version.stdout);
    judge_major_version(&plan.sentinel, &version, bin)
}

/// Are the parts of the backup all there, and which files must come of them?
///
/// # Errors
/// When it is not whole, holds a tablespace that the program cannot place, or the bucket cannot be read.
pub(crate) async fn check_parts(
    survey: &mut Survey,
    verifications: &mut Verifications,
) -> Result<(), RestoreError> {
    let Survey {
        program,
        repository,
        catalog,
        plan,
        ..
    } = &*survey;
    let cut = catalog.why_cut(&plan.backup);
    verifications.add(
        "tar_parts",
        cut.clone().map_or(Verdict::Ok, Verdict::Critical),
    );
    if let Some(reason) = cut {
        let backup = &plan.backup.name;
        return Err(RestoreError::Bad(format!(
            "{backup} cannot be restored: {reason}"
        )));
    }
    survey.listed = listed_files(*program, repository, plan).await?;
    Ok(())
}

/// A live server that is another cluster's has nothing to say of this backup.
fn same_cluster(
    live: Result<LiveServer, NoLiveServer>,
    plan: &Plan,
) -> Result<LiveServer, NoLiveServer> {
    let live = live?;
    match plan.sentinel.system_identifier {
        Some(identifier) if identifier != live.server.system_identifier => {
            Err(NoLiveServer::Foreign(format!(
                "this node's server is another cluster ({}, the backup is of {identifier})",
                live.server.system_identifier
            )))
        }
        _ => Ok(live),
    }
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
    judge_listed_tablespaces(program, &listed)?;
    listed.retain(|path| path != TABLESPACE_MAP);
    Ok(listed)
}
