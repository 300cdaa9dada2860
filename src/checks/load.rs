//! The shipped definitions, with an operator's own laid over them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::parse::parse;
use super::shipped::SHIPPED;
use super::{Definition, DefinitionError};

/// Where an operator's definitions are.
pub const DIRECTORY: &str = "/etc/xdb/checks";

/// Every check by name: a file `NAME.toml` in `directory` replaces the shipped one, or adds another.
///
/// # Errors
/// When `directory` is there and cannot be read, or a file in it is no definition.
pub fn load(directory: &Path) -> Result<Vec<Definition>, DefinitionError> {
    let mut definitions = BTreeMap::new();
    for (name, text) in SHIPPED {
        definitions.insert(
            (*name).to_owned(),
            parse(name, &format!("checks/{name}.toml"), text)?,
        );
    }
    for (name, definition) in own(directory)? {
        definitions.insert(name, definition);
    }
    Ok(definitions.into_values().collect())
}

fn own(directory: &Path) -> Result<Vec<(String, Definition)>, DefinitionError> {
    let unreadable = |path: &Path, error| DefinitionError::Read {
        path: path.to_owned(),
        error,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(directory, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let (Some(name), Some("toml")) = (name, path.extension().and_then(|e| e.to_str())) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        let definition = parse(name, &path.display().to_string(), &text)?;
        found.push((name.to_owned(), definition));
    }
    Ok(found)
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
        let shipped = load(&directory.path().join("missing")).unwrap();
        assert_eq!(shipped.len(), SHIPPED.len());

        write(
            "archiver.toml",
            "title = 'mine'\nkind = 'archiver'\nwarning = 7",
        );
        write(
            "own.toml",
            "title = 'own'\nkind = 'sql'\nquery = 'SELECT 1 AS value'\nwarning = 1",
        );
        write("notes.txt", "no check");
        let loaded = load(directory.path()).unwrap();
        assert_eq!(loaded.len(), SHIPPED.len() + 1);
        let archiver = loaded.iter().find(|one| one.name == "archiver").unwrap();
        assert_eq!(archiver.title, "mine");
        let own = loaded.iter().find(|one| one.name == "own").unwrap();
        assert!(matches!(&own.kind, Kind::Sql { query, .. } if query == "SELECT 1 AS value"));

        write("own.toml", "title = 'own'\nkind = 'sequel'");
        let error = load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("own.toml: kind is \"sequel\""), "{error}");
    }
}
