//! Which set a database is restored from. Pure.

use crate::dump::{DumpSet, DumpedDatabase, Listed, Status};
use crate::restore::RestoreError;

/// A set, and the database in it.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub set: &'a DumpSet,
    pub database: &'a DumpedDatabase,
    /// Newer sets that are passed over, and what is odd about this one.
    pub notes: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub repository: &'a str,
    /// By name, or the newest that holds the database whole.
    pub set: Option<&'a str>,
    pub database: &'a str,
    /// The globals are read, too.
    pub globals: bool,
    /// The cluster's own, where it is known; its name decides where it is not.
    pub system_identifier: Option<u64>,
    pub cluster: &'a str,
}

/// Chooses from `listed`, the oldest first.
///
/// # Errors
/// When there is no such set, none that holds the database, or the one that is named is damaged.
pub(super) fn choose<'a>(
    listed: &'a [Listed],
    wanted: &Wanted<'_>,
) -> Result<Choice<'a>, RestoreError> {
    match wanted.set {
        Some(name) => named(listed, name, wanted),
        None => newest(listed, wanted),
    }
}

fn named<'a>(
    listed: &'a [Listed],
    name: &str,
    wanted: &Wanted<'_>,
) -> Result<Choice<'a>, RestoreError> {
    let found = listed.iter().find(|listed| listed.set == name);
    let found = found.ok_or_else(|| RestoreError::NoSuchSet {
        set: name.to_owned(),
        repository: wanted.repository.to_owned(),
    })?;
    let set = match (&found.manifest, found.status) {
        (Some(set), _) => set,
        (None, Status::Incomplete) => {
            let set = name.to_owned();
            return Err(RestoreError::UnfinishedSet { set });
        }
        (None, status) => {
            let reason = found.reason.as_deref().unwrap_or_default();
            let reason = format!("{name}: {reason}");
            return Err(match status {
                Status::Unknown => later_xdb(reason),
                _ => RestoreError::Bad(reason),
            });
        }
    };
    let database = database_of(set, wanted.database).ok_or_else(|| no_database(set, wanted))?;
    if let Some(reason) = damage(found, set, database, wanted.globals) {
        return Err(RestoreError::Bad(format!("{name}: {reason}")));
    }
    let mut notes = Vec::new();
    if is_foreign(set, wanted) {
        notes.push(format!(
            "{name} is a dump of another cluster, {} (system identifier {})",
            set.cluster, set.system_identifier
        ));
    }
    notes.extend(failed_test(found).map(|reason| format!("{name}: {reason}")));
    notes.extend(partial_note(found));
    Ok(Choice {
        set,
        database,
        notes,
    })
}

fn newest<'a>(listed: &'a [Listed], wanted: &Wanted<'_>) -> Result<Choice<'a>, RestoreError> {
    let (mut notes, mut foreign, mut latest) = (Vec::new(), None, None);
    for found in listed.iter().rev() {
        let name = &found.set;
        let Some(set) = &found.manifest else {
            if found.status != Status::Incomplete {
                let reason = found.reason.as_deref().unwrap_or_default();
                notes.push(format!("the newer set {name} is passed over: {reason}"));
            }
            continue;
        };
        if is_foreign(set, wanted) {
            foreign.get_or_insert(name);
            continue;
        }
        if !found.partial {
            latest.get_or_insert(set);
        }
        let Some(database) = database_of(set, wanted.database) else {
            if !found.partial {
                notes.push(format!(
                    "the newer set {name} does not hold {}",
                    wanted.database
                ));
            }
            continue;
        };
        if let Some(reason) = damage(found, set, database, wanted.globals) {
            notes.push(format!("the newer set {name} is passed over: {reason}"));
            continue;
        }
        if let Some(reason) = failed_test(found) {
            notes.push(format!(
                "the newer set {name} is passed over: {reason} (to restore it all the same: --set {name})"
            ));
            continue;
        }
        notes.extend(partial_note(found));
        if let Some(foreign) = foreign {
            notes.push(format!("the newer set {foreign} is of another cluster"));
        }
        return Ok(Choice {
            set,
            database,
            notes,
        });
    }
    Err(match (latest, foreign) {
        (None, Some(foreign)) => RestoreError::Refused {
            reason: format!(
                "{} holds no dump of this cluster; {foreign} is of another one",
                wanted.repository
            ),
            hint: format!("name the set to restore what another cluster had: --set {foreign}"),
        },
        (Some(set), _) => no_whole_database(set, wanted, &notes),
        (None, None) if listed.iter().any(|set| set.status == Status::Unknown) => {
            later_xdb(format!("no set can be restored: {}", notes.join("; ")))
        }
        (None, None) if !notes.is_empty() => {
            RestoreError::Bad(format!("no set can be restored: {}", notes.join("; ")))
        }
        (None, None) => RestoreError::NoDump {
            repository: wanted.repository.to_owned(),
        },
    })
}

fn later_xdb(reason: String) -> RestoreError {
    RestoreError::NotRestored {
        reason,
        hint: "nothing is known to be wrong with it: install the version of xdb that made it"
            .to_owned(),
    }
}

fn no_whole_database(set: &DumpSet, wanted: &Wanted<'_>, notes: &[String]) -> RestoreError {
    if database_of(set, wanted.database).is_none() {
        return no_database(set, wanted);
    }
    RestoreError::Bad(format!(
        "no set holds {} whole: {}",
        wanted.database,
        notes.join("; ")
    ))
}

fn no_database(set: &DumpSet, wanted: &Wanted<'_>) -> RestoreError {
    let there: Vec<&str> = set.databases.iter().map(|it| it.name.as_str()).collect();
    RestoreError::Refused {
        reason: format!("{} holds no database {:?}", set.set, wanted.database),
        hint: format!("it holds: {}", there.join(", ")),
    }
}

fn database_of<'a>(set: &'a DumpSet, name: &str) -> Option<&'a DumpedDatabase> {
    set.databases.iter().find(|database| database.name == name)
}

fn is_foreign(set: &DumpSet, wanted: &Wanted<'_>) -> bool {
    match wanted.system_identifier {
        Some(own) => own != set.system_identifier,
        None => wanted.cluster != set.cluster,
    }
}

/// Damage of the objects that are read, as the listing shows it: other databases of the set do not matter.
fn damage(
    listed: &Listed,
    set: &DumpSet,
    database: &DumpedDatabase,
    globals: bool,
) -> Option<String> {
    let globals = globals.then_some(&set.globals);
    let mut read = [&database.dump].into_iter().chain(globals);
    read.find_map(|object| listed.damage_of(object))
}

/// What a dump test found bad in the set.
fn failed_test(listed: &Listed) -> Option<&str> {
    let is_disproved = listed.status == Status::Disproved;
    is_disproved.then(|| listed.reason.as_deref().unwrap_or_default())
}

fn partial_note(listed: &Listed) -> Option<String> {
    listed
        .partial
        .then(|| format!("{} is partial: it was made with --database", listed.set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(set: &str, status: Status) -> Listed {
        let manifest = format!(
            r#"{{"v": 1, "set": "{set}", "cluster": "main", "node": "db2", "in_recovery": false,
            "system_identifier": 7, "server_version": 170011,
            "started_at": "2026-05-13T10:14:29Z", "finished_at": "2026-05-13T10:14:30Z", "partial": false,
            "databases": [{{"name": "app", "key": "{set}/app.dump", "bytes": 5, "sha256": "ab", "rows": {{}},
                "snapshot_at": "2026-05-13T10:14:29Z", "finished_at": "2026-05-13T10:14:30Z"}}],
            "globals": {{"key": "{set}/globals.sql", "bytes": 5, "sha256": "ab"}}}}"#
        );
        let stored = ["app.dump", "globals.sql"].map(|file| (format!("{set}/{file}"), 5));
        Listed {
            manifest: Some(serde_json::from_str(&manifest).unwrap()),
            reason: (status == Status::Disproved).then(|| "its dump test failed: cut".to_owned()),
            stored: stored.into(),
            ..Listed::sample(set, status)
        }
    }

    #[test]
    fn a_set_whose_test_failed_is_restored_only_by_its_name() {
        const OLDER: &str = "20260512T101429.123Z-db2";
        const NEWER: &str = "20260513T101429.123Z-db2";
        let wanted = |set| Wanted {
            repository: "s3://b/main",
            set,
            database: "app",
            globals: false,
            system_identifier: Some(7),
            cluster: "main",
        };
        let sets = [
            listed(OLDER, Status::Complete),
            listed(NEWER, Status::Disproved),
        ];
        let chosen = choose(&sets, &wanted(None)).unwrap();
        assert_eq!(chosen.set.set, OLDER);
        let note = format!("{NEWER} is passed over: its dump test failed: cut");
        assert!(chosen.notes[0].contains(&note), "{:?}", chosen.notes);

        let named = choose(&sets, &wanted(Some(NEWER))).unwrap();
        assert_eq!(named.set.set, NEWER);
        assert_eq!(named.notes, [format!("{NEWER}: its dump test failed: cut")]);

        let unknown = |cluster| Wanted {
            system_identifier: None,
            cluster,
            ..wanted(None)
        };
        assert_eq!(choose(&sets, &unknown("main")).unwrap().set.set, OLDER);
        let error = choose(&sets, &unknown("other")).unwrap_err().to_string();
        assert!(error.contains("of another one"), "{error}");

        let error = choose(&sets[1..], &wanted(None)).unwrap_err().to_string();
        assert!(error.contains(&format!("--set {NEWER}")), "{error}");
    }
}
