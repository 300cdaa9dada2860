//! What a restored database holds, against what its manifest says. Pure.

use std::collections::BTreeMap;

use crate::model::Verdict;

/// Compares each table's rows, by the quoted names of the tables; of an `estimated` one only that it is there.
pub(super) fn judge_rows(
    manifest: &BTreeMap<String, u64>,
    estimated: &BTreeMap<String, Option<u64>>,
    restored: &BTreeMap<String, u64>,
) -> Verdict {
    let lost = manifest.iter().filter_map(|(table, rows)| {
        let difference = match restored.get(table) {
            None => format!("{table} is in the manifest and not in the dump"),
            Some(found) if found != rows => {
                format!("{table} was restored with {found} rows, the manifest counts {rows}")
            }
            Some(_) => return None,
        };
        Some(difference)
    });
    let lost_whole = estimated
        .keys()
        .filter(|table| !restored.contains_key(*table))
        .map(|table| format!("{table} is in the manifest and not in the dump"));
    let unknown = restored
        .keys()
        .filter(|table| !manifest.contains_key(*table) && !estimated.contains_key(*table))
        .map(|table| format!("{table} is in the dump and not in the manifest"));
    let wrong: Vec<String> = lost.chain(lost_whole).chain(unknown).collect();
    match wrong.as_slice() {
        [] => Verdict::Ok,
        [only] => Verdict::Critical(only.clone()),
        [first, rest @ ..] => Verdict::Critical(format!("{first} (and {} more)", rest.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let named = rows
            .iter()
            .map(|(table, rows)| ((*table).to_owned(), *rows));
        named.collect()
    }

    #[test]
    fn every_difference_has_its_own_reason() {
        let manifest = tables(&[("public.a", 1), ("public.b", 2)]);
        for (restored, reason) in [
            (&[("public.a", 1), ("public.b", 2)][..], None),
            (
                &[("public.a", 1)],
                Some("public.b is in the manifest and not in the dump"),
            ),
            (
                &[("public.a", 1), ("public.b", 3)],
                Some("public.b was restored with 3 rows, the manifest counts 2"),
            ),
            (
                &[("public.a", 1), ("public.b", 2), ("public.c", 0)],
                Some("public.c is in the dump and not in the manifest"),
            ),
            (
                &[("public.c", 0)],
                Some("public.a is in the manifest and not in the dump (and 2 more)"),
            ),
        ] {
            let verdict = judge_rows(&manifest, &BTreeMap::new(), &tables(restored));
            assert_eq!(verdict.reason(), reason, "{restored:?}");
        }
        let none = BTreeMap::new();
        assert_eq!(judge_rows(&none, &BTreeMap::new(), &none), Verdict::Ok);
    }

    #[test]
    fn a_table_that_was_not_counted_must_be_there() {
        let estimated = BTreeMap::from([("public.large".to_owned(), Some(1000))]);
        let judged =
            |restored: &[(&str, u64)]| judge_rows(&tables(&[]), &estimated, &tables(restored));
        assert_eq!(judged(&[("public.large", 7)]), Verdict::Ok);
        let reason = "public.large is in the manifest and not in the dump";
        assert_eq!(judged(&[]).reason(), Some(reason));
    }
}
