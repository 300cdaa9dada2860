//! What can be wrong with the sources, and what to do about it. A secret's value never gets here.

use std::path::PathBuf;

use super::key::{Key, environment_name};
use super::keys::{KEYS, section_names};
use super::source::{Assignment, SettingSource};
use super::spelling::nearest;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, a key twice included.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{} holds {key} and is open to every user (mode {mode:04o})", path.display())]
    Exposed {
        path: PathBuf,
        key: String,
        mode: u32,
    },
    /// Everything that is wrong at once, a line each.
    #[error("{}", problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("\n"))]
    Wrong { problems: Vec<Problem> },
}

const SYNTAX_HINT: &str =
    "a key is written as name = value below its [section], text in double quotes";

/// One wrong key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, section or variable that is wrong, as it is written.
    pub key: String,
    /// Source, key and what was expected.
    pub message: String,
    pub hint: String,
}

impl ConfigError {
    /// What the operator can do; for several problems a line each.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => format!(
                "name an existing file with --config or XDB_CONFIG; without both, {} is read if it is there",
                super::DEFAULT_FILE
            ),
            Self::Read { path, source }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                format!(
                    "{} is for root and the group postgres: run xdb as one of them",
                    path.display()
                )
            }
            Self::Read { .. } => return None,
            Self::Syntax { .. } => SYNTAX_HINT.to_owned(),
            Self::Exposed { path, .. } => {
                let path = path.display();
                format!("chown root:postgres {path} && chmod 0640 {path}")
            }
            Self::Wrong { problems } => {
                let mut hints: Vec<&str> = problems
                    .iter()
                    .map(|problem| problem.hint.as_str())
                    .collect();
                hints.dedup();
                hints.join("\n")
            }
        })
    }
}

impl Problem {
    /// A key that gets what it does not take; `got` is nothing that must stay hidden.
    pub(super) fn value(source: &SettingSource, key: &Key, got: &str) -> Self {
        let expected = key.kind.expected();
        let message = format!("{source}: {} is {got}, expected {expected}", key.name);
        Self {
            key: key.name.to_owned(),
            message,
            hint: example(source, key),
        }
    }

    /// The same for a value that came as text.
    pub(super) fn text(source: &SettingSource, key: &Key, text: &str) -> Self {
        let got = match text {
            "" => "empty".to_owned(),
            text if key.kind.may_show(text) => format!("{text:?}"),
            _ => "text that is not shown".to_owned(),
        };
        Self::value(source, key, &got)
    }

    /// A dotted name in the file, or of a flag, that is no key.
    pub(super) fn unknown_key(source: &SettingSource, name: &str) -> Self {
        let known = KEYS.iter().map(|key| key.name.to_owned());
        let hint = nearest(name, known)
            .map_or_else(|| siblings(name), |key| format!("did you mean {key}?"));
        Self {
            key: name.to_owned(),
            message: format!("{source}: there is no key {name}"),
            hint,
        }
    }

    /// A table in the file that is no section.
    pub(super) fn unknown_section(source: &SettingSource, name: &str) -> Self {
        let hint = match nearest(name, section_names().map(str::to_owned)) {
            Some(section) => format!("did you mean [{section}]?"),
            None => list_of_sections(),
        };
        Self {
            key: name.to_owned(),
            message: format!("{source}: there is no section [{name}]"),
            hint,
        }
    }

    /// A key of the file that stands above the first section.
    pub(super) fn outside_section(source: &SettingSource, name: &str) -> Self {
        let homes: Vec<_> = KEYS
            .iter()
            .filter(|key| key.leaf() == name)
            .map(|key| key.name)
            .collect();
        let hint = match homes.as_slice() {
            [] => list_of_sections(),
            homes => format!("did you mean {}?", homes.join(" or ")),
        };
        Self {
            key: name.to_owned(),
            message: format!("{source}: {name} stands outside of any section"),
            hint,
        }
    }

    /// A section that is no table.
    pub(super) fn no_table(source: &SettingSource, name: &str) -> Self {
        Self {
            key: name.to_owned(),
            message: format!("{source}: {name} is a section, not a value"),
            hint: format!("write [{name}] on a line of its own, and its keys below"),
        }
    }

    /// An `XDB_…` name that stands for no key.
    pub(super) fn unknown_variable(name: &str) -> Self {
        let known = KEYS.iter().map(|key| environment_name(key.name));
        let own = ["XDB_CONFIG", "XDB_LOG"].map(str::to_owned);
        let hint = match nearest(name, known.chain(own)) {
            Some(known) => format!("did you mean {known}?"),
            None => "every name is a key's, such as XDB_POSTGRES_PORT for postgres.port; unset it"
                .to_owned(),
        };
        Self {
            key: name.to_owned(),
            message: format!("{name}: there is no such key"),
            hint,
        }
    }

    /// A value that is no UTF-8.
    pub(super) fn not_text(source: &SettingSource, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            message: format!("{source}: the value for {key} is not UTF-8"),
            hint: "write it in UTF-8, or unset it".to_owned(),
        }
    }

    /// A line of the file that is not TOML, and that sets `key` or stands in that section.
    pub(super) fn syntax(error: &ConfigError, key: String) -> Self {
        Self {
            message: format!("{error} (in {key})"),
            key,
            hint: SYNTAX_HINT.to_owned(),
        }
    }

    /// The same for a comment.
    pub(super) fn syntax_of_comment(error: &ConfigError) -> Self {
        Self {
            key: "xdb.toml".to_owned(),
            message: error.to_string(),
            hint: "write the comment in UTF-8".to_owned(),
        }
    }

    /// A file with a secret that every user may read.
    pub(super) fn exposed(exposed: &ConfigError) -> Self {
        Self {
            key: "xdb.toml".to_owned(),
            message: exposed.to_string(),
            hint: exposed.hint().unwrap_or_default(),
        }
    }

    /// `given` is of no use while `missing` is not set.
    pub(super) fn incomplete(given: &Assignment, missing: &str) -> Self {
        Self {
            key: given.key.clone(),
            message: format!(
                "{}: {} is set, but {missing} is not",
                given.source, given.key
            ),
            hint: format!(
                "set {missing} too, or unset {} to use the instance's role",
                given.key
            ),
        }
    }
}

/// Shows how the key is set in the layer that `source` is of.
fn example(source: &SettingSource, key: &Key) -> String {
    let (name, text) = (key.name, key.example());
    let how = match source {
        SettingSource::Environment { name } if !source.is_seed() => format!("{name}={text}"),
        SettingSource::Flag { flag } => format!("{flag} {text}"),
        SettingSource::File { .. } => format!(
            "{} = {} in [{}]",
            key.leaf(),
            key.kind.literal(text),
            key.section()
        ),
        SettingSource::Default
        | SettingSource::EnvironmentFile { .. }
        | SettingSource::Environment { .. } => {
            return format!("correct it there, or set {name} in xdb.toml, which ranks above");
        }
    };
    format!("for example {how}")
}

/// The names that could have been meant instead of the last part of `name`.
fn siblings(name: &str) -> String {
    let section = name.split('.').next().unwrap_or_default();
    let keys: Vec<_> = KEYS
        .iter()
        .filter(|key| key.section() == section)
        .map(Key::leaf)
        .collect();
    if keys.is_empty() {
        list_of_sections()
    } else {
        format!("[{section}] has {}", keys.join(", "))
    }
}

fn list_of_sections() -> String {
    let names: Vec<_> = section_names().collect();
    format!("the sections are {}", names.join(", "))
}
