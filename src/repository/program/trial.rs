//! Whether the program works as configured, by a trial: it stores a small file in a directory and fetches it back.
//!
//! Which compressions and ciphers a program knows depends on its build, and a setting that it does not read it ignores. What
//! is about S3 itself (storage class, server-side encryption) cannot be tried in a directory.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Program, ProgramSettings};
use crate::process::{self, Finished};
use crate::repository::{RepositoryError, catalog};
use crate::storage::Location;

/// For each of the two runs.
const LIMIT: Duration = Duration::from_secs(5);
const FOLDER: &str = "program-trial-";
const SAMPLE: &str = "sample";

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trial {
    Works,
    /// The program cannot do what is configured, and why.
    Fails(String),
    /// It could not be tried here.
    Unknown(String),
}

/// Has the program store and fetch a small file with the compression and the settings that are configured, in
/// `state_directory` or in the system's directory for temporary files.
///
/// # Errors
/// As [`ProgramSettings::find`].
pub(crate) async fn try_settings(
    settings: &ProgramSettings,
    state_directory: &Path,
) -> Result<Trial, RepositoryError> {
    let (program, _) = settings.find()?;
    let place = match TrialDirectory::make(state_directory) {
        Ok(place) => place,
        Err(error) => {
            return Ok(Trial::Unknown(format!(
                "no directory to try it in: {error}"
            )));
        }
    };
    let tried = round_trip(settings, program, &place).await?;
    // Keys that a service holds, and further storages, are a matter of the network, too.
    let remote = ["KMS", "FAILOVER"];
    let depends = |name: &String| remote.iter().any(|part| name.contains(part));
    Ok(match tried {
        Trial::Fails(why) if settings.archive.settings.keys().any(depends) => Trial::Unknown(why),
        tried => tried,
    })
}

async fn round_trip(
    settings: &ProgramSettings,
    program: Program,
    place: &TrialDirectory,
) -> Result<Trial, RepositoryError> {
    let compression = &settings.archive.compression;
    let failed = |verb: &str, words: &str| {
        let what = format!("compression {compression} and archive.settings");
        Trial::Fails(format!("{program} {verb} fails with {what}: {words}"))
    };
    // Compressed and encrypted as segments are, without their rules.
    let store = ["st", "put", SAMPLE, SAMPLE];
    match run(settings, place, &store).await? {
        Ok(finished) if finished.status.success() => {}
        Ok(finished) => return Ok(failed("st put", &finished.last_words())),
        Err(words) => return Ok(Trial::Unknown(words)),
    }
    let stored = match place.stored() {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(failed("st put", "it stores nothing")),
        Err(error) => return Ok(Trial::Unknown(error.to_string())),
    };
    if let Err(reason) = judge_stored(&stored, compression, settings.encrypts()) {
        return Ok(Trial::Fails(format!("{program} {reason}")));
    }
    let fetch = ["st", "get", &stored.name, "fetched"];
    match run(settings, place, &fetch).await? {
        Ok(finished) if finished.status.success() => {}
        Ok(finished) => return Ok(failed("st get", &finished.last_words())),
        Err(words) => return Ok(Trial::Unknown(words)),
    }
    Ok(match fs::read(place.0.join("fetched")) {
        Ok(content) if content == content_of_trial() => Trial::Works,
        _ => failed("st get", "it brings back other content than was stored"),
    })
}

/// Runs the program on the trial's directory; the inner error says why that could not be done.
async fn run(
    settings: &ProgramSettings,
    place: &TrialDirectory,
    arguments: &[&str],
) -> Result<Result<Finished, String>, RepositoryError> {
    // The place of a repository is asked for and then replaced.
    let nowhere = Location {
        bucket: "none".to_owned(),
        prefix: String::new(),
    };
    let (_, mut command) = settings.command(&nowhere, &place.0)?;
    command
        .args(arguments)
        .env_remove("WALG_S3_PREFIX")
        .env("WALG_FILE_PREFIX", place.repository())
        .current_dir(&place.0);
    Ok(process::run(command, LIMIT)
        .await
        .map_err(|error| error.to_string()))
}

/// What the program stored, by its name and content.
struct TrialObject {
    name: String,
    content: Vec<u8>,
}

/// Whether the program heeded the settings.
///
/// # Errors
/// Which of them it ignores.
fn judge_stored(stored: &TrialObject, compression: &str, encrypts: bool) -> Result<(), String> {
    let suffix = match compression {
        "none" => "",
        "zstd" => ".zst",
        "brotli" => ".br",
        "lzma" => ".lzma",
        _ => ".lz4",
    };
    let name = &stored.name;
    if *name != format!("{SAMPLE}{suffix}") {
        return Err(format!(
            "ignores archive.compression = {compression:?}: it stores {name}"
        ));
    }
    let plain = content_of_trial();
    let is_plain =
        catalog::begins_as_named(name, &stored.content) == Some(true) || stored.content == plain;
    if encrypts && is_plain {
        return Err("does not encrypt, though archive.settings has a key".to_owned());
    }
    Ok(())
}

fn content_of_trial() -> Vec<u8> {
    b"xdb asks with this file what the program can do\n".repeat(64)
}

/// A private directory that goes with this.
struct TrialDirectory(PathBuf);

impl TrialDirectory {
    fn make(state: &Path) -> io::Result<Self> {
        remove_left(state);
        Self::make_in(state).or_else(|_| Self::make_in(&std::env::temp_dir()))
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("{FOLDER}{}", std::process::id()));
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).create(&path)?;
        let place = Self(path);
        private.create(place.repository())?;
        fs::write(place.0.join(SAMPLE), content_of_trial())?;
        Ok(place)
    }

    fn repository(&self) -> PathBuf {
        self.0.join("repository")
    }

    /// The one object; `None` where there is none.
    fn stored(&self) -> io::Result<Option<TrialObject>> {
        for entry in fs::read_dir(self.repository())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(SAMPLE) {
                let content = fs::read(entry.path())?;
                return Ok(Some(TrialObject { name, content }));
            }
        }
        Ok(None)
    }
}

impl Drop for TrialDirectory {
    fn drop(&mut self) {
        // What stays goes with the next trial.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of processes that were killed.
fn remove_left(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_ignores_is_seen_in_what_it_stored() {
        let lz4 = [&[0x04, 0x22, 0x4D, 0x18][..], &[7; 40]].concat();
        let plain = content_of_trial();
        let sealed = vec![0xA7; 90];
        for (suffix, content, compression, encrypts, ignored) in [
            (".lz4", &lz4, "lz4", false, None),
            (".lz4", &sealed, "lz4", true, None),
            ("", &plain, "none", false, None),
            ("", &sealed, "none", true, None),
            (".br", &sealed, "brotli", true, None),
            (".lz4", &lz4, "zstd", false, Some("archive.compression")),
            ("", &plain, "lz4", false, Some("archive.compression")),
            (".lz4", &lz4, "lz4", true, Some("does not encrypt")),
            ("", &plain, "none", true, Some("does not encrypt")),
        ] {
            let stored = TrialObject {
                name: format!("{SAMPLE}{suffix}"),
                content: content.clone(),
            };
            match (judge_stored(&stored, compression, encrypts), ignored) {
                (Ok(()), None) => {}
                (Err(reason), Some(words)) => assert!(reason.contains(words), "{reason}"),
                (judged, _) => panic!("{suffix} {compression} {encrypts}: {judged:?}"),
            }
        }
    }
}
