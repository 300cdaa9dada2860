//! What dump tests found, on whatever node, read into the list of sets and kept beside the proofs of restore tests.

use jiff::Timestamp;

use super::listed::{Listed, SetTest, Status};
use super::{DumpError, Dumps};
use crate::repository::DumpProof;

/// Puts the newest test of each set into `listed`: one listing, and one read a proof.
///
/// # Errors
/// When the bucket cannot be read. A damaged proof is skipped with a warning.
pub(super) async fn learn_tests(dumps: &Dumps, listed: &mut [Listed]) -> Result<(), DumpError> {
    if listed.is_empty() {
        return Ok(());
    }
    let sets: Vec<&str> = listed.iter().map(|set| set.set.as_str()).collect();
    let repository = dumps.location.to_string();
    let proofs = dumps.shared.dump_proofs(&repository, &sets).await?;
    for set in listed {
        judge(set, &proofs);
    }
    Ok(())
}

/// The newest test among `proofs` of `set`, and of its own cluster where that is known.
fn newest_test<'a>(proofs: &'a [DumpProof], set: &str, own: Option<u64>) -> Option<&'a DumpProof> {
    let is_of =
        |proof: &&DumpProof| proof.set == set && (own.is_none() || proof.system_identifier == own);
    let of_set = proofs.iter().filter(is_of);
    of_set.max_by_key(|it| it.finished_at())
}

/// Whether the newest test of `set`, of the cluster `system_identifier`, failed.
pub(super) fn is_disproved(proofs: &[DumpProof], set: &str, system_identifier: u64) -> bool {
    let newest = newest_test(proofs, set, Some(system_identifier));
    newest.is_some_and(|test| !test.passed)
}

/// Judges `set` by the newest of `proofs`.
fn judge(set: &mut Listed, proofs: &[DumpProof]) {
    let own = set
        .manifest
        .as_ref()
        .map(|manifest| manifest.system_identifier);
    let Some(newest) = newest_test(proofs, &set.set, own) else {
        return;
    };
    if !newest.passed && set.status == Status::Complete {
        let at = newest.finished_at().strftime("%F %T UTC");
        let (node, why) = (&newest.node, newest.reason.as_deref().unwrap_or_default());
        set.status = Status::Disproved;
        set.reason = Some(format!("its dump test of {at} on {node} failed: {why}"));
    }
    set.tested = Some(SetTest {
        at: newest.finished_at(),
        node: newest.node.clone(),
        passed: newest.passed,
        reason: newest.reason.clone(),
    });
}

/// Keeps what a dump test found of `set`, for every node; `failure` is why it did not pass.
///
/// # Errors
/// When the bucket cannot be written.
pub(crate) async fn keep_proof(
    dumps: &Dumps,
    set: (&str, Option<u64>),
    when: (Timestamp, f64),
    failure: Option<&str>,
) -> Result<(), DumpError> {
    let repository = dumps.location.to_string();
    let proof = DumpProof::new(&dumps.node.hostname, &repository, when, set, failure);
    Ok(dumps.shared.keep_dump_proof(&proof).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "20260513T101429.123Z-db2";

    fn proof(
        set: &str,
        at: i64,
        system_identifier: Option<u64>,
        failure: Option<&str>,
    ) -> DumpProof {
        let when = (Timestamp::from_second(at).unwrap(), 1.0);
        DumpProof::new(
            "db2",
            "s3://b/main",
            when,
            (set, system_identifier),
            failure,
        )
    }

    #[test]
    fn the_newest_test_of_this_very_set_judges_it() {
        let (own, other) = (None, "20260514T101429.123Z-db2");
        for (what, status, proofs, expected, passed) in [
            (
                "never tested",
                Status::Complete,
                vec![],
                Status::Complete,
                None,
            ),
            (
                "failed",
                Status::Complete,
                vec![proof(SET, 1, own, None), proof(SET, 2, own, Some("cut"))],
                Status::Disproved,
                Some(false),
            ),
            (
                "passed again",
                Status::Complete,
                vec![proof(SET, 1, own, Some("cut")), proof(SET, 2, own, None)],
                Status::Complete,
                Some(true),
            ),
            (
                "another set failed",
                Status::Complete,
                vec![proof(other, 1, own, Some("cut"))],
                Status::Complete,
                None,
            ),
            (
                "damage that the listing shows comes first",
                Status::Damaged,
                vec![proof(SET, 1, own, Some("cut"))],
                Status::Damaged,
                Some(false),
            ),
        ] {
            let mut listed = Listed::sample(SET, status);
            judge(&mut listed, &proofs);
            assert_eq!(listed.status, expected, "{what}");
            assert_eq!(listed.tested.map(|test| test.passed), passed, "{what}");
        }
    }

    #[test]
    fn a_set_is_disproved_by_its_own_newest_test_alone() {
        let other = "20260514T101429.123Z-db2";
        let failed = |set, at, of| proof(set, at, Some(of), Some("cut"));
        for (what, proofs, expected) in [
            ("never tested", vec![], false),
            ("failed", vec![failed(SET, 1, 7)], true),
            (
                "passed again",
                vec![failed(SET, 1, 7), proof(SET, 2, Some(7), None)],
                false,
            ),
            (
                "failed again",
                vec![proof(SET, 1, Some(7), None), failed(SET, 2, 7)],
                true,
            ),
            ("another set", vec![failed(other, 1, 7)], false),
            ("another cluster's", vec![failed(SET, 1, 8)], false),
        ] {
            assert_eq!(is_disproved(&proofs, SET, 7), expected, "{what}");
        }
    }
}
