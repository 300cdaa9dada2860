//! The dump sets of the bucket, and whether each is complete.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::listed::{Listed, Status, difference};
use super::set::MANIFEST;
use super::tested::{is_disproved, learn_tests};
use super::{DumpError, DumpSet, Dumps, SetName};
use crate::repository::{DumpProof, ReadDumpProofs};
use crate::storage::{Bucket, Cause, Object};

/// What was read before and has not changed.
#[derive(Debug, Default)]
pub(crate) struct ReadManifests {
    /// By their keys: each with the tag of the object that it was read from.
    manifests: BTreeMap<String, (String, Manifest)>,
    proofs: ReadDumpProofs,
}

/// What a manifest says, or why it cannot be read.
type Manifest = Result<DumpSet, Unread>;

/// Why a manifest was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unread {
    Damaged(String),
    /// Its version: a later xdb wrote it.
    Newer(u32),
}

/// Every set below `dump.repository`, the oldest first.
///
/// # Errors
/// When the bucket cannot be listed, or a manifest or a test's proof that is there cannot be fetched.
pub(crate) async fn list(dumps: &Dumps) -> Result<Vec<Listed>, DumpError> {
    list_found(dumps, &find(dumps).await?).await
}

/// The same of what was `found` before.
///
/// # Errors
/// As [`list`].
pub(super) async fn list_found(dumps: &Dumps, found: &Found) -> Result<Vec<Listed>, DumpError> {
    let (mut listed, mut full) = (Vec::new(), LastFull::default());
    for (set, objects) in &found.sets {
        let manifest = match manifest_of(objects) {
            Some(object) => fetch(&dumps.bucket, object).await?,
            None => None,
        };
        listed.push(judge(set, objects, manifest, &mut full));
    }
    learn_tests(dumps, &mut listed).await?;
    Ok(listed)
}

/// The databases of the last full set: a manifest without a mark is judged by them.
#[derive(Debug, Default)]
struct LastFull {
    system_identifier: Option<u64>,
    databases: BTreeSet<String>,
}

impl LastFull {
    /// Whether `set`, the next in time, is partial. Without a mark one is that lacks a database of the last full set.
    fn judge(&mut self, set: &DumpSet) -> bool {
        let names = set.databases.iter().map(|database| database.name.clone());
        let databases: BTreeSet<String> = names.collect();
        let same_cluster = self.system_identifier == Some(set.system_identifier);
        let lacks_some = same_cluster && !self.databases.is_subset(&databases);
        let partial = set.partial.unwrap_or(lacks_some);
        if !partial {
            *self = Self {
                system_identifier: Some(set.system_identifier),
                databases,
            };
        }
        partial
    }
}

/// The newest sets that are complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// Of every database, and when it was begun.
    pub full: Option<(SetName, Timestamp)>,
    /// A partial one that is newer.
    pub partial: Option<SetName>,
}

/// This cluster's newest set of every database that is complete, and a partial one that is newer. A set whose newest dump test
/// failed is no evidence: it counts as if it were not there.
///
/// Older manifests are read only for one without a mark, and one that is in `read` is not fetched again.
///
/// # Errors
/// When the bucket cannot be listed, or a manifest that is there cannot be fetched.
pub(crate) async fn newest_complete(
    dumps: &Dumps,
    read: &mut ReadManifests,
) -> Result<Newest, DumpError> {
    let sets = find(dumps).await?.sets;
    let mut manifests = Manifests {
        bucket: dumps.bucket.clone(),
        cluster: &dumps.cluster,
        before: std::mem::take(&mut read.manifests),
        read: &mut read.manifests,
    };
    let mut proofs = Proofs {
        dumps,
        read: &mut read.proofs,
    };
    let mut newest = Newest::default();
    for (set, objects) in sets.iter().rev() {
        let Some(manifest) = manifests.complete(objects).await? else {
            continue;
        };
        match manifest.partial {
            Some(true) => newest.partial = newest.partial.or_else(|| Some(set.clone())),
            Some(false) => {
                let tests = proofs.of(&[set]).await?;
                if !is_disproved(&tests, &set.to_string(), manifest.system_identifier) {
                    newest.full = Some((set.clone(), set.begun_at()));
                    return Ok(newest);
                }
            }
            None => return newest_unmarked(&sets, &mut manifests, &mut proofs).await,
        }
    }
    Ok(newest)
}

/// The same where a manifest has no mark: all are read.
async fn newest_unmarked(
    sets: &BTreeMap<SetName, Vec<Object>>,
    manifests: &mut Manifests<'_>,
    proofs: &mut Proofs<'_>,
) -> Result<Newest, DumpError> {
    let tests = proofs.of(&sets.keys().collect::<Vec<_>>()).await?;
    let (mut newest, mut last) = (Newest::default(), LastFull::default());
    for (set, objects) in sets {
        let Some(manifest) = manifests.complete(objects).await? else {
            continue;
        };
        if last.judge(&manifest) {
            newest.partial = Some(set.clone());
        } else if !is_disproved(&tests, &set.to_string(), manifest.system_identifier) {
            newest.full = Some((set.clone(), set.begun_at()));
            newest.partial = None;
        }
    }
    Ok(newest)
}

/// The manifests of one listing.
struct Manifests<'a> {
    bucket: Bucket,
    cluster: &'a str,
    before: BTreeMap<String, (String, Manifest)>,
    read: &'a mut BTreeMap<String, (String, Manifest)>,
}

/// What dump tests found.
struct Proofs<'a> {
    dumps: &'a Dumps,
    read: &'a mut ReadDumpProofs,
}

impl Proofs<'_> {
    /// Every proof of one of `sets`.
    async fn of(&mut self, sets: &[&SetName]) -> Result<Vec<DumpProof>, DumpError> {
        let names: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let repository = self.dumps.location.to_string();
        let shared = &self.dumps.shared;
        let proofs = shared.dump_proofs_since(&repository, &names, self.read);
        Ok(proofs.await?)
    }
}

impl Manifests<'_> {
    /// What the manifest among `objects` says; `None` where the set is not complete, or another cluster's.
    async fn complete(&mut self, objects: &[Object]) -> Result<Option<DumpSet>, DumpError> {
        let Some(object) = manifest_of(objects) else {
            return Ok(None);
        };
        let same = |(tag, _): &(String, Manifest)| !tag.is_empty() && *tag == object.tag;
        let again = self.read.get(&object.key).cloned();
        let known = again.or_else(|| self.before.remove(&object.key));
        let manifest = match known.filter(same) {
            Some((_, manifest)) => Some(manifest),
            None => fetch(&self.bucket, object).await?,
        };
        let Some(manifest) = manifest else {
            return Ok(None);
        };
        let complete = judge_manifest(Some(&manifest), objects).0 == Status::Complete;
        let kept = (object.tag.clone(), manifest.clone());
        self.read.insert(object.key.clone(), kept);
        let is_own = |manifest: &DumpSet| manifest.cluster == self.cluster;
        Ok(manifest
            .ok()
            .filter(|manifest| complete && is_own(manifest)))
    }
}

/// What lies below `dump.repository`.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The objects of each set.
    pub sets: BTreeMap<SetName, Vec<Object>>,
    /// Objects that belong to no set.
    pub others: Vec<Object>,
}

/// Lists `dump.repository`.
///
/// # Errors
/// When the bucket cannot be listed.
pub(super) async fn find(dumps: &Dumps) -> Result<Found, DumpError> {
    let mut found = Found::default();
    for object in dumps.bucket.list(&dumps.location.key("")).await? {
        match SetName::of_key(&object.key, &dumps.location) {
            Some(set) => found.sets.entry(set).or_default().push(object),
            None => found.others.push(object),
        }
    }
    Ok(found)
}

fn manifest_of(objects: &[Object]) -> Option<&Object> {
    let name = |object: &&Object| object.key.rsplit('/').next() == Some(MANIFEST);
    objects.iter().find(name)
}

/// `None` where it was deleted since the listing.
async fn fetch(bucket: &Bucket, object: &Object) -> Result<Option<Manifest>, DumpError> {
    match bucket.get(&object.key).await {
        Ok(bytes) => Ok(Some(read(&bytes))),
        Err(error) if error.cause() == Some(&Cause::NoSuchKey) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Judges a set by its objects and its manifest, `None` where it has none, and by the `full` one before it.
fn judge(
    set: &SetName,
    objects: &[Object],
    manifest: Option<Manifest>,
    full: &mut LastFull,
) -> Listed {
    let (status, reason) = judge_manifest(manifest.as_ref(), objects);
    let read = manifest.as_ref().and_then(|read| read.as_ref().ok());
    let partial = read.is_some_and(|manifest| full.judge(manifest));
    Listed {
        set: set.to_string(),
        status,
        reason,
        started_at: set.begun_at(),
        partial,
        stored_bytes: objects.iter().map(|object| object.size).sum(),
        tested: None,
        manifest: manifest.and_then(Result::ok),
        stored: sizes(objects),
    }
}

fn judge_manifest(manifest: Option<&Manifest>, objects: &[Object]) -> (Status, Option<String>) {
    match manifest {
        None => (
            Status::Incomplete,
            Some("it has no manifest: it is being written, or never finished".to_owned()),
        ),
        Some(Err(Unread::Damaged(reason))) => (Status::Damaged, Some(reason.clone())),
        Some(Err(Unread::Newer(version))) => (
            Status::Unknown,
            Some(format!(
                "its manifest is of version {version}, this xdb reads up to {}: use the xdb that wrote it, or a later one",
                DumpSet::VERSION
            )),
        ),
        Some(Ok(manifest)) => match why_damaged(manifest, objects) {
            Some(reason) => (Status::Damaged, Some(reason)),
            None => (Status::Complete, None),
        },
    }
}

fn read(manifest: &[u8]) -> Manifest {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let unreadable =
        |error: serde_json::Error| Unread::Damaged(format!("its manifest cannot be read: {error}"));
    let version: Version = serde_json::from_slice(manifest).map_err(unreadable)?;
    match version.v {
        0 => return Err(Unread::Damaged("its manifest has the version 0".to_owned())),
        newer if newer > DumpSet::VERSION => return Err(Unread::Newer(newer)),
        _ => {}
    }
    serde_json::from_slice(manifest).map_err(unreadable)
}

fn why_damaged(manifest: &DumpSet, objects: &[Object]) -> Option<String> {
    let stored = sizes(objects);
    let mut named = manifest.objects();
    named.find_map(|named| difference(&stored, named))
}

fn sizes(objects: &[Object]) -> BTreeMap<String, u64> {
    let sizes = objects.iter().map(|it| (it.key.clone(), it.size));
    sizes.collect()
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
