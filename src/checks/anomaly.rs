//! Compares the last run of a job with those before it: size and duration. Pure.

use bytesize::ByteSize;

use super::values::{Sampled, shown};
use crate::model::{JobDetail, Run};

/// As many runs of the same kind are compared with, and at least [`FEWEST`].
const COMPARED: usize = 10;
const FEWEST: usize = 5;

/// What differs by less is usual, whatever its share is.
const BYTES: f64 = 100.0 * 1024.0 * 1024.0;
const SECS: f64 = 300.0;

/// By which factor size and duration of the last good run differ from the median of those before; nothing before there are
/// enough. `runs` are newest first.
pub(super) fn factors(runs: &[Run]) -> Vec<Sampled> {
    let good: Vec<&Run> = runs.iter().filter(|run| run.succeeded).collect();
    let Some((last, before)) = good.split_first() else {
        return Vec::new();
    };
    let alike: Vec<&&Run> = before
        .iter()
        .filter(|run| is_delta(run) == is_delta(last) && run.target == last.target)
        .take(COMPARED)
        .collect();
    let median_of = |number: fn(&Run) -> Option<f64>| {
        let mut numbers: Vec<f64> = alike.iter().filter_map(|run| number(run)).collect();
        numbers.sort_by(f64::total_cmp);
        (numbers.len() >= FEWEST).then(|| numbers.get(numbers.len() / 2).copied())?
    };
    let mut values = Vec::new();
    if let (Some(bytes), Some(median)) = (bytes(last), median_of(bytes)) {
        let factor = (bytes / median.max(1.0)).max(median / bytes.max(1.0));
        let differs = (bytes - median).abs() >= BYTES;
        values.push(value(
            "size",
            if differs { factor } else { 1.0 },
            bytes,
            median,
            "B",
        ));
    }
    if let (Some(secs), Some(median)) = (secs(last), median_of(secs)) {
        // One that is faster is nothing to object to.
        let differs = secs - median >= SECS;
        let factor = if differs { secs / median.max(1.0) } else { 1.0 };
        values.push(value("duration", factor, secs, median, "s"));
    }
    values
}

fn value(object: &str, factor: f64, last: f64, median: f64, unit: &str) -> Sampled {
    Sampled {
        object: Some(object.to_owned()),
        number: Ok(factor),
        detail: Some(format!(
            "{} now, {} in the median of the runs before",
            shown(last, unit),
            shown(median, unit)
        )),
    }
}

/// wal-g's name of an incremental backup ends with the segment of the one that it builds on.
fn is_delta(run: &Run) -> bool {
    match &run.detail {
        Some(JobDetail::BaseBackup(detail)) => detail
            .backup
            .as_ref()
            .is_some_and(|name| name.contains("_D_")),
        _ => false,
    }
}

fn bytes(run: &Run) -> Option<f64> {
    let bytes = match run.detail.as_ref()? {
        JobDetail::BaseBackup(detail) => detail.compressed_bytes,
        JobDetail::Dump(detail) => detail.bytes,
        _ => None,
    };
    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
    bytes.map(|bytes| ByteSize(bytes).0 as f64)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "as bytes, so that one function takes either"
)]
fn secs(run: &Run) -> Option<f64> {
    Some(run.finished_at.duration_since(run.started_at).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::{BaseBackupDetail, Verdict};

    const GIB: u64 = 1 << 30;

    fn run(bytes: u64, secs: i64, name: &str) -> Run {
        let at = |second| Timestamp::from_second(second).unwrap();
        Run {
            job: "base-backup".to_owned(),
            target: String::new(),
            started_at: at(0),
            finished_at: at(secs),
            verdict: Verdict::Ok,
            succeeded: true,
            detail: Some(JobDetail::BaseBackup(BaseBackupDetail {
                backup: Some(name.to_owned()),
                compressed_bytes: Some(bytes),
                system_identifier: None,
            })),
        }
    }

    fn judged(last: Run, before: &[Run]) -> Vec<f64> {
        let runs: Vec<Run> = std::iter::once(last)
            .chain(before.iter().cloned())
            .collect();
        let values = factors(&runs).into_iter();
        values.map(|value| value.number.unwrap()).collect()
    }

    #[test]
    fn the_last_run_is_compared_with_the_median_of_its_kind() {
        let mut before: Vec<Run> = (0..5).map(|_| run(10 * GIB, 600, "base_1")).collect();
        for (what, bytes, secs, expected) in [
            ("as ever", 11 * GIB, 610, [1.1, 1.0]),
            ("small", 2 * GIB, 500, [5.0, 1.0]),
            ("large", 40 * GIB, 2400, [4.0, 4.0]),
        ] {
            let found = judged(run(bytes, secs, "base_2"), &before);
            let near = found
                .iter()
                .zip(expected)
                .all(|(one, other)| (one - other).abs() < 0.01);
            assert!(found.len() == 2 && near, "{what}: {found:?}");
        }
        // Failed runs and incremental backups are no measure, and four are too few.
        before[0].succeeded = false;
        assert_eq!(judged(run(GIB, 1, "base_2"), &before), [0.0; 0]);
        before[0] = run(GIB, 1, "base_2_D_1");
        assert_eq!(judged(run(GIB, 1, "base_2"), &before), [0.0; 0]);
        // A small cluster varies.
        let small: Vec<Run> = (0..5).map(|_| run(1 << 20, 2, "base_1")).collect();
        assert_eq!(judged(run(20 << 20, 60, "base_2"), &small), [1.0, 1.0]);
        assert!(factors(&[]).is_empty());
    }
}
