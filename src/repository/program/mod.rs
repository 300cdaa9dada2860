//! The two programs that speak WAL-G's repository format, and where they differ.

pub(crate) mod environment;
mod trial;
mod wal_g;
mod walrus;

pub(crate) use trial::{Trial, try_settings};
pub(crate) use walrus::ReadyMark;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::{self, RepositorySettings};
use crate::postgres::LoginMethod;
use crate::process;

use super::RepositoryError;

/// What a program is started with.
#[derive(Debug, Clone)]
pub struct ProgramSettings {
    pub archive: config::Archive,
    pub s3: config::S3,
    /// The server that it backs up.
    pub postgres: config::Postgres,
}

impl From<&RepositorySettings> for ProgramSettings {
    fn from(settings: &RepositorySettings) -> Self {
        Self {
            archive: settings.archive.clone(),
            s3: settings.s3.clone(),
            postgres: settings.postgres.clone(),
        }
    }
}

impl ProgramSettings {
    /// Finds `archive.program` and tells its dialect by its file name.
    ///
    /// # Errors
    /// When it is not there, is neither of the two, or would ignore a part of the settings without a word.
    pub fn find(&self) -> Result<(Program, PathBuf), RepositoryError> {
        let name = &self.archive.program;
        let path = process::find(name).ok_or_else(|| RepositoryError::NoProgram {
            program: name.clone(),
        })?;
        let program = Program::of(&path).ok_or_else(|| RepositoryError::UnknownProgram {
            program: name.clone(),
        })?;
        match program {
            Program::WalG => None,
            Program::Walrus => walrus::ignored_setting(self),
        }
        .map_or(Ok((program, path)), |setting| {
            Err(RepositoryError::Ignored { setting })
        })
    }
}

/// A dialect of WAL-G.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `wal-g`, version 3.
    WalG,
    /// `walrus`, of the crate `wal-rus`.
    Walrus,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WalG => "wal-g",
            Self::Walrus => "walrus",
        })
    }
}

impl Program {
    /// The dialect of the program at `path`, by its file name.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name.contains("walrus") {
            Some(Self::Walrus)
        } else if name.contains("wal-g") {
            Some(Self::WalG)
        } else {
            None
        }
    }

    /// Arguments that push a base backup of `data_directory`.
    pub fn backup_push(self, data_directory: &Path, full: bool) -> Vec<OsString> {
        match self {
            Self::WalG => wal_g::backup_push(data_directory, full),
            Self::Walrus => walrus::backup_push(data_directory, full),
        }
    }

    /// The application name of the sessions of a push that began at `since`: its own, where the program takes a name.
    pub fn session_name(self, since: Timestamp) -> String {
        match self {
            Self::WalG => format!("wal-g, xdb {since}"),
            Self::Walrus => self.to_string(),
        }
    }

    /// Whether its sessions have the options of `PGOPTIONS`.
    pub fn takes_session_options(self) -> bool {
        self == Self::WalG
    }

    /// Arguments that fetch `backup` into `directory`.
    pub fn backup_fetch(self, directory: &Path, backup: &str) -> Vec<OsString> {
        vec!["backup-fetch".into(), directory.into(), backup.into()]
    }

    /// A flag that names a file, and what that file says, by which a fetch puts tablespaces into the data directory itself.
    ///
    /// `None` where it puts them where they stood.
    pub fn in_place(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::WalG => Some(wal_g::IN_PLACE),
            Self::Walrus => None,
        }
    }

    /// Arguments that mark `backup` permanent, or take the mark away.
    pub fn backup_mark(self, backup: &str, permanent: bool) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["backup-mark".into(), backup.into()];
        if !permanent {
            arguments.push("--impermanent".into());
        }
        arguments
    }

    /// Arguments that delete all that is older than the full backup `backup`, or only say what they would delete.
    ///
    /// Names are prefixes to both programs: FIND_FULL passes over a delta that begins in the same segment.
    pub fn delete_before(self, backup: &str, confirm: bool) -> Vec<OsString> {
        deletion(&["before", "FIND_FULL", backup], confirm)
    }

    /// The same for `backup` itself with the deltas that build on it.
    pub fn delete_target(self, backup: &str, confirm: bool) -> Vec<OsString> {
        deletion(&["target", backup], confirm)
    }

    /// Settings by which a deletion lists what it deletes.
    pub fn deletion_settings(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::WalG => wal_g::deletion_settings(),
            Self::Walrus => Vec::new(),
        }
    }

    /// The object that a line of a deletion's output names, relative to the repository.
    pub fn listed_for_deletion(self, line: &str) -> Option<&str> {
        match self {
            Self::WalG => wal_g::listed_for_deletion(line),
            Self::Walrus => walrus::listed_for_deletion(line),
        }
    }

    /// Whether its deletions spare a backup that is marked in its sentinel, and in its `metadata.json` where it has one.
    pub fn spares(self, in_sentinel: bool, in_metadata: Option<bool>) -> bool {
        match self {
            Self::WalG => in_metadata == Some(true),
            Self::Walrus => in_sentinel,
        }
    }

    /// Whether its daemon reads, compresses and sends all files in one thread, as a profile of 0.4.1 shows for `walrus`.
    pub fn daemon_is_single_threaded(self) -> bool {
        self == Self::Walrus
    }

    /// Whether it can answer a server that asks for a password in this way.
    pub fn logs_in_by(self, method: LoginMethod) -> bool {
        match (self, method) {
            (Self::WalG, _) => true,
            // Its message is "MD5 password auth not supported".
            (Self::Walrus, LoginMethod::Md5 | LoginMethod::Other) => false,
            (Self::Walrus, LoginMethod::Free | LoginMethod::Cleartext | LoginMethod::Scram) => true,
        }
    }

    /// Settings that only this program reads.
    pub fn own_settings(self, settings: &ProgramSettings) -> Vec<(&'static str, String)> {
        match self {
            Self::WalG => wal_g::own_settings(settings),
            Self::Walrus => Vec::new(),
        }
    }
}

fn deletion(words: &[&str], confirm: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["delete".into()];
    arguments.extend(words.iter().map(OsString::from));
    if confirm {
        arguments.push("--confirm".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deletion_names_is_read_from_both_programs() {
        let wal_g = "INFO: 2026/11/21 07:47:17.438968 Object marked for deletion: wal_005/000000010000000000000001.zst storage=default";
        let old_wal_g = "INFO: 2024/11/21 07:47:17.438968 \twill be deleted: wal_005/000000010000000000000001.zst, from storage: default";
        let older_wal_g = "INFO: 2022/11/21 07:47:17.438968 \twill be deleted: wal_005/000000010000000000000001.zst";
        let walrus = "  wal_005/000000010000000000000001.zst";
        for (program, line, object) in [
            (
                Program::WalG,
                wal_g,
                Some("wal_005/000000010000000000000001.zst"),
            ),
            (
                Program::WalG,
                old_wal_g,
                Some("wal_005/000000010000000000000001.zst"),
            ),
            (
                Program::WalG,
                older_wal_g,
                Some("wal_005/000000010000000000000001.zst"),
            ),
            (
                Program::WalG,
                "INFO: 2026/11/21 07:47:17.434739 Start delete",
                None,
            ),
            (
                Program::Walrus,
                walrus,
                Some("wal_005/000000010000000000000001.zst"),
            ),
            (
                Program::Walrus,
                "delete-before target: base_000000010000000000000003",
                None,
            ),
        ] {
            assert_eq!(program.listed_for_deletion(line), object, "{line}");
        }
    }

    #[test]
    fn a_program_is_told_by_its_file_name() {
        for (path, program) in [
            ("/usr/local/bin/wal-g", Some(Program::WalG)),
            ("/opt/wal-g-pg-24.04-amd64", Some(Program::WalG)),
            ("/opt/wal-g/walrus", Some(Program::Walrus)),
            ("/usr/bin/true", None),
        ] {
            assert_eq!(Program::of(Path::new(path)), program, "{path}");
        }
    }
}
