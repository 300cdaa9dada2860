//! A prune: read, plan, let the program delete, read again.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::check::compare;
use super::delete::{Deleter, Deletion};
use super::lock::PruneLock;
use super::read::read_state;
use super::wal::position;
use super::{Action, ArchiveState, PrunePlan, RetentionError, plan_retention};
use crate::archive::backup::judge::judge_server;
use crate::config::{Node, Retention};
use crate::model::WalSegment;
use crate::postgres::{self, ControlData, ServerIdentity};
use crate::process;
use crate::repository::catalog::Catalog;
use crate::repository::{
    ArchiveOf, Keeper, Pruned, Relation, Repository, RepositoryError, Timelines, forget_catalog,
    position_of, superseded, why_clock_is_wrong,
};
use crate::store::StateFiles;

/// How long a question to PostgreSQL may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A prune that finished.
#[derive(Debug, Clone, Serialize)]
pub struct PruneReport {
    #[serde(flatten)]
    pub plan: PrunePlan,
    /// What the plan keeps and is gone.
    pub gone: Vec<String>,
    /// What the plan deletes and is still there.
    pub left: Vec<String>,
    #[serde(skip)]
    pub system_identifier: u64,
}

/// What [`prune`] would do now.
///
/// # Errors
/// As [`prune`], but for locks.
pub async fn plan(
    repository: &Repository,
    node: &Node,
    retention: Retention,
) -> Result<PrunePlan, RetentionError> {
    let place = PruneContext::find(repository, node, retention).await?;
    Ok(place.read_and_plan().await?.1)
}

/// Deletes what retention does not keep, and compares the bucket with the plan.
///
/// # Errors
/// [`RepositoryError::Refused`] where this node may not prune or the repository is not to be trusted,
/// [`RetentionError::NoRetention`] where nothing is configured; otherwise what failed.
pub async fn prune(
    repository: &Repository,
    node: &Node,
    retention: Retention,
) -> Result<PruneReport, RetentionError> {
    if retention.window_days.is_some() && process::runs_as_root() {
        let reason =
            "root's lock and files would stand in the way of the database's user".to_owned();
        let hint = "run it as the database's user: runuser -u postgres -- xdb prune".to_owned();
        return Err(RepositoryError::Refused { reason, hint }.into());
    }
    let place = PruneContext::find(repository, node, retention).await?;
    let mut lock = PruneLock::take(repository, node).await?;
    // Of locks that were lost the marks stay, and the next run finds them.
    let pruned = lock.during(place.prune()).await?;
    lock.release().await?;
    pruned
}

/// Where is pruned, and by whom.
struct PruneContext<'a> {
    repository: &'a Repository,
    node: &'a Node,
    retention: Retention,
    timelines: Timelines,
    control: ControlData,
    server: ServerIdentity,
}

impl<'a> PruneContext<'a> {
    async fn find(
        repository: &'a Repository,
        node: &'a Node,
        retention: Retention,
    ) -> Result<Self, RetentionError> {
        if retention.window_days.is_none() {
            return Err(RetentionError::NoRetention);
        }
        let settings = &repository.program.postgres;
        let directory = &settings.data_directory;
        let control = postgres::control_data(&settings.bin_directory, directory).await?;
        let connection = postgres::connect(&settings.into(), ANSWER).await?;
        Ok(Self {
            timelines: Timelines::of(repository, StateFiles::of(&node.state_directory)),
            server: postgres::server(&connection).await?,
            repository,
            node,
            retention,
            control,
        })
    }

    fn archive(&self) -> ArchiveOf<'_> {
        (self.control.system_identifier, &self.repository.location)
    }

    async fn read_state(&self) -> Result<ArchiveState, RetentionError> {
        read_state(self.repository, self.control.system_identifier).await
    }

    async fn read_and_plan(&self) -> Result<(ArchiveState, PrunePlan), RetentionError> {
        let mut archive = self.read_state().await?;
        self.repository.read_damage(&mut archive.catalog).await?;
        let state = StateFiles::of(&self.node.state_directory);
        let newer = match position_of(self.repository.data_directory(), &self.server) {
            Some(own) => superseded(&self.timelines, &state, &own).await?,
            None => None,
        };
        let refused = judge_server(&self.control, &self.server, newer.as_ref())
            .or_else(|| self.judge_size(&archive.catalog));
        let refused = refused.or(self.why_doubtful().await?);
        if let Some((reason, hint)) = refused.or(self.why_clock_is_wrong().await?) {
            return Err(RepositoryError::Refused { reason, hint }.into());
        }
        let planned = plan_retention(&archive, self.retention, Timestamp::now());
        let refused = |reason| {
            RepositoryError::Refused {
            reason,
            hint: "nothing was deleted; find out what is in the repository: `xdb backup list`, `xdb archive verify`".to_owned(),
        }
        };
        let plan = planned.map_err(refused)?;
        Ok((archive, plan))
    }

    /// With another segment size the names in the repository mean other positions.
    fn judge_size(&self, catalog: &Catalog) -> Option<(String, String)> {
        let (own, stored) = (self.control.segment_size, catalog.wal.size);
        let differs = own != stored && catalog.wal.timelines().next().is_some();
        differs.then(|| {
            (
                format!(
                    "WAL segments in {} are of {} MiB, this server's of {} MiB",
                    self.repository.location,
                    stored.mebibytes(),
                    own.mebibytes()
                ),
                "after a change of the segment size archive to a new prefix (archive.repository)"
                    .to_owned(),
            )
        })
    }

    /// Why nothing is deleted though this server is the primary: a newer timeline that proves nothing may yet be this cluster's.
    async fn why_doubtful(&self) -> Result<Option<(String, String)>, RetentionError> {
        let Some(own) = position_of(self.repository.data_directory(), &self.server) else {
            return Ok(None);
        };
        let newer = self.timelines.newer(&own).await?;
        Ok(newer.into_iter().find_map(|newer| {
            let Relation::Doubtful(reason) = newer.relation else {
                return None;
            };
            let timeline = newer.timeline;
            Some((
                format!("timeline {timeline} exists, and this server is not on it; {reason}"),
                "find out whose it is: `xdb timeline list`, runbooks/foreign-backup.md".to_owned(),
            ))
        }))
    }

    async fn why_clock_is_wrong(&self) -> Result<Option<(String, String)>, RetentionError> {
        let of_s3 = self.repository.bucket.server_time().await?;
        let hint = "set this node's clock (`timedatectl`, chrony); nothing was deleted".to_owned();
        Ok(why_clock_is_wrong(Timestamp::now(), of_s3).map(|reason| (reason, hint)))
    }

    async fn prune(&self) -> Result<PruneReport, RetentionError> {
        let (before, plan) = self.read_and_plan().await?;
        let deleter = Deleter {
            repository: self.repository,
            size: before.catalog.wal.size,
        };
        self.mark(&deleter, &before, &plan).await?;
        if plan.deletes_nothing() {
            return Ok(self.report(plan, Vec::new(), Vec::new()));
        }
        let (deletions, unfinished) = deletions(&before, &plan);
        for deletion in &deletions {
            deleter.dry_run(&plan, deletion).await?;
        }
        let now = Timestamp::now();
        let deleting: BTreeSet<String> = plan.deleted().map(|it| it.name.clone()).collect();
        let mut pruned = self.pruned(&before, &plan, deleting, now);
        self.repository.shared.keep_pruned(&pruned).await?;
        for deletion in &deletions {
            deleter.delete(&plan, deletion).await?;
        }
        for name in unfinished {
            self.delete_unfinished(&before, name).await?;
        }
        forget_catalog(&self.node.state_directory).await;
        // What is stored counts here: damage that a test found in between is no loss by this prune.
        let difference = compare(&plan, &before, &self.read_state().await?);
        pruned
            .deleting
            .retain(|name| difference.left.contains(name));
        self.repository.shared.keep_pruned(&pruned).await?;
        Ok(self.report(plan, difference.gone, difference.left))
    }

    /// Makes the marks that the plan wants, and takes xdb's own away. Each is recorded while it stands.
    async fn mark(
        &self,
        deleter: &Deleter<'_>,
        state: &ArchiveState,
        plan: &PrunePlan,
    ) -> Result<(), RetentionError> {
        let of = self.archive();
        let by = &self.node.hostname;
        // Of marks that were never made, or that somebody took off: the next one may be a person's.
        let is_unmarked = |name: &&String| !state.marks.contains_key(*name);
        for name in state.keepers.iter().filter(is_unmarked) {
            self.repository.shared.drop_keeper(of, name).await?;
        }
        for backup in &plan.backups {
            match backup.action {
                Action::Mark => {
                    let now = Timestamp::now();
                    let keeper = Keeper::new(of, &backup.name, by, now, &backup.reason);
                    self.repository.shared.keep_keeper(&keeper).await?;
                    deleter.mark(&backup.name, true).await?;
                }
                Action::UnmarkAndDelete => {
                    deleter.mark(&backup.name, false).await?;
                    self.repository.shared.drop_keeper(of, &backup.name).await?;
                }
                Action::Keep | Action::Delete => {}
            }
        }
        Ok(())
    }

    /// What is noted before anything is deleted; what went before stays gone.
    fn pruned(
        &self,
        state: &ArchiveState,
        plan: &PrunePlan,
        deleting: BTreeSet<String>,
        now: Timestamp,
    ) -> Pruned {
        let start = plan.before.as_ref().map(|(_, start)| *start);
        let before: Option<WalSegment> = start.max(state.catalog.wal.pruned_before);
        let before = before.map(|segment| segment.name(state.catalog.wal.size));
        let by = &self.node.hostname;
        Pruned::new(self.archive(), before, deleting, by, now)
    }

    /// The programs know no unfinished backup, and delete one only with what is older than a finished one.
    async fn delete_unfinished(
        &self,
        state: &ArchiveState,
        name: &str,
    ) -> Result<(), RetentionError> {
        let folder = state.folders.get(name);
        for object in folder.into_iter().flat_map(|folder| &folder.objects) {
            let key = self.repository.key(&format!("basebackups_005/{object}"));
            self.repository.bucket.delete(&key).await?;
        }
        Ok(())
    }

    fn report(&self, plan: PrunePlan, gone: Vec<String>, left: Vec<String>) -> PruneReport {
        PruneReport {
            plan,
            gone,
            left,
            system_identifier: self.control.system_identifier,
        }
    }
}

/// The calls that bring `plan` about, and the unfinished backups that none of them reaches.
fn deletions<'a>(state: &ArchiveState, plan: &'a PrunePlan) -> (Vec<Deletion<'a>>, Vec<&'a str>) {
    let catalog = &state.catalog;
    let (older, others): (Vec<_>, Vec<_>) = plan.deleted().partition(|it| {
        let backup = catalog.backup(&it.name);
        let start = backup.and_then(|backup| position(backup, catalog.wal.size));
        start < plan.before.as_ref().map(|(_, start)| *start)
    });
    let (mut deletions, mut unfinished) = (Vec::new(), Vec::new());
    if let Some((full, _)) = &plan.before
        && (!older.is_empty() || plan.wal.iter().any(|it| !it.keep))
    {
        deletions.push(Deletion::Before(full));
    }
    let others: BTreeSet<&str> = others.into_iter().map(|it| it.name.as_str()).collect();
    for name in &others {
        let backup = catalog.backup(name);
        let Some(sentinel) = backup.and_then(|backup| backup.sentinel.as_ref()) else {
            unfinished.push(*name);
            continue;
        };
        let parent = sentinel.delta.as_ref().map(|delta| delta.from.as_str());
        // Otherwise it goes with what it builds on.
        if !parent.is_some_and(|parent| others.contains(parent)) {
            deletions.push(Deletion::Target(name));
        }
    }
    (deletions, unfinished)
}
