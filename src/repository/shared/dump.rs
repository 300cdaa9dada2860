//! What the nodes know of dumps beside the sets themselves: `dump-proofs/{started_at}-{set}.json`, `dumps/begun.json` and
//! `dumps/deleting.json`.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::proof::unless_damaged;
use super::{Shared, SharedError, finished_at};

const PROOFS: &str = "dump-proofs/";
const BEGUN: &str = "dumps/begun.json";
const DELETING: &str = "dumps/deleting.json";
/// Small objects read at once.
const AT_ONCE: usize = 8;

/// A dump test that judged a set; the object's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpProof {
    v: u32,
    pub started_at: Timestamp,
    pub elapsed_secs: f64,
    /// Host name of the node that tested.
    pub node: String,
    /// Where the set is, as `s3://bucket/prefix`.
    pub repository: String,
    /// `None` where the set's manifest does not tell.
    pub system_identifier: Option<u64>,
    pub set: String,
    pub passed: bool,
    /// Why it did not pass.
    pub reason: Option<String>,
}

/// Proofs that were read before, by their keys: none ever changes.
#[derive(Debug, Default)]
pub struct ReadDumpProofs(BTreeMap<String, DumpProof>);

impl DumpProof {
    pub fn new(
        node: &str,
        repository: &str,
        (started_at, elapsed_secs): (Timestamp, f64),
        (set, system_identifier): (&str, Option<u64>),
        failure: Option<&str>,
    ) -> Self {
        Self {
            v: 1,
            started_at,
            elapsed_secs,
            node: node.to_owned(),
            repository: repository.to_owned(),
            system_identifier,
            set: set.to_owned(),
            passed: failure.is_none(),
            reason: failure.map(str::to_owned),
        }
    }

    pub fn finished_at(&self) -> Timestamp {
        finished_at(self.started_at, self.elapsed_secs)
    }

    fn path(&self) -> String {
        let at = self.started_at.strftime("%Y%m%dT%H%M%S%.6fZ");
        format!("{PROOFS}{at}-{}.json", self.set)
    }

    /// Whether the proof at `key` is of `set`.
    fn is_named(key: &str, set: &str) -> bool {
        let named = key
            .strip_suffix(".json")
            .and_then(|it| it.strip_suffix(set));
        named.is_some_and(|rest| rest.ends_with("Z-"))
    }
}

/// The last dump of every database that was begun, whatever became of it; the object's JSON.
///
/// Written before anything else of the dump: a set of this name that is not there was never finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunDump {
    v: u32,
    /// Where it went, as `s3://bucket/prefix`.
    pub repository: String,
    pub set: String,
    /// Host name of the node.
    pub node: String,
    pub at: Timestamp,
}

impl BegunDump {
    pub fn new(repository: &str, set: &str, node: &str, at: Timestamp) -> Self {
        Self {
            v: 1,
            repository: repository.to_owned(),
            set: set.to_owned(),
            node: node.to_owned(),
            at,
        }
    }
}

/// Sets whose deletion was begun and may not have come to its end; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletingDumps {
    v: u32,
    /// Where they are, as `s3://bucket/prefix`.
    pub repository: String,
    pub sets: BTreeSet<String>,
    /// Host name of the node.
    pub by: String,
    pub at: Timestamp,
}

impl DeletingDumps {
    pub fn new(repository: &str, sets: BTreeSet<String>, by: &str, at: Timestamp) -> Self {
        Self {
            v: 1,
            repository: repository.to_owned(),
            sets,
            by: by.to_owned(),
            at,
        }
    }
}

impl Shared {
    /// Keeps `proof` beside those that are there, and lets go of the oldest above 500.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_dump_proof(&self, proof: &DumpProof) -> Result<(), SharedError> {
        self.keep_newest(PROOFS, &proof.path(), proof).await
    }

    /// Every proof of one of `sets` in `repository`, oldest first, without the damaged ones.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn dump_proofs(
        &self,
        repository: &str,
        sets: &[&str],
    ) -> Result<Vec<DumpProof>, SharedError> {
        let mut read = ReadDumpProofs::default();
        self.dump_proofs_since(repository, sets, &mut read).await
    }

    /// The same; only those are fetched that are not in `read`.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn dump_proofs_since(
        &self,
        repository: &str,
        sets: &[&str],
        read: &mut ReadDumpProofs,
    ) -> Result<Vec<DumpProof>, SharedError> {
        let mut keys = self.dump_proof_keys().await?;
        read.0.retain(|key, _| keys.contains(key));
        keys.retain(|key| sets.iter().any(|set| DumpProof::is_named(key, set)));
        let unread = keys.iter().filter(|key| !read.0.contains_key(*key));
        let reads = unread.cloned().collect::<Vec<_>>().into_iter();
        let reads = reads.map(|key| async move {
            let proof = unless_damaged(self.read_json::<DumpProof>(&key).await)?;
            Ok::<_, SharedError>(proof.map(|proof| (key, proof)))
        });
        // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
        let fetched: Vec<Option<(String, DumpProof)>> = stream::iter(reads.map(Box::pin))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        read.0.extend(fetched.into_iter().flatten());
        let proofs = keys.iter().filter_map(|key| read.0.get(key));
        let own = proofs.filter(|proof| proof.repository == repository);
        Ok(own.cloned().collect())
    }

    /// The last dump of every database that was begun in `repository`.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or the object cannot be read.
    pub async fn begun_dump(&self, repository: &str) -> Result<Option<BegunDump>, SharedError> {
        let begun: Option<BegunDump> = self.read_json(&self.key(BEGUN)).await?;
        Ok(begun.filter(|begun| begun.repository == repository))
    }

    /// Keeps `begun` in place of what was there; the caller holds the lock for it.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_begun_dump(&self, begun: &BegunDump) -> Result<(), SharedError> {
        let content = serde_json::to_vec(begun).expect("plain values");
        Ok(self.bucket.put(&self.key(BEGUN), content).await?)
    }

    /// The sets in `repository` whose deletion was begun.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or the object cannot be read.
    pub async fn deleting_dumps(&self, repository: &str) -> Result<BTreeSet<String>, SharedError> {
        let deleting: Option<DeletingDumps> = self.read_json(&self.key(DELETING)).await?;
        let deleting = deleting.filter(|deleting| deleting.repository == repository);
        Ok(deleting.map(|deleting| deleting.sets).unwrap_or_default())
    }

    /// Keeps `deleting` in place of what was there; the caller holds the lock for it.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn keep_deleting_dumps(&self, deleting: &DeletingDumps) -> Result<(), SharedError> {
        let content = serde_json::to_vec(deleting).expect("plain values");
        Ok(self.bucket.put(&self.key(DELETING), content).await?)
    }

    /// Oldest first: they begin with their time.
    async fn dump_proof_keys(&self) -> Result<Vec<String>, SharedError> {
        let listed = self.bucket.list(&self.key(PROOFS)).await?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    /// `None` where there is no object `key`.
    async fn read_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SharedError> {
        let Some((content, _)) = self.bucket.get_tagged(key).await? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&content);
        read.map(Some).map_err(|error| self.damaged(key, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_where_and_as_other_versions_read_them() {
        let at: Timestamp = "2026-11-21T05:00:00.123456Z".parse().unwrap();
        let set = "20261121T020000.000Z-db2";
        let failed = Some("cut");
        let proof = DumpProof::new("db2", "s3://b/main", (at, 12.5), (set, Some(7)), failed);
        let path = "dump-proofs/20261121T050000.123456Z-20261121T020000.000Z-db2.json";
        assert_eq!(proof.path(), path);
        let json = r#"{"v":1,"started_at":"2026-11-21T05:00:00.123456Z","elapsed_secs":12.5,"node":"db2","repository":"s3://b/main","system_identifier":7,"set":"20261121T020000.000Z-db2","passed":false,"reason":"cut"}"#;
        assert_eq!(serde_json::to_string(&proof).unwrap(), json);
        assert_eq!(serde_json::from_str::<DumpProof>(json).unwrap(), proof);
        for (other, is_named) in [
            (set, true),
            ("1121T020000.000Z-db2", false),
            ("20261121T020000.000Z-db22", false),
        ] {
            assert_eq!(DumpProof::is_named(path, other), is_named, "{other}");
        }

        let begun = BegunDump::new("s3://b/main", set, "db2", at);
        let json = r#"{"v":1,"repository":"s3://b/main","set":"20261121T020000.000Z-db2","node":"db2","at":"2026-11-21T05:00:00.123456Z"}"#;
        assert_eq!(serde_json::to_string(&begun).unwrap(), json);
        let deleting = DeletingDumps::new("s3://b/main", [set.to_owned()].into(), "db2", at);
        let json = r#"{"v":1,"repository":"s3://b/main","sets":["20261121T020000.000Z-db2"],"by":"db2","at":"2026-11-21T05:00:00.123456Z"}"#;
        assert_eq!(serde_json::to_string(&deleting).unwrap(), json);
    }
}
