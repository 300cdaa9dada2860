//! Wrong values that the daemon serves without: which they are, and what must not run because of them. Pure.

use std::collections::BTreeMap;

use super::error::Problem;
use super::key::Key;
use super::keys::KEYS;
use super::kind::Kind;
use super::nearest::nearest;

/// Without these the node cannot say who it is, where it answers, or which servers it is about.
const SERVING: &[&str] = &["node", "postgres", "pgbouncer", "http"];
const SERVING_KEYS: &[&str] = &["cluster.name", "cluster.peers"];

/// Where a default could write to the wrong place, delete too much, or prove too little.
const GUARDED: &[&str] = &[
    "cluster",
    "s3",
    "archive",
    "retention",
    "dump",
    "restore_test",
];

/// The sections whose work must not run, each with its first wrong value in a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<&'static str, String>);

impl Faults {
    pub(super) fn of_problems(problems: &[Problem]) -> Self {
        let mut faults = BTreeMap::new();
        for problem in problems {
            if let Some(section) = guarded_section(&problem.key) {
                let reason = || format!("{} (HINT: {})", problem.message, problem.hint);
                faults.entry(section).or_insert_with(reason);
            }
        }
        Self(faults)
    }

    /// Why the work of `section` must not run.
    pub fn of(&self, section: &str) -> Option<&str> {
        self.0.get(section).map(String::as_str)
    }

    /// The first reason among `sections`.
    pub fn of_any(&self, sections: &[&str]) -> Option<&str> {
        sections.iter().find_map(|section| self.of(section))
    }
}

/// Whether the daemon cannot serve without the right value of `key`, which may be a section's name.
pub(super) fn is_needed_to_serve(key: &str) -> bool {
    SERVING.contains(&key)
        || SERVING_KEYS.contains(&key)
        || key == "cluster"
        || Key::named(key).is_some_and(|key| SERVING.contains(&key.section()))
}

/// The section that must not work with the default of `key`; `None` where the default does no harm.
fn guarded_section(key: &str) -> Option<&'static str> {
    let section = key.split('.').next().unwrap_or(key);
    let is_harmless = |key: &Key| {
        // A time or a number of uploads: the default is as safe as any other.
        matches!(section, "archive" | "dump") && matches!(key.kind, Kind::Duration | Kind::Count)
    };
    if Key::named(key).is_some_and(is_harmless) {
        return None;
    }
    let guarded = |section: &str| GUARDED.iter().find(|guarded| **guarded == section).copied();
    let is_section = KEYS.iter().any(|key| key.section() == section);
    if is_section {
        guarded(section)
    } else {
        // A mistyped section hides all its keys.
        let known = GUARDED.iter().map(|section| (*section).to_owned());
        nearest(section, known).and_then(|section| guarded(&section))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_serving_needs_are_recognised() {
        for (key, needed) in [
            ("postgres.port", true),
            ("pgbouncer.host", true),
            ("http.listen", true),
            ("node.hostname", true),
            ("cluster.name", true),
            ("cluster.peers", true),
            ("postgres", true),
            ("cluster.account", false),
            // A name that is no key sets nothing.
            ("postgres.prot", false),
            ("s3.endpoint", false),
            ("schedule.dump", false),
            ("wait.port", false),
            ("s33", false),
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
            ("retention.fulls", Some("retention")),
            ("restore_test.timeout", Some("restore_test")),
            ("dump.repository", Some("dump")),
            ("cluster.account", Some("cluster")),
            ("archiv", Some("archive")),
            ("schedule.dump", None),
            ("redis.url", None),
            ("postgres.prot", None),
            ("XDB_NOTHING", None),
        ] {
            assert_eq!(guarded_section(key), section, "{key}");
        }
    }
}
