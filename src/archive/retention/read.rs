//! Reads all that a plan is made from.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::{ArchiveState, Folder, Mark, RetentionError};
use crate::model::{JobDetail, WalSegment};
use crate::repository::catalog::{self, Backup};
use crate::repository::{ArchiveOf, Keeper, Program, Repository, RepositoryError, Shared};
use crate::storage::Cause;

/// The job whose success proves the backup in its detail, too.
const TEST: &str = "restore-test";
/// Small objects read at once.
const AT_ONCE: usize = 8;

/// Reads `repository` in full, and what is noted about it.
///
/// # Errors
/// When any of it cannot be read: by half a look nothing may be deleted.
pub(super) async fn read_state(
    repository: &Repository,
    system_identifier: u64,
) -> Result<ArchiveState, RetentionError> {
    let (program, _) = repository.program.find()?;
    let shared = &repository.shared;
    let of = (system_identifier, &repository.location);
    let mut catalog = catalog::read(repository).await?;
    repository.learn_tests(&mut catalog).await?;
    let pruned = shared.pruned(of).await?;
    let before = pruned.as_ref().and_then(|pruned| pruned.before.as_deref());
    catalog.wal.pruned_before =
        before.and_then(|name| WalSegment::parse(name, catalog.wal.size).ok());
    let keepers = shared.keepers(of).await?;
    Ok(ArchiveState {
        system_identifier,
        folders: folders(repository).await?,
        marks: marks(repository, program, &catalog.backups).await?,
        keepers: keepers.into_iter().map(|keeper| keeper.backup).collect(),
        deleting: pruned.map(|pruned| pruned.deleting).unwrap_or_default(),
        proven: proven(shared, of, &catalog.backups).await?,
        catalog,
    })
}

/// Those of `backups` whose last restore test passed.
async fn proven(
    shared: &Shared,
    of: ArchiveOf<'_>,
    backups: &[Backup],
) -> Result<BTreeSet<String>, RetentionError> {
    let names: Vec<&str> = backups.iter().map(|it| it.name.as_str()).collect();
    // The oldest first: what passed and failed later is proven no more.
    let proofs = shared.proofs_of(&names).await?.into_iter();
    let outcomes = proofs
        .filter(|proof| proof.is_of(of) && (proof.proves() || !proof.passed))
        .map(|proof| (proof.backup, proof.passed));
    let (mut proven, failed) = last_outcomes(outcomes);
    // Where a test's proof could not be written, its success is, as soon as the bucket answers.
    let success = shared.last_success(TEST).await?;
    let success = success.filter(|it| it.detail.system_identifier() == Some(of.0));
    let backup = success.and_then(|it| match it.detail {
        JobDetail::RestoreTest(report) => report.fields.backup,
        _ => None,
    });
    proven.extend(backup.filter(|backup| !failed.contains(backup)));
    Ok(proven)
}

/// The backups whose last test passed, and those whose last failed.
fn last_outcomes(
    tests: impl Iterator<Item = (String, bool)>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut proven, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for (backup, passed) in tests {
        let (now, before) = if passed {
            (&mut proven, &mut failed)
        } else {
            (&mut failed, &mut proven)
        };
        before.remove(&backup);
        now.insert(backup);
    }
    (proven, failed)
}

async fn folders(repository: &Repository) -> Result<BTreeMap<String, Folder>, RetentionError> {
    let prefix = repository.key("basebackups_005/");
    let mut folders: BTreeMap<String, Folder> = BTreeMap::new();
    for object in repository.bucket.list(&prefix).await? {
        let Some(path) = object.key.strip_prefix(&prefix) else {
            continue;
        };
        let folder = folders.entry(super::check::backup_of(path).to_owned());
        let folder = folder.or_insert_with(|| Folder {
            objects: BTreeSet::new(),
            bytes: 0,
            newest: object.last_modified,
        });
        folder.bytes += object.size;
        folder.newest = folder.newest.max(object.last_modified);
        folder.objects.insert(path.to_owned());
    }
    Ok(folders)
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    is_permanent: bool,
}

/// Whether `backup` is marked permanent, and by which record of xdb's; `Some(None)` where a person marked it.
///
/// # Errors
/// When the bucket cannot be read, or holds what cannot.
pub async fn permanent(
    repository: &Repository,
    backup: &Backup,
) -> Result<Option<Option<Keeper>>, RetentionError> {
    let Some(sentinel) = &backup.sentinel else {
        return Ok(None);
    };
    let in_metadata = in_metadata(repository, &backup.name).await?;
    if !sentinel.permanent && in_metadata != Some(true) {
        return Ok(None);
    }
    let keepers = match sentinel.system_identifier {
        Some(identifier) => {
            repository
                .shared
                .keepers((identifier, &repository.location))
                .await?
        }
        None => Vec::new(),
    };
    let mut keepers = keepers.into_iter();
    Ok(Some(keepers.find(|keeper| keeper.backup == backup.name)))
}

/// Which of `backups` are marked permanent: walrus marks in the sentinel, wal-g in `metadata.json`.
async fn marks(
    repository: &Repository,
    program: Program,
    backups: &[Backup],
) -> Result<BTreeMap<String, Mark>, RetentionError> {
    let finished = backups.iter().filter_map(|backup| {
        let sentinel = backup.sentinel.as_ref()?;
        Some((
            backup.name.clone(),
            sentinel.permanent,
            sentinel.has_metadata,
        ))
    });
    let reads = finished.map(|(name, in_sentinel, has_metadata)| async move {
        let in_metadata = in_metadata(repository, &name).await?;
        let mark = if program.spares(in_sentinel, in_metadata) {
            Some(Mark::Spared)
        } else if in_sentinel || in_metadata == Some(true) {
            Some(Mark::Elsewhere)
        } else if has_metadata && in_metadata.is_none() {
            Some(Mark::Unknown)
        } else {
            None
        };
        Ok::<_, RetentionError>((name, mark))
    });
    // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
    let read: Vec<(String, Option<Mark>)> = stream::iter(reads.map(Box::pin))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let marked = read.into_iter();
    Ok(marked
        .filter_map(|(name, mark)| Some((name, mark?)))
        .collect())
}

async fn in_metadata(
    repository: &Repository,
    backup: &str,
) -> Result<Option<bool>, RetentionError> {
    let key = repository.key(&format!("basebackups_005/{backup}/metadata.json"));
    let json = match repository.bucket.get(&key).await {
        Err(error) if error.cause() == Some(&Cause::NoSuchKey) => return Ok(None),
        json => json?,
    };
    let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| {
        let reason = format!("its metadata.json: {error}");
        let backup = backup.to_owned();
        RepositoryError::Sentinel { backup, reason }
    })?;
    Ok(Some(metadata.is_permanent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_and_failed_later_is_proven_no_more() {
        let tests = [
            ("a", true),
            ("b", true),
            ("b", false),
            ("c", false),
            ("c", true),
        ];
        let (proven, failed) = last_outcomes(
            tests
                .into_iter()
                .map(|(name, passed)| (name.to_owned(), passed)),
        );
        assert_eq!(proven.into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(failed.into_iter().collect::<Vec<_>>(), ["b"]);
    }
}
