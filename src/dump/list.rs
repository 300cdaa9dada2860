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

/// Every set below `dump.repository`, the oldest first.
///
/// # Errors
/// When the bucket cannot be listed, or a manifest that is there cannot be fetched.
pub async fn list(config: &Config) -> Result<Vec<Listed>, DumpError> {
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
    let mut listed = Vec::new();
    for (set, objects) in sets {
        let key = format!("{}{MANIFEST}", set.folder(&repository));
        let manifest = match bucket.get(&key).await {
            Ok(bytes) => Some(bytes),
            Err(error) if error.cause() == Some(&Cause::NoSuchKey) => None,
            Err(error) => return Err(error.into()),
        };
        listed.push(judge(&set, &objects, manifest.as_deref()));
    }
    Ok(listed)
}

/// Judges a set by its objects and the bytes of its manifest; `None` where it has none.
fn judge(set: &SetName, objects: &[Object], manifest: Option<&[u8]>) -> Listed {
    let read = manifest.map(read);
    let (status, reason) = match &read {
        None => (
            Status::Incomplete,
            Some("it has no manifest: it is being written, or never finished".to_owned()),
        ),
        Some(Err(reason)) => (Status::Damaged, Some(reason.clone())),
        Some(Ok(manifest)) => match why_damaged(manifest, objects) {
            Some(reason) => (Status::Damaged, Some(reason)),
            None => (Status::Complete, None),
        },
    };
    Listed {
        set: set.to_string(),
        status,
        reason,
        started_at: set.begun_at(),
        stored_bytes: objects.iter().map(|object| object.size).sum(),
        manifest: read.and_then(Result::ok),
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
        let listed = judge(&set, &objects, manifest.map(str::as_bytes));
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
