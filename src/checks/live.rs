//! The definitions of a running process, which SIGHUP reads again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::{Definition, DefinitionError, Definitions, load};

/// The checks that are made now.
#[derive(Debug)]
pub(crate) struct LiveDefinitions {
    directory: PathBuf,
    current: RwLock<Arc<[Definition]>>,
}

impl LiveDefinitions {
    /// Reads the packaged definitions and those in `directory`; returns what is wrong there, too.
    pub(crate) fn read(directory: &Path) -> (Self, Vec<DefinitionError>) {
        let Definitions {
            definitions,
            faults,
        } = load(directory);
        let live = Self {
            directory: directory.to_owned(),
            current: RwLock::new(definitions.into()),
        };
        (live, faults)
    }

    /// Those that are valid until the next [`LiveDefinitions::reread`].
    pub(crate) fn current(&self) -> Arc<[Definition]> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Reads the files again, and returns what is wrong there. Of a file that was right before and is wrong now, what it said
    /// before still counts: a typo must end no alert.
    pub(crate) fn reread(&self) -> Vec<DefinitionError> {
        let Definitions {
            mut definitions,
            faults,
        } = load(&self.directory);
        let wrong: BTreeSet<String> = faults.iter().map(DefinitionError::file).collect();
        for former in self.current().iter() {
            if former.origin.is_some() && wrong.contains(&former.origin()) {
                definitions.retain(|one| one.name != former.name);
                definitions.push(former.clone());
            }
        }
        definitions.sort_by(|one, other| one.name.cmp(&other.name));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = definitions.into();
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_added_or_removed_counts_from_the_next_reading_on() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("own.toml");
        let (live, faults) = LiveDefinitions::read(directory.path());
        assert!(faults.is_empty());
        let has_own = || live.current().iter().any(|one| one.name == "own");
        let text = "title = 'own'\nkind = 'sql'\nquery = 'SELECT 1 AS value'\nwarning = 1";
        std::fs::write(&file, text).unwrap();
        assert!(!has_own());
        assert!(live.reread().is_empty());
        assert!(has_own());
        std::fs::write(&file, "title =").unwrap();
        for _ in 0..2 {
            assert_eq!(live.reread().len(), 1);
            assert!(has_own(), "what it said before does not count");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(live.reread().is_empty());
        assert!(!has_own());
        assert!(live.current().len() > 10);
    }
}
