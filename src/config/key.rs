//! What a key of the configuration is.

use super::keys::KEYS;
use super::kind::Kind;

/// One key.
pub(super) struct Key {
    /// Section, dot, name.
    pub name: &'static str,
    pub kind: Kind,
    pub preset: Preset,
    /// Names that give the value in `/etc/environment` and in the process's own environment, best first.
    pub seeds: &'static [&'static str],
    /// One line, as `packaging/xdb.toml` shows it.
    pub about: &'static str,
}

/// What holds when nothing sets the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Text(&'static str),
    /// What the kernel calls this machine; the text is an example.
    KernelHostName(&'static str),
    /// Nothing; the text is an example.
    Unset(&'static str),
}

impl Key {
    /// The key of this dotted name.
    pub(super) fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    pub(super) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name inside its section.
    pub(super) fn leaf(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(_, leaf)| leaf)
    }

    /// The default, or else an example.
    pub(super) fn example(&self) -> &'static str {
        match self.preset {
            Preset::Text(text) | Preset::KernelHostName(text) | Preset::Unset(text) => text,
        }
    }
}

/// The `XDB_…` name of the dotted name `key`.
pub(super) fn environment_name(key: &str) -> String {
    format!("XDB_{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_and_example_is_a_value_of_its_kind() {
        for key in KEYS {
            assert!(key.kind.parse(key.example()).is_some(), "{}", key.name);
        }
    }

    #[test]
    fn no_two_keys_share_an_environment_name_or_a_seed() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| environment_name(key.name)).collect();
        assert_eq!(names.len(), KEYS.len());
        assert!(
            names.contains("XDB_POSTGRES_PORT") && names.contains("XDB_RESTORE_TEST_DIRECTORY")
        );
        let seeds: Vec<_> = KEYS.iter().flat_map(|key| key.seeds).collect();
        assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), seeds.len());
    }

    #[test]
    fn a_backup_is_never_led_away_from_its_own_node_by_a_seed() {
        let seeded = |name| !Key::named(name).unwrap().seeds.is_empty();
        assert!(!seeded("postgres.host") && !seeded("postgres.port"));
    }
}
