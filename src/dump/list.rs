//! What dump sets the bucket holds, and whether each is whole.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::set::MANIFEST;
use super::{DumpError, DumpSet, SetName};
use crate::config::Config;
use crate::storage::{Bucket, Cause, Object};

/// One set of the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub set: String,
    pub status: Status,
    /// Why it is not complete.
    pub reason: Option<String>,
    pub started_at: Timestamp,
    /// What it takes in the bucket.
    pub stored_bytes: u64,
    /// `None` where there is none, or it cannot be read.
    pub manifest: Option<DumpSet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The manifest is there, and so is all that it names, in its size.
    Complete,
    /// No manifest: being written, or never finished.
    Incomplete,
    /// A manifest that does not hold.
    Damaged,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
        }
    }
}

/// Manifests that were read before, by their keys: each with the tag of the object that it was read from.
#[derive(Debug, Default)]
pub struct ReadManifests(BTreeMap<String, (String, Manifest)>);

/// What a manifest says, or why it cannot be read.
type Manifest = Result<DumpSet, String>;

/// Every set below `dump.repository`, the oldest first.
///
/// # Errors
/// When the bucket cannot be listed, or a manifest that is there cannot be fetched.
pub async fn list(config: &Config) -> Result<Vec<Listed>, DumpError> {
    let (bucket, sets) = sets(config).await?;
    let mut listed = Vec::new();
    for (set, objects) in sets {
        let manifest = match manifest_of(&objects) {
            Some(object) => fetch(&bucket, object).await?,
            None => None,
        };
        listed.push(judge(&set, &objects, manifest));
    }
    Ok(listed)
}

/// The newest set that is complete, and when it was begun.
///
/// Older manifests than its own are not read, and one that is in `read` is not fetched again.
///
/// # Errors
/// When the bucket cannot be listed, or a manifest that is there cannot be fetched.
pub async fn newest_complete(
    config: &Config,
    read: &mut ReadManifests,
) -> Result<Option<(SetName, Timestamp)>, DumpError> {
    let (bucket, sets) = sets(config).await?;
    let mut before = std::mem::take(&mut read.0);
    for (set, objects) in sets.into_iter().rev() {
        let Some(object) = manifest_of(&objects) else {
            continue;
        };
        let same = |(tag, _): &(String, Manifest)| !tag.is_empty() && *tag == object.tag;
        let manifest = match before.remove(&object.key).filter(same) {
            Some((_, manifest)) => Some(manifest),
            None => fetch(&bucket, object).await?,
        };
        let complete = judge_manifest(manifest.as_ref(), &objects).0 == Status::Complete;
        if let Some(manifest) = manifest {
            let kept = (object.tag.clone(), manifest);
            read.0.insert(object.key.clone(), kept);
        }
        if complete {
            let begun_at = set.begun_at();
            return Ok(Some((set, begun_at)));
        }
    }
    Ok(None)
}

/// The objects of each set.
async fn sets(config: &Config) -> Result<(Bucket, BTreeMap<SetName, Vec<Object>>), DumpError> {
    let repository = super::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let prefix = repository.key("");
    let mut sets: BTreeMap<SetName, Vec<Object>> = BTreeMap::new();
    for object in bucket.list(&prefix).await? {
        let path = object.key.strip_prefix(&prefix).unwrap_or_default();
        let folder = path.split_once('/').map(|(folder, _)| folder);
        // What is not a set's is not ours to judge.
        if let Some(set) = folder.and_then(SetName::parse) {
            sets.entry(set).or_default().push(object);
        }
    }
    Ok((bucket, sets))
}

fn manifest_of(objects: &[Object]) -> Option<&Object> {
    let name = |object: &&Object| object.key.rsplit('/').next() == Some(MANIFEST);
    objects.iter().find(name)
}

/// `None` where it was deleted since the listing.
async fn fetch(bucket: &Bucket, object: &Object) -> Result<Option<Manifest>, DumpError> {
    match bucket.get(&object.key).await {
        Ok(bytes) => Ok(Some(self::read(&bytes))),
        Err(error) if error.cause() == Some(&Cause::NoSuchKey) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Judges a set by its objects and its manifest; `None` where it has none.
fn judge(set: &SetName, objects: &[Object], manifest: Option<Manifest>) -> Listed {
    let (status, reason) = judge_manifest(manifest.as_ref(), objects);
    Listed {
        set: set.to_string(),
        status,
        reason,
        started_at: set.begun_at(),
        stored_bytes: objects.iter().map(|object| object.size).sum(),
        manifest: manifest.and_then(Result::ok),
    }
}

fn judge_manifest(manifest: Option<&Manifest>, objects: &[Object]) -> (Status, Option<String>) {
    match manifest {
        None => (
            Status::Incomplete,
            Some("it has no manifest: it is being written, or never finished".to_owned()),
        ),
        Some(Err(reason)) => (Status::Damaged, Some(reason.clone())),
        Some(Ok(manifest)) => match why_damaged(manifest, objects) {
            Some(reason) => (Status::Damaged, Some(reason)),
            None => (Status::Complete, None),
        },
    }
}

fn read(manifest: &[u8]) -> Result<DumpSet, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let unreadable = |error: serde_json::Error| format!("its manifest cannot be read: {error}");
    let version: Version = serde_json::from_slice(manifest).map_err(unreadable)?;
    if version.v != DumpSet::VERSION {
        return Err(format!(
            "its manifest is of version {}, this xdb reads {}",
            version.v,
            DumpSet::VERSION
        ));
    }
    serde_json::from_slice(manifest).map_err(unreadable)
}

fn why_damaged(manifest: &DumpSet, objects: &[Object]) -> Option<String> {
    manifest.objects().find_map(|named| {
        let there = objects.iter().find(|object| object.key == named.key);
        match there.map(|object| object.size) {
            None => Some(format!("{} is missing", named.key)),
            Some(size) if size != named.bytes => Some(format!(
                "{} has {size} bytes, its manifest says {}",
                named.key, named.bytes
            )),
            Some(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(objects: &[(&str, u64)], manifest: Option<&str>) -> (Status, String) {
        let set = SetName::parse("20260513T101429.123Z-db2").unwrap();
        let objects: Vec<Object> = objects
            .iter()
            .map(|(key, size)| Object {
                key: (*key).to_owned(),
                size: *size,
                last_modified: Timestamp::UNIX_EPOCH,
                tag: String::new(),
            })
            .collect();
        let listed = judge(&set, &objects, manifest.map(|text| read(text.as_bytes())));
        assert_eq!(listed.started_at, set.begun_at());
        (listed.status, listed.reason.unwrap_or_default())
    }

    #[test]
    fn a_set_is_judged_by_its_manifest_and_its_objects() {
        let manifest = r#"{"v": 1, "set": "s", "cluster": "main", "node": "db2", "in_recovery": false,
            "system_identifier": 7, "server_version": 170011,
            "started_at": "2026-05-13T10:14:29Z", "finished_at": "2026-05-13T10:14:30Z", "databases": [],
            "globals": {"key": "p/globals.sql", "bytes": 5, "sha256": "ab"}}"#;
        let newer = manifest.replace(r#""v": 1"#, r#""v": 2"#);
        let globals = [("p/globals.sql", 5)];
        for (objects, manifest, status, reason) in [
            (&globals[..], Some(manifest), Status::Complete, ""),
            (&globals, None, Status::Incomplete, "no manifest"),
            (&globals, Some("{"), Status::Damaged, "cannot be read"),
            (&globals, Some(&newer), Status::Damaged, "of version 2"),
            (
                &[],
                Some(manifest),
                Status::Damaged,
                "globals.sql is missing",
            ),
            (
                &[("p/globals.sql", 4)],
                Some(manifest),
                Status::Damaged,
                "has 4 bytes, its manifest says 5",
            ),
        ] {
            let judged = judged(objects, manifest);
            assert_eq!(judged.0, status, "{judged:?}");
            assert!(judged.1.contains(reason), "{judged:?}");
        }
    }
}
