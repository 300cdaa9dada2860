//! Whether `archive.program` is there, and how old it is; asked anew only when its file changed.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;

use super::SampleError;
use crate::model::Verdict;
use crate::process;

/// `--version` does nothing else.
const ANSWER: Duration = Duration::from_secs(5);

/// How far back the failures of the program's daemon count.
pub(super) const FAILURES_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// One failure is made good within a second or two; so many are no accident.
const TOO_MANY: usize = 3;

/// The numbers of a release, such as 3.0.9.
pub type Version = Vec<u32>;

/// The oldest release that will do, by a word in the program's file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    pub program: &'static str,
    pub version: Version,
}

/// Which file answered what.
type Answer = (PathBuf, Option<SystemTime>, String);

/// What the program said last.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<Option<Answer>>);

impl Asked {
    /// Looks for `program` and judges its version.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(super) async fn look(
        &self,
        program: &str,
        oldest: &[Oldest],
    ) -> Result<Verdict, SampleError> {
        let Some(path) = process::find(program) else {
            return Ok(Verdict::Critical(format!(
                "there is no WAL-G program {program}: nothing can be archived"
            )));
        };
        let said = self.version(&path).await?;
        Ok(judge(&path, &said, oldest))
    }

    async fn version(&self, path: &Path) -> Result<String, SampleError> {
        let changed = path.metadata().and_then(|file| file.modified()).ok();
        let known = self.0.lock().ok().and_then(|known| known.clone());
        if let Some((_, _, said)) = known.filter(|(of, at, _)| of == path && *at == changed) {
            return Ok(said);
        }
        let mut command = process::command(path);
        command.arg("--version");
        let finished = process::run(command, ANSWER).await?;
        let said = String::from_utf8_lossy(&finished.stdout).into_owned();
        if let Ok(mut known) = self.0.lock() {
            *known = Some((path.to_owned(), changed, said.clone()));
        }
        Ok(said)
    }
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
