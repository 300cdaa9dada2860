//! What a key and a section of the configuration are.

use super::kind::ValueKind;

/// One key.
pub(super) struct Key {
    /// SettingsSection, dot, name.
    pub name: &'static str,
    pub kind: ValueKind,
    pub preset: Preset,
    /// Names that give the value in `/etc/environment` and in the process's own environment, best first.
    pub seeds: &'static [&'static str],
    /// One line for users, in the files that the table is written to.
    #[cfg(test)]
    pub about: &'static str,
}

/// One section.
pub(super) struct SettingsSection {
    pub name: &'static str,
    /// One line for users, in the files that the table is written to.
    #[cfg(test)]
    pub about: &'static str,
}

/// What holds when nothing sets the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Default(&'static str),
    /// What the kernel calls this machine; the text is an example.
    KernelHostName(&'static str),
    /// Nothing; the text is an example.
    Unset(&'static str),
}

impl Key {
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
            Preset::Default(text) | Preset::KernelHostName(text) | Preset::Unset(text) => text,
        }
    }
}

/// The `XDB_…` name of the dotted name `key`.
pub(super) fn environment_name(key: &str) -> String {
    format!("XDB_{}", key.replace('.', "_").to_uppercase())
}
