//! The shipped definitions, with an operator's own laid over them.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::parse::parse;
use super::shipped::SHIPPED;
use super::{Definition, DefinitionError};
use crate::cluster::PAGED;
use crate::config::open_regular;

/// Where an operator's definitions are.
pub(crate) const DIRECTORY: &str = "/etc/xdb/checks";

/// `xdb check list` is no check.
const LIST: &str = "list";

/// Bytes of a file that defines a check.
const LARGEST: u64 = 1024 * 1024;

/// Alerts that xdb raises beside those of [`PAGED`]: of its jobs, and of what the daemon depends on.
pub(crate) const BUILT_IN: [&str; 11] = [
    "base-backup",
    "dump",
    "restore-test",
    "dump-test",
    "prune",
    "dump-prune",
    "checks",
    "s3",
    "redis",
    "state-store",
    "alert-delivery",
];

/// The checks that can be made, and the files that define none.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    pub definitions: Vec<Definition>,
    /// One for each file in the operator's directory that is wrong.
    pub faults: Vec<DefinitionError>,
}

/// Every check by name: a file `NAME.toml` in `directory` replaces the shipped one, or adds another.
///
/// A file that is wrong replaces and adds nothing: the other checks are made all the same.
pub(crate) fn load(directory: &Path) -> Definitions {
    let mut definitions = BTreeMap::new();
    let mut faults = Vec::new();
    let shipped = SHIPPED.iter().map(|(name, text)| {
        let file = format!("checks/{name}.toml");
        ((*name).to_owned(), parse(name, &file, text))
    });
    let own = files(directory, &mut faults)
        .into_iter()
        .map(|(name, path)| {
            let parsed = read(&name, &path);
            (name, parsed)
        });
    for (name, parsed) in shipped.chain(own.collect::<Vec<_>>()) {
        match parsed {
            Ok(definition) => {
                definitions.insert(name, definition);
            }
            Err(fault) => faults.push(fault),
        }
    }
    Definitions {
        definitions: definitions.into_values().collect(),
        faults,
    }
}

/// Two judges of one alert would raise and resolve it in turn.
fn is_reserved(name: &str) -> bool {
    PAGED.contains(&name) || BUILT_IN.contains(&name) || name == LIST
}

/// Reads the file of an operator's check.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_file(path: &Path) -> Result<Definition, DefinitionError> {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    read(name.unwrap_or_default(), path)
}

fn read(name: &str, path: &Path) -> Result<Definition, DefinitionError> {
    if is_reserved(name) {
        return Err(DefinitionError::Reserved {
            path: path.to_owned(),
        });
    }
    let text = read_text(path).map_err(|error| DefinitionError::Read {
        path: path.to_owned(),
        error,
    })?;
    let definition = parse(name, &path.display().to_string(), &text)?;
    Ok(Definition {
        origin: Some(path.to_owned()),
        ..definition
    })
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_regular(path, LARGEST)?.read_to_string(&mut text)?;
    Ok(text)
}

/// The files in the operator's directory with the names of their checks, in the order of the names.
fn files(directory: &Path, faults: &mut Vec<DefinitionError>) -> Vec<(String, PathBuf)> {
    let mut unreadable = |error| {
        faults.push(DefinitionError::Read {
            path: directory.to_owned(),
            error,
        });
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            unreadable(error);
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                unreadable(error);
                continue;
            }
        };
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), Some("toml")) = (name, path.extension().and_then(|e| e.to_str())) {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn a_file_of_the_same_name_replaces_and_another_adds() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let shipped = load(&directory.path().join("missing"));
        assert_eq!(shipped.definitions.len(), SHIPPED.len());
        assert!(shipped.faults.is_empty(), "{:?}", shipped.faults);

        write(
            "archiver.toml",
            "title = 'mine'\nkind = 'archiver'\nwarning = 7",
        );
        write(
            "own.toml",
            "title = 'own'\nkind = 'sql'\nquery = 'SELECT 1 AS value'\nwarning = 1",
        );
        write("notes.txt", "no check");
        let loaded = load(directory.path()).definitions;
        assert_eq!(loaded.len(), SHIPPED.len() + 1);
        let archiver = loaded.iter().find(|one| one.name == "archiver").unwrap();
        assert_eq!(archiver.title, "mine");
        assert!(archiver.origin.is_some());
        let own = loaded.iter().find(|one| one.name == "own").unwrap();
        assert!(matches!(&own.kind, Kind::Sql(sql) if sql.queries[0].sql == "SELECT 1 AS value"));
    }

    #[test]
    fn a_file_with_the_name_of_an_alert_of_xdb_is_refused() {
        assert!(SHIPPED.iter().all(|(name, _)| !is_reserved(name)));
        let directory = tempfile::tempdir().unwrap();
        for name in ["primary", "dump", "state-store"] {
            let path = directory.path().join(format!("{name}.toml"));
            std::fs::write(&path, "title = 'mine'\nkind = 'postgresql_up'").unwrap();
        }
        let loaded = load(directory.path());
        assert_eq!(loaded.definitions.len(), SHIPPED.len());
        let faults: Vec<_> = loaded.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(
            faults[0].contains("raises the alert of this name itself"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_file_that_is_wrong_costs_its_own_check_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &[u8]| std::fs::write(path(name), text).unwrap();
        write("own.toml", b"title = 'own'\nkind = 'sequel'");
        write(
            "archiver.toml",
            b"title = 'mine'\nkind = 'archiver'\nwarn = 7",
        );
        write("latin.toml", b"title = '\xe9'");
        write("cut.toml", b"title = 'cut");
        std::fs::create_dir(path("folder.toml")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("dangling.toml")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("device.toml")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe.toml"), mode).unwrap();
        std::fs::File::create(path("large.toml"))
            .and_then(|file| file.set_len(LARGEST + 1))
            .unwrap();
        write("good.toml", b"title = 'good'\nkind = 'postgresql_up'");

        let loaded = load(directory.path());
        // The packaged archiver, and the good one.
        assert_eq!(loaded.definitions.len(), SHIPPED.len() + 1);
        let archiver = loaded.definitions.iter().find(|one| one.name == "archiver");
        assert_ne!(archiver.unwrap().title, "mine");
        let files: Vec<_> = loaded.faults.iter().map(DefinitionError::file).collect();
        let expected = [
            "archiver", "cut", "dangling", "device", "folder", "large", "latin", "own", "pipe",
        ];
        let expected = expected.map(|name| path(&format!("{name}.toml")).display().to_string());
        assert_eq!(files, expected);
        let own = &loaded.faults[7];
        assert!(
            own.to_string().contains("own.toml: kind is \"sequel\""),
            "{own}"
        );
        assert!(own.with_line().contains("own.toml:2: kind is"), "{own:?}");
    }
}
