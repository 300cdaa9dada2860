//! What a restored database holds besides its rows, against what its manifest says. Pure.

use std::collections::BTreeMap;

use crate::dump::{CollationVersion, Contents, LargeObjects, Sequence};
use crate::model::Verdict;

/// Judges what must be as the manifest says: extensions, sequences, large objects. What the manifest lacks is not judged
/// here.
pub(super) fn judge_contents(manifest: &Contents, restored: &Contents) -> Verdict {
    let extensions = judge_both(
        manifest.extensions.as_ref(),
        restored.extensions.as_ref(),
        judge_extensions,
    );
    let sequences = judge_both(
        manifest.sequences.as_ref(),
        restored.sequences.as_ref(),
        judge_sequences,
    );
    let objects = judge_both(
        manifest.large_objects.as_ref(),
        restored.large_objects.as_ref(),
        judge_large_objects,
    );
    Verdict::worst([&extensions, &sequences, &objects])
}

fn judge_both<T>(
    manifest: Option<&T>,
    restored: Option<&T>,
    judge: impl FnOnce(&T, &T) -> Verdict,
) -> Verdict {
    match (manifest, restored) {
        (Some(manifest), Some(restored)) => judge(manifest, restored),
        _ => Verdict::Ok,
    }
}

/// Another version is no fault of the dump: `pg_restore` installs the version of this node.
fn judge_extensions(
    manifest: &BTreeMap<String, String>,
    restored: &BTreeMap<String, String>,
) -> Verdict {
    let judged = both(manifest, restored, "extension", |name, version, found| {
        (version != found).then(|| {
            Verdict::Warning(format!(
                "the extension {name} was restored in version {found}, the manifest says {version}: this node has other packages, or the live database lacks an ALTER EXTENSION {name} UPDATE"
            ))
        })
    });
    first_of_worst(&judged)
}

fn judge_sequences(
    manifest: &BTreeMap<String, Sequence>,
    restored: &BTreeMap<String, Sequence>,
) -> Verdict {
    let judged = both(manifest, restored, "sequence", judge_sequence);
    first_of_worst(&judged)
}

/// `None` where the restored sequence is as it was, or as it was at some moment of the dump.
fn judge_sequence(name: &str, manifest: &Sequence, restored: &Sequence) -> Option<Verdict> {
    let found = restored.value;
    let Some(at_end) = manifest.value_at_end else {
        let same = (found, restored.is_called) == (manifest.value, manifest.is_called);
        let shown = |it: &Sequence| match it.is_called {
            true => format!("the value {}", it.value),
            false => format!("the value {}, not used yet", it.value),
        };
        return (!same).then(|| {
            Verdict::Critical(format!(
                "the sequence {name} was restored with {}, the manifest says {}",
                shown(restored),
                shown(manifest)
            ))
        });
    };
    let between = manifest.value.min(at_end)..=manifest.value.max(at_end);
    // One that cycled, or that was set back, may have had any value.
    (!between.contains(&found)).then(|| {
        Verdict::Unknown(format!(
            "the sequence {name} was restored with the value {found}; it went from {} to {at_end} while the dump was made, so its value in the snapshot is unknown",
            manifest.value
        ))
    })
}

fn judge_large_objects(manifest: &LargeObjects, restored: &LargeObjects) -> Verdict {
    if manifest.number != restored.number {
        let (found, number) = (restored.number, manifest.number);
        return Verdict::Critical(format!(
            "{found} large objects were restored, the manifest counts {number}"
        ));
    }
    match (manifest.bytes, restored.bytes) {
        (Some(bytes), Some(found)) if bytes != found => Verdict::Critical(format!(
            "the large objects were restored with {found} bytes, the manifest counts {bytes}"
        )),
        _ => Verdict::Ok,
    }
}

/// Judges the versions of collations: `node` is the node that dumped.
///
/// A dump holds no indexes, so that restored ones are right by the library of the node that restores.
pub(super) fn judge_collations(manifest: &Contents, restored: &Contents, node: &str) -> Verdict {
    let Some(collations) = &manifest.collations else {
        return Verdict::Ok;
    };
    let judged: Vec<Verdict> = collations
        .iter()
        .flat_map(|(name, dumped)| {
            let here = restored.collations.as_ref().and_then(|it| it.get(name));
            let here = here.and_then(|it| it.actual.as_deref());
            [
                judge_recorded(name, dumped, node),
                judge_library(name, dumped, here, node),
            ]
        })
        .flatten()
        .collect();
    first_of_worst(&judged)
}

fn judge_recorded(name: &str, dumped: &CollationVersion, node: &str) -> Option<Verdict> {
    let (recorded, actual) = (dumped.recorded.as_ref()?, dumped.actual.as_ref()?);
    (recorded != actual).then(|| {
        Verdict::Warning(format!(
            "the collation {name} was version {recorded} when the live database's indexes were built, and {node} sorts by version {actual}: indexes on text may miss rows and accept duplicates there; REINDEX them, then ALTER COLLATION (or DATABASE) … REFRESH VERSION"
        ))
    })
}

fn judge_library(
    name: &str,
    dumped: &CollationVersion,
    here: Option<&str>,
    node: &str,
) -> Option<Verdict> {
    let (there, here) = (dumped.actual.as_deref()?, here?);
    (there != here).then(|| {
        Verdict::Warning(format!(
            "the collation {name} is version {there} on {node} and {here} here: what is restored from a dump gets right indexes, but base backups and standbys that move between these nodes need a REINDEX of indexes on text"
        ))
    })
}

/// What the manifest does not say exactly, so that it could not be compared; empty where all was.
pub(super) fn not_compared(
    manifest: &Contents,
    restored: &Contents,
    rows: &BTreeMap<String, u64>,
) -> Vec<String> {
    let mut missing: Vec<String> = manifest
        .estimated_rows
        .iter()
        .map(|(table, estimate)| {
            let restored = rows.get(table).copied().unwrap_or_default();
            let estimate = estimate.map_or_else(|| "none".to_owned(), |rows| rows.to_string());
            format!("the rows of {table} ({restored} were restored, the manifest's estimate is {estimate})")
        })
        .collect();
    let recorded = [
        ("the extensions", manifest.extensions.is_some()),
        ("the sequences", manifest.sequences.is_some()),
        ("the large objects", manifest.large_objects.is_some()),
        ("the collations", manifest.collations.is_some()),
    ];
    let lacks = recorded.iter().filter(|(_, is_recorded)| !is_recorded);
    missing.extend(lacks.map(|(what, _)| format!("{what}, which the manifest does not name")));
    let sizes = [&manifest.large_objects, &restored.large_objects];
    if sizes
        .iter()
        .any(|it| it.is_some_and(|it| it.bytes.is_none()))
    {
        missing.push("the size of the large objects".to_owned());
    }
    let here = restored.collations.as_ref();
    let collations = manifest.collations.iter().flatten();
    missing.extend(
        collations
            .filter(|(name, dumped)| {
                let here = here.and_then(|all| all.get(*name));
                dumped.actual.is_some() && here.is_none_or(|it| it.actual.is_none())
            })
            .map(|(name, _)| format!("the collation {name}, whose version is unknown here")),
    );
    missing
}

/// Compares two maps by key; a key of one alone is critical.
fn both<T>(
    manifest: &BTreeMap<String, T>,
    restored: &BTreeMap<String, T>,
    what: &str,
    judge: impl Fn(&str, &T, &T) -> Option<Verdict>,
) -> Vec<Verdict> {
    let named = manifest
        .iter()
        .filter_map(|(name, dumped)| match restored.get(name) {
            Some(found) => judge(name, dumped, found),
            None => Some(Verdict::Critical(format!(
                "the {what} {name} is in the manifest and not in the dump"
            ))),
        });
    let others = restored.keys().filter(|name| !manifest.contains_key(*name));
    let others = others.map(|name| {
        Verdict::Critical(format!(
            "the {what} {name} is in the dump and not in the manifest"
        ))
    });
    named.chain(others).collect()
}

/// The worst, with the number of the others that are as bad.
fn first_of_worst(judged: &[Verdict]) -> Verdict {
    let worst = Verdict::worst(judged);
    let same = judged.iter().filter(|it| it.word() == worst.word()).count();
    let more = |reason: String| match same {
        0 | 1 => reason,
        _ => format!("{reason} (and {} more)", same - 1),
    };
    match worst {
        Verdict::Ok => Verdict::Ok,
        Verdict::Warning(reason) => Verdict::Warning(more(reason)),
        Verdict::Critical(reason) => Verdict::Critical(more(reason)),
        Verdict::Unknown(reason) => Verdict::Unknown(more(reason)),
    }
}

#[cfg(test)]
#[path = "contents_comparison_tests.rs"]
mod tests;
