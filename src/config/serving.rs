//! Which wrong values the daemon serves without, and which sections must not work because of them. Pure.

use std::collections::BTreeMap;

use super::error::Problem;
use super::faults::Faults;
use super::key::{Key, environment_name};
use super::keys::{KEYS, section_names};
use super::kind::ValueKind;
use super::notify::NOTIFY;
use super::spelling::nearest;

/// Without these the node cannot say who it is, where it answers, or which servers it is about.
const SERVING: &[&str] = &["node", "postgres", "pgbouncer", "http"];
const SERVING_KEYS: &[&str] = &["cluster.name", "cluster.peers"];
/// Keys of those sections whose default cannot lead to another server. At worst a login fails with an error.
const NOT_NEEDED: &[&str] = &[
    "postgres.password",
    "postgres.connect_timeout",
    "postgres.bin_directory",
    "pgbouncer.user",
    "pgbouncer.password",
];

/// Where a default could write to the wrong place, delete too much, or prove too little.
const GUARDED: &[&str] = &[
    "cluster",
    "s3",
    "archive",
    "retention",
    "dump",
    "restore_test",
];

/// The faults that `problems` are to the sections whose work could do harm.
pub(super) fn faults_of(problems: &[Problem]) -> Faults {
    let mut faults = BTreeMap::new();
    for problem in problems {
        if let Some(section) = guarded_section(&problem.key) {
            let reason = || format!("{} (HINT: {})", problem.message, problem.hint);
            faults.entry(section).or_insert_with(reason);
        }
    }
    Faults(faults)
}

/// Whether the daemon cannot serve without the right value of `key`, which may be the name of a section or a variable.
///
/// A misspelt name counts as the one that was meant: with its default the daemon would serve another server's role.
pub(super) fn is_needed_to_serve(key: &str) -> bool {
    let serves = |key: &Key| {
        SERVING.contains(&key.section()) && !NOT_NEEDED.contains(&key.name)
            || SERVING_KEYS.contains(&key.name)
    };
    if let Some(known) = Key::named(key) {
        return serves(known);
    }
    let is_serving = |section: &str| SERVING.contains(&section) || section == "cluster";
    // With the right values of the others a receiver can be wrong.
    if key.split('.').next() == Some(NOTIFY) {
        return false;
    }
    let (section, is_dotted) = key.split_once('.').map_or((key, false), |it| (it.0, true));
    if section_names().any(|name| name == section) {
        return is_serving(section);
    }
    let known = section_names().map(str::to_owned);
    // Above the first section, a key belongs to none.
    let stands_outside = || KEYS.iter().any(|it| serves(it) && it.leaf() == key);
    meant(key).is_some_and(serves)
        || nearest(section, known).is_some_and(|it| is_serving(&it))
        || !is_dotted && stands_outside()
}

/// The key that is called `name`, or that a misspelt key or variable most likely means.
fn meant(name: &str) -> Option<&'static Key> {
    let spelt = |key: &Key| {
        if name.starts_with("XDB_") {
            environment_name(key.name)
        } else {
            key.name.to_owned()
        }
    };
    let nearest = nearest(name, KEYS.iter().map(spelt))?;
    KEYS.iter().find(|key| spelt(key) == nearest)
}

/// The section that must not work with the default of `key`; `None` where the default does no harm.
fn guarded_section(key: &str) -> Option<&'static str> {
    let meant = meant(key);
    let section = key.split('.').next().unwrap_or(key);
    let section = match meant {
        Some(meant) if key.starts_with("XDB_") => meant.section(),
        _ => section,
    };
    if meant.is_some_and(|meant| meant.section() == section && is_harmless(meant)) {
        return None;
    }
    let guarded = |section: &str| GUARDED.iter().find(|guarded| **guarded == section).copied();
    if section_names().any(|name| name == section) {
        guarded(section)
    } else {
        // A mistyped section hides all its keys.
        let known = GUARDED.iter().map(|section| (*section).to_owned());
        nearest(section, known).and_then(|section| guarded(&section))
    }
}

/// Whether the default of `key` is as safe as any other value: a time, a number of uploads, how a segment is compressed or
/// whether it ends early. Archiving must not stop because of it.
fn is_harmless(key: &Key) -> bool {
    const HARMLESS: &[&str] = &["archive.switch_wal", "archive.compression"];
    let is_limit = matches!(key.kind, ValueKind::Duration | ValueKind::Count);
    HARMLESS.contains(&key.name) || matches!(key.section(), "archive" | "dump") && is_limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_serving_needs_are_recognised() {
        for (key, needed) in [
            ("postgres.port", true),
            ("pgbouncer.host", true),
            ("postgres.connect_timeout", false),
            ("postgres.connect_timeot", true),
            ("postgres.password", false),
            ("pgbouncer.user", false),
            ("node.state_directory", true),
            ("http.listen", true),
            ("node.hostname", true),
            ("cluster.name", true),
            ("cluster.peers", true),
            ("postgres", true),
            ("cluster.account", false),
            // A misspelt name leaves the default, which may be another server's.
            ("postgres.prot", true),
            ("postgres.data_directroy", true),
            ("postgres.nonsense", true),
            ("postgress", true),
            ("node.hostnam", true),
            ("pgbouncer.prot", true),
            ("http.listn", true),
            ("cluster.peer", true),
            ("clutser", true),
            ("data_directory", true),
            ("XDB_POSTGRES_PROT", true),
            ("XDB_CLUSTER_PEER", true),
            ("XDB_CLUSTER_ACOUNT", false),
            ("XDB_S3_ENDPONT", false),
            ("XDB_NOTHING", false),
            ("nonsense", false),
            ("wait.prot", false),
            ("repository", false),
            ("s3.endpoint", false),
            ("schedule.dump", false),
            ("wait.port", false),
            ("s33", false),
            ("notify", false),
            ("notify.url", false),
            ("heartbeat.dump", false),
        ] {
            assert_eq!(is_needed_to_serve(key), needed, "{key}");
        }
    }

    #[test]
    fn a_default_that_could_do_harm_is_not_worked_with() {
        for (key, section) in [
            ("s3.endpoint", Some("s3")),
            ("archive.repository", Some("archive")),
            ("archive.settings.WALG_FILE_PREFIX", Some("archive")),
            ("archive.repositry", Some("archive")),
            ("archive.push_timeout", None),
            ("archive.push_timeot", None),
            ("archive.switch_wal", None),
            ("archive.swich_wal", None),
            ("archive.compression", None),
            ("archive.nonsense", Some("archive")),
            ("XDB_ARCHIVE_REPOSITRY", Some("archive")),
            ("XDB_ARCHIVE_SWICH_WAL", None),
            ("XDB_RETENTION_FULS", Some("retention")),
            ("retention.fulls", Some("retention")),
            ("restore_test.timeout", Some("restore_test")),
            ("dump.repository", Some("dump")),
            ("cluster.account", Some("cluster")),
            ("archiv", Some("archive")),
            ("schedule.dump", None),
            ("redis.url", None),
            ("notify.url", None),
            ("heartbeat.dump", None),
            ("postgres.prot", None),
            ("XDB_NOTHING", None),
        ] {
            assert_eq!(guarded_section(key), section, "{key}");
        }
    }
}
