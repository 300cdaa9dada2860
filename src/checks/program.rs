//! Whether `archive.program` is there, how old it is, and whether it can do what is configured; asked again only when its
//! file changed, or after a bad answer.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use procfs::process::Process;

use super::SampleError;
use crate::config::Postgres;
use crate::model::Verdict;
use crate::postgres::{self, LoginMethod};
use crate::process;
use crate::repository::{Program, ProgramSettings, RepositoryError, Trial, try_settings};

/// `--version` does nothing else.
const ANSWER: Duration = Duration::from_secs(5);

/// How far back the failures of the program's daemon count.
pub(super) const FAILURES_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// One failure is made good within a second or two; so many are no accident.
const TOO_MANY: usize = 3;

/// The numbers of a release, such as 3.0.9.
pub(crate) type Version = Vec<u32>;

/// The oldest release that will do, by a word in the program's file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub program: &'static str,
    pub version: Version,
}

/// A program's file, and when it was changed.
type File = (PathBuf, Option<SystemTime>);

/// The check of the program, with what its file answered last.
#[derive(Debug, Default)]
pub(super) struct ProgramCheck {
    version: Mutex<Option<(File, String)>>,
    /// The file that could do what is configured.
    able: Mutex<Option<File>>,
}

impl ProgramCheck {
    /// Looks for the program of `config`, judges its version, and tries what is configured.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(super) async fn check(
        &self,
        settings: &ProgramSettings,
        state_directory: &Path,
        oldest: &[Oldest],
    ) -> Result<Verdict, SampleError> {
        let program = &settings.archive.program;
        let Some(path) = process::find(program) else {
            return Ok(Verdict::Critical(format!(
                "there is no WAL-G program {program}: nothing can be archived"
            )));
        };
        let changed = path.metadata().and_then(|file| file.modified()).ok();
        let file = (path, changed);
        let judged = judge(&file.0, &self.version(&file).await?, oldest);
        // The settings are tried without a version, too.
        let is_unknown = matches!(judged, Verdict::Unknown(_));
        if judged != Verdict::Ok && !is_unknown {
            return Ok(judged);
        }
        if let Some(verdict) = judge_for_server(settings, &file.0) {
            return Ok(verdict);
        }
        let program = match settings.find() {
            Ok((program, _)) => program,
            Err(error) => return Ok(Verdict::Critical(reason_with_hint(&error))),
        };
        if let Some(reason) = why_no_login(&settings.postgres, program).await {
            return Ok(Verdict::Critical(reason));
        }
        let tried = self.try_settings(settings, state_directory, file).await;
        Ok(match tried {
            Verdict::Ok if is_unknown => judged,
            tried => tried,
        })
    }

    async fn version(&self, file: &File) -> Result<String, SampleError> {
        let known = || self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, said)) = known().as_ref().filter(|(of, _)| of == file) {
            return Ok(said.clone());
        }
        let mut command = process::command(&file.0);
        command.arg("--version");
        let finished = process::run(command, ANSWER).await?;
        let said = String::from_utf8_lossy(&finished.stdout).into_owned();
        *known() = Some((file.clone(), said.clone()));
        Ok(said)
    }

    async fn try_settings(
        &self,
        settings: &ProgramSettings,
        state_directory: &Path,
        file: File,
    ) -> Verdict {
        let able = || self.able.lock().unwrap_or_else(PoisonError::into_inner);
        if able().as_ref() == Some(&file) {
            return Verdict::Ok;
        }
        match try_settings(settings, state_directory).await {
            Ok(Trial::Works) => {
                *able() = Some(file);
                Verdict::Ok
            }
            Ok(Trial::Fails(reason)) => Verdict::Critical(reason),
            Ok(Trial::Unknown(reason)) => {
                Verdict::Unknown(format!("the program could not be tried: {reason}"))
            }
            Err(error) => Verdict::Critical(reason_with_hint(&error)),
        }
    }
}

fn reason_with_hint(error: &RepositoryError) -> String {
    format!("{error}: {}", error.hint())
}

/// Whether PostgreSQL's `archive_command` runs the program that was found here at `path`; `None` where it does, or where
/// the server cannot be examined.
///
/// While xdb's daemon stores the segments its own environment counts, and the server's when the daemon is away.
fn judge_for_server(settings: &ProgramSettings, path: &Path) -> Option<Verdict> {
    let program = &settings.archive.program;
    if program.contains('/') {
        return (!program.starts_with('/')).then(|| {
            Verdict::Critical(format!(
                "archive.program = {program:?} leads elsewhere from another working directory: write the whole path"
            ))
        });
    }
    let pid = fs::read_to_string(settings.postgres.data_directory.join("postmaster.pid")).ok()?;
    let server = Process::new(pid.lines().next()?.trim().parse().ok()?).ok()?;
    let environment = server.environ().ok()?;
    let (path, cure) = (path.display(), "set archive.program to the whole path");
    match process::find_with(
        program,
        environment.get(OsStr::new("PATH")).map(OsString::as_os_str),
    ) {
        None => Some(Verdict::Critical(format!(
            "PostgreSQL's archive_command does not find {program}, which is {path} here: {cure}"
        ))),
        Some(seen) if seen.display().to_string() != path.to_string() => {
            let seen = seen.display();
            Some(Verdict::Warning(format!(
                "PostgreSQL's archive_command runs {seen}, and {program} is {path} here: {cure}"
            )))
        }
        Some(_) => None,
    }
}

/// Why the program cannot log in to this node's server for a base backup; `None` where it can, or the server is away.
async fn why_no_login(settings: &Postgres, program: Program) -> Option<String> {
    if program.logs_in_by(LoginMethod::Md5) {
        return None;
    }
    let target = settings.into();
    let method = postgres::login_method(&target).await.ok()??;
    if program.logs_in_by(method) {
        return None;
    }
    let user = &settings.user;
    Some(match method {
        LoginMethod::Md5 => format!(
            "{program} cannot log in for base backups: the server asks {user} for an md5 password; \
             set password_encryption to scram-sha-256 and the password again, or use wal-g"
        ),
        _ => format!(
            "{program} cannot log in for base backups by the way that pg_hba.conf wants for {user}"
        ),
    })
}

/// Judges how often the program's daemon failed within [`FAILURES_WITHIN`].
pub(super) fn judge_daemon(failures: usize) -> Verdict {
    if failures < TOO_MANY {
        return Verdict::Ok;
    }
    let minutes = FAILURES_WITHIN.as_mins();
    Verdict::Warning(format!(
        "the program's daemon failed {failures} times within {minutes} min: segments are stored one by one meanwhile"
    ))
}

fn judge(path: &Path, said: &str, oldest: &[Oldest]) -> Verdict {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    let Some(oldest) = oldest.iter().find(|one| name.contains(one.program)) else {
        return Verdict::Critical(format!(
            "{} is neither wal-g nor walrus by its name",
            path.display()
        ));
    };
    let Some(version) = said.split_whitespace().find_map(parse_version) else {
        let said = said.trim();
        return Verdict::Unknown(format!("{name} --version says {said:?}, and no version"));
    };
    if version < oldest.version {
        return Verdict::Critical(format!(
            "{name} {} is too old: xdb needs {} or newer",
            shown(&version),
            shown(&oldest.version)
        ));
    }
    Verdict::Ok
}

/// `v3.0.9`, `0.4.1` or `3.0`; at least two numbers.
pub(super) fn parse_version(word: &str) -> Option<Version> {
    let numbers = word.strip_prefix('v').unwrap_or(word).split('.');
    let numbers: Option<Version> = numbers.map(|number| number.parse().ok()).collect();
    numbers.filter(|numbers| numbers.len() > 1)
}

fn shown(version: &[u32]) -> String {
    let numbers: Vec<_> = version.iter().map(u32::to_string).collect();
    numbers.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_fails_again_and_again_is_told() {
        assert_eq!(judge_daemon(TOO_MANY - 1), Verdict::Ok);
        assert_eq!(judge_daemon(TOO_MANY).word(), "warning");
    }

    #[test]
    fn a_program_is_judged_by_what_it_says_of_itself() {
        let oldest = [("wal-g", "3.0"), ("walrus", "0.4")].map(|(program, version)| Oldest {
            program,
            version: parse_version(version).unwrap(),
        });
        let wal_g = "wal-g version v3.0.9\tf2d8f9d\t2026.03.01_12:00:00\tPostgreSQL\n";
        for (path, said, word) in [
            ("/usr/bin/wal-g", wal_g, "ok"),
            ("/opt/wal-g-pg", "wal-g version v3.0\n", "ok"),
            ("/usr/bin/wal-g", "wal-g version v2.0.1\tx", "critical"),
            ("/usr/bin/walrus", "walrus 0.4.1", "ok"),
            ("/usr/bin/walrus", "walrus 0.3.9", "critical"),
            // Two numbers are older than three only where they are smaller.
            ("/usr/bin/walrus", "walrus 0.10", "ok"),
            ("/usr/bin/wal-g", "wal-g version devel", "unknown"),
            ("/usr/bin/true", "true 9.9", "critical"),
        ] {
            let verdict = judge(Path::new(path), said, &oldest);
            assert_eq!(verdict.word(), word, "{said}: {verdict:?}");
        }
    }
}
