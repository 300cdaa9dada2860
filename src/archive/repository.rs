//! Where a WAL-G repository stands.

use std::fmt;

use crate::config::Config;

use super::ArchiveError;

/// A bucket and the prefix in it that WAL-G writes below (`WALG_S3_PREFIX`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub bucket: String,
    /// Without slashes at its ends; empty for a repository at the bucket's root.
    pub prefix: String,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

impl Repository {
    /// The repository of `config`, its `{account}`, `{cluster}` and `{major}` filled in.
    ///
    /// The major version is that of `postgres.data_directory`: an upgrade starts a new repository.
    ///
    /// # Errors
    /// When a placeholder's value is not known here.
    pub fn of(config: &Config) -> Result<Self, ArchiveError> {
        let major = || {
            let version =
                std::fs::read_to_string(config.postgres.data_directory.join("PG_VERSION")).ok()?;
            Some(version.trim().to_owned())
        };
        fill(
            &config.archive.repository,
            config.cluster.account.as_deref(),
            &config.cluster.name,
            major,
        )
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

fn fill(
    template: &str,
    account: Option<&str>,
    cluster: &str,
    major: impl FnOnce() -> Option<String>,
) -> Result<Repository, ArchiveError> {
    let mut text = template.replace("{cluster}", cluster);
    let unknown = |placeholder| ArchiveError::Placeholder {
        template: template.to_owned(),
        placeholder,
    };
    if text.contains("{account}") {
        text = text.replace("{account}", account.ok_or_else(|| unknown("{account}"))?);
    }
    if text.contains("{major}") {
        text = text.replace("{major}", &major().ok_or_else(|| unknown("{major}"))?);
    }
    // The configuration has checked the form.
    let path = text.strip_prefix("s3://").unwrap_or(&text);
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    Ok(Repository {
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
        let error = fill("s3://walg-{account}/x", None, "main", || None).unwrap_err();
        assert!(error.to_string().contains("{account}"), "{error}");
        // What is not asked for need not be known.
        assert_eq!(
            fill("s3://bucket", None, "main", || None)
                .unwrap()
                .key("wal_005/"),
            "wal_005/"
        );
    }
}
