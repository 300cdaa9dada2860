//! What restore tests found, on whatever node: `proofs/{started_at}-{backup}.json`.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ArchiveOf, Shared, SharedError, finished_at};
use crate::log;
use crate::model::TestReport;
use crate::storage::Condition;

const FOLDER: &str = "proofs/";
/// The newest are kept: one a day for more than a year.
pub(super) const KEPT: usize = 500;
/// Small objects read at once.
const AT_ONCE: usize = 8;

/// Proofs that were read before, by their keys: none is ever changed.
#[derive(Debug, Default)]
pub struct ReadProofs(BTreeMap<String, Proof>);

/// A restore test that judged a backup; the object's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    v: u32,
    pub started_at: Timestamp,
    pub elapsed_secs: f64,
    /// Host name of the node that tested.
    pub node: String,
    /// Where the backup is, as `s3://bucket/prefix`.
    pub repository: String,
    /// `None` where the backup does not tell.
    pub system_identifier: Option<u64>,
    pub backup: String,
    pub passed: bool,
    /// As `xdb restore-test --json` prints it.
    pub report: TestReport,
}

impl Proof {
    /// `None` without a backup: nothing was judged.
    pub fn new(
        node: &str,
        repository: &str,
        (started_at, elapsed_secs): (Timestamp, f64),
        report: TestReport,
    ) -> Option<Self> {
        Some(Self {
            v: 1,
            started_at,
            elapsed_secs,
            node: node.to_owned(),
            repository: repository.to_owned(),
            system_identifier: report.fields.system_identifier,
            backup: report.fields.backup.clone()?,
            passed: report.fields.passed,
            report,
        })
    }

    pub fn finished_at(&self) -> Timestamp {
        finished_at(self.started_at, self.elapsed_secs)
    }

    /// Whether its backup came back whole: pages were looked at, and it was recovered to the end of the archive.
    pub fn proves(&self) -> bool {
        let report = &self.report.fields;
        self.passed && report.level.as_deref() != Some("start") && report.until.is_none()
    }

    /// Whether nothing bad was found, and not all could be looked at: that speaks neither for the backup nor against it.
    pub fn is_incomplete(&self) -> bool {
        self.report.fields.conclusion.as_deref() == Some("incomplete")
    }

    /// Whether the proof at `key` is of `backup`.
    pub fn is_named(key: &str, backup: &str) -> bool {
        let named = key.strip_suffix(".json").unwrap_or(key);
        named
            .strip_suffix(backup)
            .is_some_and(|rest| rest.ends_with('-'))
    }

    /// Whether it is of a backup of that cluster in that repository.
    pub fn is_of(&self, (system_identifier, repository): ArchiveOf<'_>) -> bool {
        self.system_identifier == Some(system_identifier)
            && self.repository == repository.to_string()
    }

    fn path(&self) -> String {
        let at = self.started_at.strftime("%Y%m%dT%H%M%S%.6fZ");
        format!("{FOLDER}{at}-{}.json", self.backup)
    }
}

impl Shared {
    /// Keeps `proof` beside those that are there, and lets go of the oldest above 500.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_proof(&self, proof: &Proof) -> Result<(), SharedError> {
        self.keep_newest(FOLDER, &proof.path(), proof).await
    }

    /// Keeps `record` at `path` in `folder`, whose names begin with their time, and deletes the oldest above 500.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub(super) async fn keep_newest(
        &self,
        folder: &str,
        path: &str,
        record: &impl Serialize,
    ) -> Result<(), SharedError> {
        let content = serde_json::to_vec(record).expect("plain values");
        // What is there under this very name is this one: its answer was lost, and it was sent again.
        let absent = Condition::Absent;
        self.bucket
            .put_if(&self.key(path), &content, absent)
            .await?;
        let kept = self.bucket.list(&self.key(folder)).await?;
        for object in &kept[..kept.len().saturating_sub(KEPT)] {
            self.bucket.delete(&object.key).await?;
        }
        Ok(())
    }

    /// The newest proofs, at most `limit` of them, newest first, without the damaged ones.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn newest_proofs(&self, limit: usize) -> Result<Vec<Proof>, SharedError> {
        let mut keys = self.proof_keys().await?;
        keys.reverse();
        keys.truncate(limit);
        self.read_proofs(keys).await
    }

    /// The same; only those are fetched that are not in `read`.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn newest_proofs_since(
        &self,
        limit: usize,
        read: &mut ReadProofs,
    ) -> Result<Vec<Proof>, SharedError> {
        let mut keys = self.proof_keys().await?;
        keys.drain(..keys.len().saturating_sub(limit));
        read.0.retain(|key, _| keys.contains(key));
        let unread = keys.into_iter().filter(|key| !read.0.contains_key(key));
        let unread: Vec<String> = unread.collect();
        let reads = unread.into_iter().map(|key| async move {
            match self.proof_at(&key).await {
                // One that is damaged hides no other.
                Err(SharedError::Content { .. }) => Ok(None),
                proof => Ok::<_, SharedError>(proof?.map(|proof| (key, proof))),
            }
        });
        let fetched: Vec<Option<(String, Proof)>> = stream::iter(reads.map(Box::pin))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        read.0.extend(fetched.into_iter().flatten());
        Ok(read.0.values().rev().cloned().collect())
    }

    /// Every proof of one of `backups`, oldest first, without the damaged ones.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn proofs_of(&self, backups: &[&str]) -> Result<Vec<Proof>, SharedError> {
        let mut keys = self.proof_keys().await?;
        keys.retain(|key| backups.iter().any(|backup| Proof::is_named(key, backup)));
        self.read_proofs(keys).await
    }

    /// The keys of all proofs, oldest first: they begin with their time.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn proof_keys(&self) -> Result<Vec<String>, SharedError> {
        let listed = self.bucket.list(&self.key(FOLDER)).await?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    /// The proof at `key`; `None` where another node has deleted it since the listing.
    ///
    /// # Errors
    /// When it cannot be read, or is no proof.
    pub async fn proof_at(&self, key: &str) -> Result<Option<Proof>, SharedError> {
        let Some((content, _)) = self.bucket.get_tagged(key).await? else {
            return Ok(None);
        };
        let proof = serde_json::from_slice(&content);
        proof.map(Some).map_err(|error| self.damaged(key, &error))
    }

    async fn read_proofs(&self, keys: Vec<String>) -> Result<Vec<Proof>, SharedError> {
        let reads = keys
            .into_iter()
            .map(|key| async move { unless_damaged(self.proof_at(&key).await) });
        // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
        let read: Vec<Option<Proof>> = stream::iter(reads.map(Box::pin))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(read.into_iter().flatten().collect())
    }
}

/// A damaged proof counts as none, so that it hides no other and stops no prune.
pub(super) fn unless_damaged<T>(
    read: Result<Option<T>, SharedError>,
) -> Result<Option<T>, SharedError> {
    match read {
        Err(error @ SharedError::Content { .. }) => {
            let reason = log::chain(&error);
            tracing::warn!("the proof of a test does not count: {reason}");
            Ok(None)
        }
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, StorageError};

    fn proof(report: &str) -> Option<Proof> {
        let at = "2026-11-21T04:00:00.123456Z".parse().unwrap();
        let report = serde_json::from_str(report).unwrap();
        Proof::new("db2", "s3://b/main", (at, 12.5), report)
    }

    #[test]
    fn a_proof_is_written_where_and_as_other_versions_read_it() {
        let proof =
            proof(r#"{"passed":true,"backup":"base_1","system_identifier":7}"#).expect("a proof");
        assert_eq!(proof.path(), "proofs/20261121T040000.123456Z-base_1.json");
        let json = r#"{"v":1,"started_at":"2026-11-21T04:00:00.123456Z","elapsed_secs":12.5,"node":"db2","repository":"s3://b/main","system_identifier":7,"backup":"base_1","passed":true,"report":{"backup":"base_1","passed":true,"system_identifier":7}}"#;
        assert_eq!(serde_json::to_string(&proof).unwrap(), json);
        assert_eq!(serde_json::from_str::<Proof>(json).unwrap(), proof);
    }

    #[test]
    fn only_a_pass_of_this_cluster_in_this_repository_proves() {
        let at = |bucket: &str| Location {
            bucket: bucket.to_owned(),
            prefix: "main".to_owned(),
        };
        let (here, other) = (at("b"), at("c"));
        let passed = r#"{"passed":true,"backup":"base_1","system_identifier":7}"#;
        for (what, report, of, proves) in [
            ("a pass", passed, (7, &here), true),
            ("another cluster", passed, (8, &here), false),
            ("another repository", passed, (7, &other), false),
            (
                "a failure",
                r#"{"passed":false,"backup":"base_1","system_identifier":7}"#,
                (7, &here),
                false,
            ),
            (
                "a pass at level start",
                r#"{"passed":true,"level":"start","backup":"base_1","system_identifier":7}"#,
                (7, &here),
                false,
            ),
            (
                "a pass that stopped before the end",
                r#"{"passed":true,"level":"full","until":"0/3000028","backup":"base_1","system_identifier":7}"#,
                (7, &here),
                false,
            ),
            (
                "of nobody knows whom",
                r#"{"passed":true,"backup":"base_1","system_identifier":null}"#,
                (7, &here),
                false,
            ),
        ] {
            let proof = proof(report).unwrap();
            assert_eq!(proof.proves() && proof.is_of(of), proves, "{what}");
        }
        assert_eq!(proof(r#"{"passed":false,"backup":null}"#), None);
    }

    #[test]
    fn a_damaged_proof_counts_as_none_and_an_unread_one_does_not() {
        let damaged = SharedError::Content {
            bucket: "b".to_owned(),
            key: "proofs/1".to_owned(),
            reason: "EOF".to_owned(),
        };
        assert_eq!(unless_damaged::<Proof>(Err(damaged)).unwrap(), None);
        assert!(unless_damaged::<Proof>(Err(StorageError::NoRegion.into())).is_err());
        let whole = proof(r#"{"passed":true,"backup":"base_1"}"#);
        assert_eq!(unless_damaged(Ok(whole.clone())).unwrap(), whole);
    }
}
