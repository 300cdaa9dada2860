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

/// Judges `set` by the newest of `proofs`, which are in the order of their begin.
fn judge(set: &mut Listed, proofs: &[DumpProof]) {
    let own = set
        .manifest
        .as_ref()
        .map(|manifest| manifest.system_identifier);
    let is_of = |proof: &&DumpProof| {
        proof.set == set.set && (own.is_none() || proof.system_identifier == own)
    };
    let Some(newest) = proofs
        .iter()
        .filter(is_of)
        .max_by_key(|it| it.finished_at())
    else {
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
}
