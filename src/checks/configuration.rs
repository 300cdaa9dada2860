//! What is wrong in xdb's own files, as they are now and as the daemon read them when it started.

use std::path::Path;

use super::load::{DIRECTORY, load};
use crate::config::{ConfigError, Loaded, Problem};
use crate::model::Verdict;

/// Reads the files once more, and judges them.
pub(super) fn check(started_with: &Loaded) -> Vec<(Option<String>, Verdict)> {
    let now = started_with.reread();
    let mut found = judge(&started_with.faults, &now);
    found.extend(load(Path::new(DIRECTORY)).faults.iter().map(|fault| {
        let reason = format!("{} (HINT: {})", fault.with_line(), fault.hint());
        (Some(fault.file()), Verdict::Warning(reason))
    }));
    if found.is_empty() {
        found.push((None, Verdict::Ok));
    }
    found
}

/// `started_with` is what was wrong when this process read the files.
fn judge(
    started_with: &[Problem],
    now: &Result<Loaded, ConfigError>,
) -> Vec<(Option<String>, Verdict)> {
    let now = match now {
        Ok(now) => &now.faults,
        Err(error) => {
            let reason = format!("xdb's daemon could not start again: {error}");
            return vec![(Some("xdb.toml".to_owned()), Verdict::Critical(reason))];
        }
    };
    let wrong = now.iter().map(|problem| {
        let reason = format!("{} (HINT: {})", problem.message, problem.hint);
        (Some(problem.key.clone()), Verdict::Warning(reason))
    });
    let is_mended = |problem: &&Problem| !now.iter().any(|other| other.key == problem.key);
    let mended = started_with.iter().filter(is_mended).map(|problem| {
        let reason = format!(
            "{} was wrong when xdb's daemon started, and is right now (HINT: systemctl restart xdb)",
            problem.key
        );
        (Some(problem.key.clone()), Verdict::Warning(reason))
    });
    wrong.chain(mended).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(key: &str) -> Problem {
        Problem {
            key: key.to_owned(),
            message: format!("xdb.toml:1: {key} is wrong"),
            hint: "mend it".to_owned(),
        }
    }

    #[test]
    fn a_file_that_would_end_the_next_start_is_critical() {
        let error = ConfigError::Wrong {
            problems: vec![problem("postgres.port")],
        };
        let found = judge(&[], &Err(error));
        assert!(
            matches!(&found[..], [(Some(object), Verdict::Critical(reason))]
                if object == "xdb.toml" && reason.contains("postgres.port is wrong")),
            "{found:?}"
        );
    }
}
