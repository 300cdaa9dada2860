//! Where a value may come from, and where it did come from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::key::{Key, environment_name};

/// The configuration file that is read when none is named.
pub const DEFAULT_FILE: &str = "/etc/xdb/xdb.toml";
const ENVIRONMENT_FILE: &str = "/etc/environment";

/// Everything that [`super::load`] reads; besides these, only the kernel's host name.
#[derive(Clone)]
pub struct Sources {
    pub file: ConfigFile,
    /// `/etc/environment`; it may be missing.
    pub environment_file: PathBuf,
    /// The process's own environment; names that are no UTF-8 are none of xdb's.
    pub process: BTreeMap<String, OsString>,
    pub flags: Vec<Flag>,
}

/// Which `xdb.toml` is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// The usual one: when it is missing, the other sources count alone.
    Default(PathBuf),
    /// One that somebody named: it must be there.
    Named(PathBuf),
}

impl ConfigFile {
    pub fn path(&self) -> &Path {
        match self {
            Self::Default(path) | Self::Named(path) => path,
        }
    }
}

/// A key that a command line flag sets.
#[derive(Clone)]
pub struct Flag {
    /// Dotted, such as `archive.repository`.
    pub key: &'static str,
    pub value: String,
    /// As it is typed, such as `--repository`.
    pub flag: &'static str,
}

impl Sources {
    /// The sources of this process; the file is `config_flag`, else what `XDB_CONFIG` names, else
    /// [`DEFAULT_FILE`].
    pub fn from_process(config_flag: Option<PathBuf>) -> Self {
        Self::of(config_flag, std::env::vars_os())
    }

    fn of(
        config_flag: Option<PathBuf>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let process: BTreeMap<String, OsString> = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let variable = process.get("XDB_CONFIG").filter(|value| !value.is_empty());
        let named = config_flag.or_else(|| variable.map(PathBuf::from));
        let usual = || ConfigFile::Default(PathBuf::from(DEFAULT_FILE));
        Self {
            file: named.map_or_else(usual, ConfigFile::Named),
            environment_file: PathBuf::from(ENVIRONMENT_FILE),
            process,
            flags: Vec::new(),
        }
    }
}

/// Names only: values may be secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment_file", &self.environment_file)
            .field("process", &self.process.keys())
            .field("flags", &self.flags)
            .finish()
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag")
            .field("key", &self.key)
            .field("flag", &self.flag)
            .finish_non_exhaustive()
    }
}

/// Where an effective value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    Default,
    /// A seed name in `/etc/environment`.
    EnvironmentFile {
        path: PathBuf,
        line: usize,
        name: String,
    },
    /// An `XDB_…` name, or a seed name, of the process's own environment.
    Environment {
        name: String,
    },
    File {
        path: PathBuf,
        line: usize,
    },
    Flag {
        flag: String,
    },
}

impl SettingSource {
    /// Orders the layers: the higher one wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::EnvironmentFile { .. } => 1,
            Self::Environment { name } if !name.starts_with("XDB_") => 2,
            Self::File { .. } => 3,
            Self::Environment { .. } => 4,
            Self::Flag { .. } => 5,
        }
    }

    /// Whether the name was made for other programs, and xdb only listens in.
    pub(super) fn is_seed(&self) -> bool {
        matches!(self.rank(), 1 | 2)
    }
}

/// As an operator would look for it: `/etc/xdb/xdb.toml:12`, `XDB_POSTGRES_PORT`, `--repository`.
impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::EnvironmentFile { path, line, name } => {
                write!(f, "{}:{line} ({name})", path.display())
            }
            Self::Environment { name } => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// The state directory as it is where no file names another: what can be known without reading one. `None` where
/// `XDB_CONFIG` names a file.
pub fn usual_state_directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if set("XDB_CONFIG").is_some() {
        return None;
    }
    let key = Key::named("node.state_directory")?;
    let named = set(&environment_name(key.name)).map(PathBuf::from);
    Some(named.unwrap_or_else(|| PathBuf::from(key.example())))
}

/// A value that a layer gives a key, still as text.
#[derive(Clone)]
pub(super) struct Assignment {
    /// Dotted.
    pub key: String,
    pub text: String,
    pub source: SettingSource,
}

/// Without the value, which may be secret.
impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment")
            .field("key", &self.key)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_names_the_file_before_the_variable_does() {
        let file = |flag: Option<&str>, variable: &str| {
            let variables = [(OsString::from("XDB_CONFIG"), OsString::from(variable))];
            Sources::of(flag.map(PathBuf::from), variables.into_iter()).file
        };
        assert_eq!(file(Some("/a"), "/b"), ConfigFile::Named("/a".into()));
        assert_eq!(file(None, "/b"), ConfigFile::Named("/b".into()));
        assert_eq!(file(None, ""), ConfigFile::Default(DEFAULT_FILE.into()));
    }
}
