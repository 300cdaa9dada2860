//! Where in S3 something is kept: a bucket and a prefix, from a template of the configuration.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use crate::config::RepositorySettings;

/// A bucket and the prefix in it that everything is written below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub bucket: String,
    /// Without slashes at its ends; empty for a repository at the bucket's root.
    pub prefix: String,
}

/// A template that cannot be filled in here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct UnknownPlaceholder {
    /// The configuration key that holds the template.
    pub key: &'static str,
    pub template: String,
    pub placeholder: &'static str,
    /// What is wrong in the configuration, where that is why.
    pub fault: Option<String>,
}

impl UnknownPlaceholder {
    fn words(&self) -> String {
        let (key, template, placeholder) = (self.key, &self.template, self.placeholder);
        match &self.fault {
            Some(fault) => format!("the configuration is wrong: {fault}"),
            None => format!("{key} is {template}, and {placeholder} is not known"),
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        if self.fault.is_some() {
            return "`xdb config check` names everything that is wrong; correct it and restart xdb"
                .to_owned();
        }
        let key = self.key;
        match self.placeholder {
            "{account}" => format!(
                "set cluster.account in xdb.toml, AWS_ACCOUNT_ID in /etc/environment, or the whole {key}"
            ),
            _ => format!(
                "set the whole {key}, or run where postgres.data_directory is or postgres.bin_directory holds the number"
            ),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

impl Location {
    /// The repository of `template`, which the configuration's `key` holds, its `{account}`, `{cluster}` and `{major}` filled in.
    ///
    /// The major version is that of `postgres.data_directory`: an upgrade starts a new repository. Where that is lost, which
    /// is when a repository is needed most, it is that of the programs, as `postgres.bin_directory` is named.
    ///
    /// # Errors
    /// When a placeholder's value is not known here, or the configuration of S3 or of `key`'s section is wrong.
    pub fn fill(
        key: &'static str,
        template: &str,
        settings: &RepositorySettings,
    ) -> Result<Self, UnknownPlaceholder> {
        let section = key.split('.').next().unwrap_or(key);
        if let Some(fault) = settings.faults.of_any(&["s3", section, "cluster"]) {
            return Err(UnknownPlaceholder {
                key,
                template: template.to_owned(),
                placeholder: "",
                fault: Some(fault.to_owned()),
            });
        }
        let major = || {
            let postgres = &settings.postgres;
            match std::fs::read_to_string(postgres.data_directory.join("PG_VERSION")) {
                Ok(version) => Some(version.trim().to_owned()),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    named_major(&postgres.bin_directory)
                }
                Err(_) => None,
            }
        };
        let account = settings.cluster.account.as_deref();
        fill(template, account, &settings.cluster.name, major).map_err(|placeholder| {
            UnknownPlaceholder {
                key,
                template: template.to_owned(),
                placeholder,
                fault: None,
            }
        })
    }

    /// The key of `path`, which is relative to the repository.
    pub fn key(&self, path: &str) -> String {
        if self.prefix.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.prefix)
        }
    }
}

/// The number in `/usr/lib/postgresql/17/bin`.
fn named_major(bin_directory: &Path) -> Option<String> {
    let names = bin_directory.iter().filter_map(|name| name.to_str());
    let mut numbers = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    numbers.next_back().map(str::to_owned)
}

/// The error is the placeholder that is not known.
fn fill(
    template: &str,
    account: Option<&str>,
    cluster: &str,
    major: impl FnOnce() -> Option<String>,
) -> Result<Location, &'static str> {
    let mut text = template.replace("{cluster}", cluster);
    if text.contains("{account}") {
        text = text.replace("{account}", account.ok_or("{account}")?);
    }
    if text.contains("{major}") {
        text = text.replace("{major}", &major().ok_or("{major}")?);
    }
    // The configuration has checked the form.
    let path = text.strip_prefix("s3://").unwrap_or(&text);
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    Ok(Location {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_or_named() {
        let filled = fill(
            "s3://walg-{account}/{cluster}/pg{major}",
            Some("42"),
            "main",
            || Some("17".into()),
        );
        assert_eq!(filled.unwrap().to_string(), "s3://walg-42/main/pg17");
        let unknown = fill("s3://walg-{account}/x", None, "main", || None);
        assert_eq!(unknown, Err("{account}"));
        // What is not asked for need not be known.
        assert_eq!(
            fill("s3://bucket", None, "main", || None)
                .unwrap()
                .key("wal_005/"),
            "wal_005/"
        );
    }

    #[test]
    fn the_major_version_is_in_the_directory_of_the_programs() {
        for (directory, major) in [
            ("/usr/lib/postgresql/17/bin", Some("17")),
            ("/usr/local/pgsql/bin", None),
        ] {
            assert_eq!(named_major(Path::new(directory)).as_deref(), major);
        }
    }

    #[test]
    fn the_hint_names_the_key_that_asks() {
        let unknown = UnknownPlaceholder {
            key: "dump.repository",
            template: "s3://pgdump-{account}/x".to_owned(),
            placeholder: "{account}",
            fault: None,
        };
        assert_eq!(
            unknown.to_string(),
            "dump.repository is s3://pgdump-{account}/x, and {account} is not known"
        );
        assert!(unknown.hint().ends_with("or the whole dump.repository"));
    }
}
