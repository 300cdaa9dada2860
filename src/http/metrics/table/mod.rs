//! The table of metrics: name, type, help and labels of each family. docs/reference/metrics.md is made from it.
//!
//! Base units; a point in time is `…_timestamp_seconds`; a state is one series for each value it can have, 0 or 1. No label
//! takes a value that grows with the data: no backup's name, no LSN, no object of a check.
//! `job` and `instance` belong to the scraper.

mod archive;
mod cluster;
mod work;

use super::family::Family;

/// Families of one subject, under its heading.
pub(super) type Group = (&'static str, &'static [Family]);

/// Every family, in the order of the reference page and of a scrape.
pub(super) static GROUPS: &[Group] = &[
    ("The node and the cluster", cluster::NODE),
    ("What a loss of the primary costs", cluster::LOSS),
    ("Restore tests", archive::RESTORE_TESTS),
    ("The archive", archive::ARCHIVE),
    ("Replication", cluster::REPLICATION),
    ("Checks and alerts", cluster::CHECKS),
    ("Jobs", work::JOBS),
    ("S3", work::S3),
];

pub(super) fn families() -> impl Iterator<Item = &'static Family> {
    GROUPS.iter().flat_map(|(_, families)| families.iter())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::metrics::family::Unit;

    #[test]
    fn each_family_has_a_name_of_its_own_and_a_sentence() {
        let mut names = BTreeSet::new();
        for family in families() {
            assert!(names.insert(family.name()), "{}", family.name());
            assert!(!family.help.ends_with('.'), "{}", family.name());
            let is_point = family.stem.ends_with("_timestamp");
            assert!(
                !is_point || family.unit == Unit::Seconds,
                "{}",
                family.name()
            );
        }
    }
}
