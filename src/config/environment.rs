//! Reads environments: the seed's names, `XDB_…` names, and flags, which are text just the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::Problem;
use super::key::{Key, environment_name};
use super::keys::{KEYS, SETTINGS};
use super::pam_env;
use super::program_settings;
use super::source::{Assignment, Flag, SettingSource};

/// Names that begin like a key's and are none: xdb's own, and those of its lab, tests and tools.
const OTHERS: &[&str] = &["XDB_CONFIG", "XDB_LOG", "XDB_WAL_AHEAD", "XDB_WAL_SCRATCH"];
const OTHERS_BEGIN: &[&str] = &["XDB_LAB_", "XDB_CACHE"];

/// What the seed names of `/etc/environment` give, not yet checked: a key set higher up hides it.
///
/// Its `XDB_…` names count only once they are in the process's own environment.
pub(super) fn read_file(path: &Path, text: &[u8], problems: &mut Vec<Problem>) -> Vec<Assignment> {
    let assigned = pam_env::parse(text);
    let look_up = |name: &str| {
        let assigned = assigned.get(name)?;
        let (path, line, name) = (path.to_owned(), assigned.line, name.to_owned());
        Some((
            assigned.value.as_slice(),
            SettingSource::EnvironmentFile { path, line, name },
        ))
    };
    seeds(look_up, problems)
}

/// What the seed names of the process's own environment give, not yet checked either.
pub(super) fn read_process(
    process: &BTreeMap<String, OsString>,
    problems: &mut Vec<Problem>,
) -> Vec<Assignment> {
    let look_up = |name: &str| {
        let value = process.get(name)?;
        Some((
            value.as_bytes(),
            SettingSource::Environment {
                name: name.to_owned(),
            },
        ))
    };
    seeds(look_up, problems)
}

/// The first of a key's names that is not empty gives the value.
fn seeds<'a>(
    look_up: impl Fn(&str) -> Option<(&'a [u8], SettingSource)>,
    problems: &mut Vec<Problem>,
) -> Vec<Assignment> {
    let found = |key: &Key| {
        let mut set = key.seeds.iter().filter_map(|name| look_up(name));
        set.find(|(value, _)| !value.is_empty())
    };
    let mut given = Vec::new();
    for key in KEYS {
        if let Some((value, source)) = found(key) {
            given.extend(as_text(key.name, value, source, problems));
        }
    }
    given
}

/// What `XDB_…` names give; an empty one counts as unset, an unknown one is a problem.
pub(super) fn read_variables(
    process: &BTreeMap<String, OsString>,
    problems: &mut Vec<Problem>,
) -> Vec<Assignment> {
    let settings_begin = environment_name(SETTINGS);
    let mut given = Vec::new();
    for (name, value) in process.iter().filter(|(name, _)| name.starts_with("XDB_")) {
        if OTHERS.contains(&name.as_str())
            || OTHERS_BEGIN.iter().any(|begin| name.starts_with(begin))
        {
            continue;
        }
        let source = SettingSource::Environment { name: name.clone() };
        let setting = name.strip_prefix(&settings_begin);
        let key = match (
            setting,
            KEYS.iter().find(|key| environment_name(key.name) == *name),
        ) {
            (Some(setting), _) => match program_settings::judge_name(&source, setting) {
                Some(problem) => {
                    problems.push(problem);
                    continue;
                }
                None => format!("{SETTINGS}{setting}"),
            },
            (None, Some(key)) => key.name.to_owned(),
            (None, None) => {
                problems.push(Problem::unknown_variable(name));
                continue;
            }
        };
        if !value.is_empty() {
            let text = as_text(&key, value.as_bytes(), source, problems);
            given.extend(text.and_then(|given| checked(given, problems)));
        }
    }
    given
}

/// What command line flags give.
pub(super) fn read_flags(flags: &[Flag], problems: &mut Vec<Problem>) -> Vec<Assignment> {
    let mut given = Vec::new();
    for flag in flags {
        let source = SettingSource::Flag {
            flag: flag.flag.to_owned(),
        };
        if Key::named(flag.key).is_none() {
            problems.push(Problem::unknown_key(&source, flag.key));
            continue;
        }
        let flag = Assignment {
            key: flag.key.to_owned(),
            text: flag.value.clone(),
            source,
        };
        given.extend(checked(flag, problems));
    }
    given
}

fn as_text(
    key: &str,
    value: &[u8],
    source: SettingSource,
    problems: &mut Vec<Problem>,
) -> Option<Assignment> {
    match std::str::from_utf8(value) {
        Ok(text) => Some(Assignment {
            key: key.to_owned(),
            text: text.to_owned(),
            source,
        }),
        Err(_) => {
            problems.push(Problem::not_text(&source, key));
            None
        }
    }
}

/// Passes on what is a value of its key; settings take any text.
fn checked(given: Assignment, problems: &mut Vec<Problem>) -> Option<Assignment> {
    let Some(key) = Key::named(&given.key) else {
        return Some(given);
    };
    if key.kind.parse(&given.text).is_some() {
        return Some(given);
    }
    problems.push(Problem::text(&given.source, key, &given.text));
    None
}
