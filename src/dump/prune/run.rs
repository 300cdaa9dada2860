//! A prune of dumps: look, plan, delete, look again.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::plan::{DumpPlan, SetPlan, plan_dumps};
use super::seen::{Seen, SeenSet};
use crate::config::Retention;
use crate::dump::list::{Found, find, list_found};
use crate::dump::set::MANIFEST;
use crate::dump::{DumpError, Dumps, lock};
use crate::postgres;
use crate::repository::{DeletingDumps, WorkLock, why_clock_is_wrong};
use crate::storage::{Cause, StorageError, UnfinishedUpload};

/// The mark says that the cluster's lock is to be given up.
const MARK: &str = "pruning";

/// A prune that finished.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DumpPruneReport {
    #[serde(flatten)]
    pub plan: DumpPlan,
    /// Objects of kept sets that are gone.
    pub gone: Vec<String>,
    /// Objects and uploads that the plan deletes and that are still there, for no known reason.
    pub left: Vec<String>,
    /// Objects that the plan deletes and that the bucket's object lock keeps.
    pub retained: Vec<Retained>,
    #[serde(skip)]
    pub system_identifier: u64,
}

/// An object that may not be deleted yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Retained {
    pub key: String,
    /// In S3's words.
    pub reason: String,
}

/// What [`prune`] would do now.
///
/// # Errors
/// As [`prune`], but for locks.
pub(crate) async fn look_and_plan(
    dumps: &Dumps,
    retention: Retention,
) -> Result<DumpPlan, DumpError> {
    if retention.window_days.is_none() {
        return Err(DumpError::NoRetention);
    }
    Ok(plan_dumps(&look(dumps).await?, retention))
}

/// Deletes the sets that `retention` does not keep and unfinished uploads, and compares the bucket with the plan.
///
/// It holds the lock of dumps: no set is written meanwhile.
///
/// # Errors
/// [`DumpError::NoRetention`] where nothing is configured; otherwise what failed. The next run deletes what is left.
pub(crate) async fn prune(
    dumps: &Dumps,
    retention: Retention,
) -> Result<DumpPruneReport, DumpError> {
    if retention.window_days.is_none() {
        return Err(DumpError::NoRetention);
    }
    let node = lock::take(dumps).await?;
    let by = (&dumps.shared, dumps.node.hostname.as_str());
    let WorkLock {
        mut node,
        mut cluster,
    } = WorkLock::take(node, by, Some(MARK)).await?;
    let pruned = match cluster.during(work(dumps, retention)).await {
        Ok(pruned) => pruned,
        Err(lost) => Err(lost.into()),
    };
    cluster.release().await;
    node.clear()?;
    pruned
}

async fn work(dumps: &Dumps, retention: Retention) -> Result<DumpPruneReport, DumpError> {
    let seen = look(dumps).await?;
    let plan = plan_dumps(&seen, retention);
    let deleting: BTreeSet<String> = plan.deleted().map(|set| set.set.clone()).collect();
    if deleting != seen.deleting {
        note_deleting(dumps, deleting).await?;
    }
    let mut retained = Vec::new();
    for set in plan.deleted() {
        delete_set(dumps, set, &mut retained).await?;
    }
    for upload in plan.aborted() {
        let upload = UnfinishedUpload {
            key: upload.key.clone(),
            upload_id: upload.upload_id.clone(),
            initiated: upload.initiated,
        };
        dumps.bucket.abort_upload(&upload).await?;
    }
    let after = find(dumps).await?;
    let (gone, mut left) = compare(&plan, &after, &retained);
    let deleting = left_sets(&plan, &after);
    note_deleting(dumps, deleting).await?;
    let uploads = dumps
        .bucket
        .unfinished_uploads(&dumps.location.key(""))
        .await?;
    let aborted: BTreeSet<&str> = plan.aborted().map(|it| it.upload_id.as_str()).collect();
    let still = uploads
        .into_iter()
        .filter(|it| aborted.contains(&*it.upload_id));
    left.extend(still.map(|upload| upload.key));
    Ok(DumpPruneReport {
        plan,
        gone,
        left,
        retained,
        system_identifier: seen.system_identifier,
    })
}

/// Reads all that a plan is made from.
async fn look(dumps: &Dumps) -> Result<Seen, DumpError> {
    if let Some(reason) = why_clock_is_wrong(Timestamp::now(), dumps.bucket.server_time().await?) {
        return Err(DumpError::Clock { reason });
    }
    let settings = &dumps.postgres;
    let connection = postgres::connect(&settings.into(), settings.connect_timeout).await?;
    let server = postgres::server(&connection).await?;
    let repository = dumps.location.to_string();
    // The uploads first: one that ends meanwhile is an object then, and not the other way round.
    let prefix = dumps.location.key("");
    let uploads = dumps.bucket.unfinished_uploads(&prefix).await?;
    let found = find(dumps).await?;
    let listed = list_found(dumps, &found).await?;
    let sets = found.sets.into_iter().zip(listed);
    Ok(Seen {
        now: Timestamp::now(),
        location: dumps.location.clone(),
        cluster: dumps.cluster.clone(),
        system_identifier: server.system_identifier,
        hostname: dumps.node.hostname.clone(),
        sets: sets
            .map(|((name, objects), listed)| SeenSet {
                name,
                listed,
                objects,
            })
            .collect(),
        others: found.others,
        uploads,
        begun: dumps.shared.begun_dump(&repository).await?,
        deleting: dumps.shared.deleting_dumps(&repository).await?,
    })
}

/// Written before anything is deleted: what is listed is not to be counted on once its manifest is gone.
async fn note_deleting(dumps: &Dumps, sets: BTreeSet<String>) -> Result<(), DumpError> {
    let (repository, by) = (dumps.location.to_string(), &dumps.node.hostname);
    let deleting = DeletingDumps::new(&repository, sets, by, Timestamp::now());
    Ok(dumps.shared.keep_deleting_dumps(&deleting).await?)
}

/// Deletes the objects of `set`, the manifest first: what is left at any moment is no dump.
async fn delete_set(
    dumps: &Dumps,
    set: &SetPlan,
    retained: &mut Vec<Retained>,
) -> Result<(), StorageError> {
    let is_manifest = |key: &&String| key.ends_with(&format!("/{MANIFEST}"));
    let (manifest, others): (Vec<&String>, Vec<&String>) = set.keys.iter().partition(is_manifest);
    for key in manifest {
        if !delete(dumps, key, retained).await? {
            // What the lock keeps stays a whole set.
            return Ok(());
        }
    }
    for key in others {
        delete(dumps, key, retained).await?;
    }
    Ok(())
}

/// `false` where the object's lock refuses it.
async fn delete(
    dumps: &Dumps,
    key: &str,
    retained: &mut Vec<Retained>,
) -> Result<bool, StorageError> {
    match dumps.bucket.delete(key).await {
        Ok(()) => Ok(true),
        Err(error) => match error.cause() {
            Some(Cause::Locked(reason)) => {
                retained.push(Retained {
                    key: key.to_owned(),
                    reason: reason.clone(),
                });
                Ok(false)
            }
            _ => Err(error),
        },
    }
}

/// The objects of kept sets that are gone, and those of deleted ones that are still there and not retained.
fn compare(plan: &DumpPlan, after: &Found, retained: &[Retained]) -> (Vec<String>, Vec<String>) {
    let objects = after.sets.values().flatten();
    let there: BTreeSet<&str> = objects.map(|object| object.key.as_str()).collect();
    let deleted: BTreeSet<&str> = plan.deleted().map(|set| set.set.as_str()).collect();
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    for set in &plan.sets {
        let is_deleted = deleted.contains(&*set.set);
        // The manifest that its lock keeps keeps its set.
        let is_retained = retained.iter().any(|it| set.keys.contains(&it.key));
        for key in &set.keys {
            match (is_deleted, there.contains(&**key)) {
                (false, false) => gone.push(key.clone()),
                (true, true) if !is_retained => left.push(key.clone()),
                _ => {}
            }
        }
    }
    (gone, left)
}

fn left_sets(plan: &DumpPlan, after: &Found) -> BTreeSet<String> {
    let there: BTreeSet<String> = after.sets.keys().map(ToString::to_string).collect();
    let deleted = plan.deleted().map(|set| set.set.clone());
    deleted.filter(|set| there.contains(set)).collect()
}
