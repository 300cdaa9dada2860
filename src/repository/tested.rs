//! What restore tests found of each backup, read from the shared proofs into the catalog.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::catalog::{Backup, Catalog, Tested, Tests};
use super::{Proof, Repository, RepositoryError, Shared, SharedError};
use crate::log;
use crate::model::{TestFields, WalSegment};

/// Small objects read at once.
const AT_ONCE: usize = 8;
/// Verifications that judge the archive's listing, and those that follow from a gap in it.
const MISSING_WAL: [&str; 2] = ["wal", "archive_end"];
const AFTER_A_GAP: [&str; 3] = ["end_reached", "timeline", "rpo"];

impl Repository {
    /// Puts into `catalog`, which was read from here, the newest restore test that judged each backup.
    ///
    /// That is one listing, and one read for each proof that the catalog does not know yet.
    ///
    /// # Errors
    /// When the bucket cannot be read. A damaged proof is skipped with a warning.
    pub async fn learn_tests(&self, catalog: &mut Catalog) -> Result<(), SharedError> {
        let shared = &self.shared;
        let keys = shared.proof_keys().await?;
        let repository = self.location.to_string();
        let reads = catalog.backups.iter().map(|backup| {
            let keys = keys
                .iter()
                .rev()
                .filter(|key| Proof::is_named(key, &backup.name));
            let keys: Vec<&String> = keys.collect();
            newest_test(shared, &repository, backup, keys)
        });
        // Boxed: the compiler cannot yet see that a stream of these borrowing futures is Send.
        let reads: Vec<_> = reads.map(Box::pin).collect();
        let read: Vec<Tests> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        for (backup, tests) in catalog.backups.iter_mut().zip(read) {
            backup.tests = tests;
        }
        Ok(())
    }

    /// As [`Self::learn_tests`], and counts WAL that the tests found damaged as missing.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn read_tests_and_damage(
        &self,
        catalog: &mut Catalog,
    ) -> Result<(), RepositoryError> {
        self.learn_tests(catalog).await?;
        self.read_damage(catalog).await
    }

    /// Counts a segment that a restore test found damaged as missing, until it is stored again.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn read_damage(&self, catalog: &mut Catalog) -> Result<(), RepositoryError> {
        let tests = catalog.backups.iter();
        let tests = tests.filter_map(|backup| backup.tests.newest.as_ref());
        let damaged: BTreeMap<String, (Timestamp, String)> = tests
            .filter(|test| !test.passed)
            .filter_map(|test| {
                let at = test.at.strftime("%F %T UTC");
                let by = format!("by the restore test of {at} on {}", test.node);
                Some((test.damaged_wal.clone()?, (test.at, by)))
            })
            .collect();
        for (name, (at, by)) in damaged {
            let Ok(segment) = WalSegment::parse(&name, catalog.wal.size) else {
                continue;
            };
            let stored = self.stored_as(&name).await?;
            let stored_at = stored.iter().map(|object| object.last_modified).max();
            if let Some(stored_at) = stored_at.filter(|stored_at| *stored_at <= at) {
                catalog.wal.set_damaged(segment, stored_at, by);
            }
        }
        Ok(())
    }
}

/// Looks through `keys`, newest first, for the first that counts; what is known of them already is not read again.
///
/// One that failed for what is not the backup takes back no failure before it.
async fn newest_test(
    shared: &Shared,
    repository: &str,
    backup: &Backup,
    keys: Vec<&String>,
) -> Result<Tests, SharedError> {
    let known = &backup.tests;
    let mut passed_over = Vec::new();
    let mut sparing: Option<(Tested, String)> = None;
    for key in keys.into_iter().filter(|_| backup.sentinel.is_some()) {
        // A test that ended late has an older key than one that began after it, so each is remembered.
        if known.passed_over.contains(key) {
            passed_over.push(key.clone());
            continue;
        }
        let is_known = known.key.as_ref() == Some(key);
        let tested = match is_known {
            true => known.newest.clone(),
            false => read_test(shared, repository, backup, key).await?,
        };
        match (tested, &sparing) {
            (Some(tested), None) if tested.spares_backup => sparing = Some((tested, key.clone())),
            (Some(tested), Some((_, newer))) if tested.disproves() => {
                passed_over.push(newer.clone());
                return Ok(tests(tested, key.clone(), passed_over));
            }
            (Some(tested), None) => return Ok(tests(tested, key.clone(), passed_over)),
            (Some(tested), Some(_)) if tested.passed => break,
            (Some(_) | None, _) => passed_over.push(key.clone()),
        }
        if is_known {
            break;
        }
    }
    Ok(match sparing {
        Some((tested, key)) => tests(tested, key, passed_over),
        None => Tests {
            passed_over,
            ..Tests::default()
        },
    })
}

fn tests(newest: Tested, key: String, passed_over: Vec<String>) -> Tests {
    Tests {
        newest: Some(newest),
        key: Some(key),
        passed_over,
    }
}

/// `None` where the proof at `key` does not count.
async fn read_test(
    shared: &Shared,
    repository: &str,
    backup: &Backup,
    key: &str,
) -> Result<Option<Tested>, SharedError> {
    let proof = match shared.proof_at(key).await {
        Err(error @ SharedError::Content { .. }) => {
            let reason = log::chain(&error);
            tracing::warn!("a restore test's proof does not count: {reason}");
            None
        }
        proof => proof?,
    };
    let proof = proof.filter(|proof| counts(proof, repository, backup));
    Ok(proof.map(|proof| judge(&proof)))
}

/// Whether `proof` judged this very backup: of the same cluster, in the same repository, and all of it.
fn counts(proof: &Proof, repository: &str, backup: &Backup) -> bool {
    let own = backup
        .sentinel
        .as_ref()
        .and_then(|sentinel| sentinel.system_identifier);
    let same_cluster = own.is_none() || proof.system_identifier == own;
    same_cluster
        && proof.backup == backup.name
        && proof.repository == repository
        && (proof.proves() || !proof.passed && !proof.is_incomplete())
}

fn judge(proof: &Proof) -> Tested {
    let report = &proof.report.fields;
    let reason = report.reason.as_ref();
    let reason = reason.and_then(|reason| reason.lines().next());
    Tested {
        at: proof.started_at,
        node: proof.node.clone(),
        passed: proof.passed,
        reason: reason.map(str::to_owned),
        spares_backup: !proof.passed && spares_backup(report),
        damaged_wal: report.damaged_wal.clone(),
    }
}

/// Whether all that the test found bad was WAL that was missing then, or the answer to a question of the caller (`--sql`).
fn spares_backup(report: &TestFields) -> bool {
    let all = report.verifications.iter().flatten();
    let bad = all.filter(|one| one.verdict == "critical");
    let bad: Vec<&str> = bad.map(|one| one.name.as_str()).collect();
    let is_of_gap = |name: &&str| MISSING_WAL.contains(name) || AFTER_A_GAP.contains(name);
    let is_question = |name: &&str| name.starts_with("sql: ");
    let reason = report.reason.as_deref().unwrap_or_default();
    // What ended the test comes before what was seen on the way.
    let ended_well = bad
        .first()
        .is_some_and(|first| reason.starts_with(&format!("{first}: ")));
    let has_gap = bad.iter().any(|name| MISSING_WAL.contains(name));
    ended_well
        && bad
            .iter()
            .all(|name| is_question(name) || has_gap && is_of_gap(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TestReport;

    fn proof(repository: &str, report: serde_json::Value) -> Proof {
        let report = report.try_into().unwrap();
        Proof::new("db2", repository, (Timestamp::UNIX_EPOCH, 1.0), report).unwrap()
    }

    fn backup(identifier: Option<u64>) -> Backup {
        let identifier =
            identifier.map_or_else(String::new, |id| format!(r#","SystemIdentifier":{id}"#));
        Backup {
            name: "base_1".to_owned(),
            ..Backup::sample(1, 0, &identifier)
        }
    }

    #[test]
    fn only_a_test_of_this_cluster_in_this_repository_counts() {
        let report = |identifier, extra: &str| {
            let text = format!(r#"{{"backup":"base_1","system_identifier":{identifier}{extra}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        for (what, repository, report, own, expected) in [
            ("a failure", "s3://b/p", report("7", ""), Some(7), true),
            (
                "a pass",
                "s3://b/p",
                report("7", r#","passed":true,"level":"full""#),
                Some(7),
                true,
            ),
            (
                "it only started",
                "s3://b/p",
                report("7", r#","passed":true,"level":"start""#),
                Some(7),
                false,
            ),
            (
                "not all was looked at",
                "s3://b/p",
                report("7", r#","passed":false,"conclusion":"incomplete""#),
                Some(7),
                false,
            ),
            (
                "another cluster",
                "s3://b/p",
                report("8", ""),
                Some(7),
                false,
            ),
            (
                "another repository",
                "s3://b/q",
                report("7", ""),
                Some(7),
                false,
            ),
            (
                "of an unknown cluster",
                "s3://b/p",
                report("null", ""),
                Some(7),
                false,
            ),
            (
                "the sentinel does not say",
                "s3://b/p",
                report("7", ""),
                None,
                true,
            ),
        ] {
            let found = counts(&proof(repository, report), "s3://b/p", &backup(own));
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn missing_wal_and_a_callers_question_do_not_speak_against_the_backup() {
        let report = |reason: &str, bad: &[&str]| {
            let bad = bad
                .iter()
                .map(|name| json!({"name": name, "verdict": "critical"}));
            let good = [json!({"name": "files", "verdict": "ok"})];
            let verifications: Vec<_> = good.into_iter().chain(bad).collect();
            TestReport::try_from(
                json!({"backup": "base_1", "reason": reason, "verifications": verifications}),
            )
            .unwrap()
        };
        for (what, report, expected) in [
            (
                "a gap",
                report("wal: missing", &["wal", "end_reached"]),
                true,
            ),
            (
                "no end",
                report("archive_end: missing", &["archive_end", "rpo"]),
                true,
            ),
            (
                "damaged WAL",
                report("end_reached: early", &["end_reached"]),
                false,
            ),
            (
                "a gap and a bad table",
                report("wal: missing", &["wal", "tables"]),
                false,
            ),
            (
                "a gap, and it broke",
                report("bad page (wal: missing)", &["wal"]),
                false,
            ),
            (
                "a question",
                report("sql: SELECT false: false", &["sql: SELECT false"]),
                true,
            ),
            ("no verification", report("cut", &[]), false),
        ] {
            assert_eq!(spares_backup(&report.fields), expected, "{what}");
        }
    }
}
