//! How long a restore will take: the one forecast of `xdb status` and `xdb restore --plan`. Pure.
//!
//! A restore takes a fixed time, and time for the bytes that are fetched, for each segment, and for the stored bytes of WAL.
//! What each costs is fitted to the newest restore tests, the fetch and what follows it apart. Where those tests do not
//! tell two explanations apart (all of one size, or only one), each explanation is scaled, and the forecast is a range.

use jiff::Timestamp;

use super::Proof;
use super::catalog::{Backup, Catalog, plan_recovery};

/// What a restore has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestoreWork {
    /// As stored, of the backup and all that it builds on.
    pub fetch_bytes: u64,
    pub wal_segments: u64,
    /// As stored.
    pub wal_bytes: u64,
}

impl RestoreWork {
    /// A restore of `backup` to the end of the archive; `None` for one that cannot be restored.
    pub(crate) fn of(catalog: &Catalog, backup: &Backup) -> Option<Self> {
        let sentinel = backup.sentinel.as_ref()?;
        let (start, finish) = (sentinel.start_lsn, sentinel.finish_lsn);
        let path = plan_recovery(&catalog.wal, backup.timeline, start, finish).ok()?;
        let chain = catalog.chain(backup).ok()?;
        let sentinels = chain.iter().filter_map(|member| member.sentinel.as_ref());
        Some(Self {
            fetch_bytes: sentinels.map(|sentinel| sentinel.compressed_size).sum(),
            wal_segments: path.segments,
            wal_bytes: path.stored_bytes,
        })
    }
}

/// How long it takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RestoreTime {
    pub secs: f64,
    pub low_secs: f64,
    pub high_secs: f64,
    /// The tests that it rests on, in words.
    pub based_on: String,
    /// They were held back by a network or disk limit.
    pub throttled: bool,
}

/// The newest tests are the ones that are most like a restore of now.
const NEWEST: usize = 20;
/// An explanation counts where it misses the tests by no more than the best one does and this share of their times. Its own
/// prediction may be off by as much as it misses them.
const TOLERATED: f64 = 0.08;

/// One restore test, as its proof tells.
struct Measured {
    started_at: Timestamp,
    node: String,
    throttled: bool,
    work: RestoreWork,
    fetch_secs: f64,
    /// From the fetch's end until the server was open and all was on the disk.
    recover_secs: f64,
}

/// Scales the newest of `proofs` to `work`.
///
/// # Errors
/// Why there is nothing to go by, as a sentence.
pub(crate) fn expect_restore(work: &RestoreWork, proofs: &[Proof]) -> Result<RestoreTime, String> {
    let mut tests: Vec<Measured> = proofs.iter().filter_map(measured).collect();
    if tests.is_empty() {
        // One that stopped before the end of the archive says nothing of a restore to that end.
        let whole = |proof: &Proof| proof.passed && proof.report.fields.until.is_none();
        return Err(if proofs.iter().any(whole) {
            "no restore test has measured how fast it was".to_owned()
        } else {
            "no restore test has passed yet".to_owned()
        });
    }
    tests.sort_by_key(|test| std::cmp::Reverse(test.started_at));
    // A restore for good is not held back.
    let throttled = tests.iter().all(|test| test.throttled);
    tests.retain(|test| throttled || !test.throttled);
    tests.truncate(NEWEST);
    let fetch = fit(
        &tests
            .iter()
            .map(|test| (vec![1.0, float(test.work.fetch_bytes)], test.fetch_secs))
            .collect::<Vec<_>>(),
        &[1.0, float(work.fetch_bytes)],
    );
    let replay = |work: &RestoreWork| vec![1.0, float(work.wal_segments), float(work.wal_bytes)];
    let recover = fit(
        &tests
            .iter()
            .map(|test| (replay(&test.work), test.recover_secs))
            .collect::<Vec<_>>(),
        &replay(work),
    );
    Ok(RestoreTime {
        secs: round(fetch.best + recover.best),
        low_secs: round(fetch.low + recover.low),
        high_secs: round(fetch.high + recover.high),
        based_on: named(&tests),
        throttled,
    })
}

fn named(tests: &[Measured]) -> String {
    let at = |test: &Measured| test.started_at.strftime("%F %T UTC").to_string();
    match tests {
        [] => String::new(),
        [only] => format!("the restore test of {} on {}", at(only), only.node),
        [newest, .., oldest] => format!(
            "{} restore tests from {} to {}",
            tests.len(),
            at(oldest),
            at(newest)
        ),
    }
}

/// `None` for a test that measured no RTO, or that an older xdb made.
fn measured(proof: &Proof) -> Option<Measured> {
    let report = &proof.report.fields;
    let rto = report.rto_secs?;
    let mut steps = report.steps.iter().flatten();
    let fetch = steps.find(|step| step.name == "fetch")?;
    let fetch_secs = fetch.secs?;
    let work = RestoreWork {
        fetch_bytes: fetch.bytes?,
        wal_segments: report.wal_segments?,
        wal_bytes: report.wal_stored_bytes?,
    };
    Some(Measured {
        started_at: proof.started_at,
        node: proof.node.clone(),
        throttled: report.conditions.as_ref().is_some_and(|at| at.throttled),
        work,
        fetch_secs,
        recover_secs: (rto - fetch_secs).max(0.0),
    })
}

/// What a fit makes of a new case.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fitted {
    best: f64,
    low: f64,
    high: f64,
}

/// One explanation of the times: what it predicts, and by which share it is likely to miss that.
#[derive(Debug, Clone, Copy)]
struct Explanation {
    predicted: f64,
    /// `None` where it has as many costs as there are cases, and so misses none of them.
    missed: Option<f64>,
}

/// Explains the times of `cases` by each selection of their quantities, with no cost below zero, and predicts that of `wanted`.
fn fit(cases: &[(Vec<f64>, f64)], wanted: &[f64]) -> Fitted {
    let explain = |selection: u32| {
        let chosen = (0..wanted.len()).filter(|index| selection & (1 << index) != 0);
        let chosen: Vec<usize> = chosen.collect();
        let costs = least_squares(cases, &chosen)?;
        let sum = |quantities: &[f64]| -> f64 {
            let terms = chosen.iter().zip(&costs);
            terms.map(|(index, cost)| quantities[*index] * cost).sum()
        };
        // Each cost that was fitted hides some of what it misses.
        let free = cases
            .len()
            .checked_sub(chosen.len())
            .filter(|free| *free > 0);
        let hidden = free.map(|free| float(cases.len() as u64) / float(free as u64));
        Some(Explanation {
            predicted: sum(wanted),
            missed: hidden.map(|hidden| missed(cases, sum) * hidden),
        })
    };
    let explained: Vec<Explanation> = (1..(1 << wanted.len())).filter_map(explain).collect();
    let misses = explained.iter().filter_map(|one| one.missed);
    let least = misses.fold(f64::INFINITY, f64::min);
    let mut counts = explained;
    counts.retain(|one| one.missed.is_none_or(|missed| missed <= least + TOLERATED));
    // Of what fits about as well as the best, the middle: none of it is known to be wrong.
    counts.sort_by(|one, other| one.predicted.total_cmp(&other.predicted));
    let predicted: Vec<f64> = counts.iter().map(|one| one.predicted).collect();
    // What is missed is a share of what was measured.
    let share = |one: &Explanation| one.missed.unwrap_or(0.0).min(0.9);
    let low = counts.iter().map(|one| one.predicted / (1.0 + share(one)));
    let high = counts.iter().map(|one| one.predicted / (1.0 - share(one)));
    Fitted {
        best: middle(&predicted),
        low: low.reduce(f64::min).unwrap_or_default(),
        high: high.reduce(f64::max).unwrap_or_default(),
    }
}

/// 0 of none: nothing took any time.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.is_empty() {
        0.0
    } else if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[half - 1], sorted[half])
    } else {
        sorted[half]
    }
}

/// The mean share by which the explanation misses the measured times.
fn missed(cases: &[(Vec<f64>, f64)], explained: impl Fn(&[f64]) -> f64) -> f64 {
    let shares = cases.iter().map(|(quantities, secs)| {
        let secs = secs.max(SHORTEST);
        ((explained(quantities) - secs) / secs).abs()
    });
    shares.sum::<f64>() / float(cases.len() as u64)
}

/// What is shorter counts as long as this: it is mostly noise.
const SHORTEST: f64 = 0.05;

/// Costs of the `chosen` quantities, each case weighted by its own time; `None` where they are not told apart, or one is below zero.
fn least_squares(cases: &[(Vec<f64>, f64)], chosen: &[usize]) -> Option<Vec<f64>> {
    let count = chosen.len();
    if cases.len() < count {
        return None;
    }
    // The quantities differ by nine orders of magnitude.
    let scales: Vec<f64> = chosen
        .iter()
        .map(|index| cases.iter().map(|(all, _)| all[*index]).fold(0.0, f64::max))
        .collect();
    if scales.iter().any(|scale| *scale <= 0.0) {
        return None;
    }
    let mut matrix = vec![vec![0.0; count + 1]; count];
    for (quantities, secs) in cases {
        let secs = secs.max(SHORTEST);
        let row: Vec<f64> = chosen
            .iter()
            .zip(&scales)
            .map(|(index, scale)| quantities[*index] / scale / secs)
            .collect();
        for (one, line) in matrix.iter_mut().enumerate() {
            for (other, cell) in line.iter_mut().enumerate() {
                *cell += row[one] * row.get(other).copied().unwrap_or(1.0);
            }
        }
    }
    let solved = solve(matrix)?;
    let costs: Vec<f64> = solved
        .iter()
        .zip(&scales)
        .map(|(cost, scale)| cost / scale)
        .collect();
    costs.iter().all(|cost| *cost >= 0.0).then_some(costs)
}

/// Gauss' elimination of a system with its right side as the last column; `None` where it has no one solution.
fn solve(mut matrix: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let count = matrix.len();
    let largest = matrix
        .iter()
        .flatten()
        .fold(0.0_f64, |most, cell| most.max(cell.abs()));
    for column in 0..count {
        let pivot = (column..count).max_by(|one, other| {
            matrix[*one][column]
                .abs()
                .total_cmp(&matrix[*other][column].abs())
        })?;
        matrix.swap(column, pivot);
        // Cases of nearly one size do not tell two costs apart.
        if matrix[column][column].abs() <= largest * 1e-4 {
            return None;
        }
        for row in 0..count {
            if row != column {
                let factor = matrix[row][column] / matrix[column][column];
                let (pivot_row, this) = (matrix[column].clone(), &mut matrix[row]);
                for (cell, of_pivot) in this.iter_mut().zip(pivot_row) {
                    *cell -= factor * of_pivot;
                }
            }
        }
    }
    Some(
        (0..count)
            .map(|row| matrix[row][count] / matrix[row][row])
            .collect(),
    )
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn float(number: u64) -> f64 {
    number as f64
}

fn round(secs: f64) -> f64 {
    (secs * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TestConditions;

    const MIB: u64 = 1 << 20;

    fn work(fetch_mib: u64, segments: u64, wal_mib: u64) -> RestoreWork {
        RestoreWork {
            fetch_bytes: fetch_mib * MIB,
            wal_segments: segments,
            wal_bytes: wal_mib * MIB,
        }
    }

    fn test(day: i8, work: RestoreWork, fetch_secs: f64, rto_secs: f64) -> Proof {
        let report = json!({
            "backup": "base_1", "passed": true, "rto_secs": rto_secs, "conditions": { "throttled": false },
            "wal_segments": work.wal_segments, "wal_stored_bytes": work.wal_bytes,
            "steps": [{ "name": "fetch", "secs": fetch_secs, "bytes": work.fetch_bytes }],
        });
        let at = format!("2026-11-{day:02}T04:00:00Z").parse().unwrap();
        let report = report.try_into().unwrap();
        Proof::new("db2", "s3://b/main", (at, rto_secs), report).unwrap()
    }

    /// A machine that needs a second, and a second for each 50 MiB, 20 segments and 100 MiB of WAL.
    fn took(day: i8, work: RestoreWork) -> Proof {
        let mib = |bytes: u64| float(bytes) / float(MIB);
        let fetch = 0.3 + mib(work.fetch_bytes) / 50.0;
        let recover = 0.7 + float(work.wal_segments) / 20.0 + mib(work.wal_bytes) / 100.0;
        test(day, work, fetch, fetch + recover)
    }

    #[test]
    fn several_tests_of_different_sizes_give_one_number() {
        let tests = [
            took(1, work(10, 4, 20)),
            took(2, work(500, 10, 100)),
            took(3, work(520, 200, 300)),
            took(4, work(100, 40, 400)),
        ];
        for (now, secs) in [
            (work(10, 4, 20), 1.6),
            (work(510, 1000, 200), 63.2),
            (work(1000, 4, 3000), 51.2),
        ] {
            let time = expect_restore(&now, &tests).unwrap();
            assert!((time.secs / secs - 1.0).abs() < 0.1, "{now:?}: {time:?}");
            assert!(time.low_secs <= secs + 0.1 && secs <= time.high_secs + 0.1);
            assert!(time.based_on.starts_with("4 restore tests"), "{time:?}");
        }
    }

    #[test]
    fn one_test_gives_a_range_from_all_of_it_fixed_to_all_of_it_scaled() {
        let time = expect_restore(&work(100, 40, 40), &[test(1, work(10, 4, 4), 1.0, 3.0)]);
        let time = time.unwrap();
        assert_eq!((time.low_secs, time.high_secs), (3.0, 30.0), "{time:?}");
        assert!(time.secs > 3.0 && time.secs < 30.0);
        // As much as was tested takes as long.
        let same = expect_restore(&work(10, 4, 4), &[test(1, work(10, 4, 4), 1.0, 3.0)]).unwrap();
        assert_eq!((same.low_secs, same.secs, same.high_secs), (3.0, 3.0, 3.0));
    }

    #[test]
    fn tests_that_contradict_each_other_give_a_range() {
        let steady = |day, secs| test(day, work(10, 4, 4), 1.0, secs);
        let tests = [
            steady(1, 3.0),
            steady(2, 6.0),
            steady(3, 3.0),
            steady(4, 6.0),
        ];
        let time = expect_restore(&work(10, 4, 4), &tests).unwrap();
        assert!(time.low_secs < 3.5 && time.high_secs > 5.0, "{time:?}");
        // Two tests are explained by two costs without a miss, and by one nearly as well.
        let two = [steady(1, 3.0), test(2, work(10, 6, 6), 1.0, 3.1)];
        let time = expect_restore(&work(10, 60, 60), &two).unwrap();
        assert!(time.high_secs > time.low_secs * 1.4, "{time:?}");
    }

    #[test]
    fn what_cannot_be_scaled_is_no_forecast() {
        let now = work(10, 4, 4);
        let mut failed = test(1, now, 1.0, 3.0);
        failed.passed = false;
        failed.report.fields.rto_secs = None;
        let mut old = test(1, now, 1.0, 3.0);
        old.report.fields.wal_segments = None;
        let mut stopped = old.clone();
        stopped.report.fields.until = Some("0/3000028".to_owned());
        for (tests, words) in [
            (vec![], "no restore test has passed yet"),
            (vec![stopped], "no restore test has passed yet"),
            (vec![failed], "no restore test has passed yet"),
            (vec![old], "no restore test has measured how fast it was"),
        ] {
            let reason = expect_restore(&now, &tests).unwrap_err();
            assert_eq!(reason, words);
        }
        // One that was held back serves where there is no other.
        let mut slow = test(2, now, 9.0, 30.0);
        slow.report.fields.conditions = Some(TestConditions { throttled: true });
        let both = [test(1, now, 1.0, 3.0), slow.clone()];
        assert_eq!(expect_restore(&now, &both).unwrap().high_secs, 3.0);
        let slow = expect_restore(&now, &[slow]).unwrap();
        assert_eq!((slow.secs, slow.throttled), (30.0, true));
    }
}
