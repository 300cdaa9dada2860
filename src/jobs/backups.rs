//! `base-backup`, `dump` and `restore-test`: what their verbs do, as one finding each.

use serde_json::{Value, json};

use super::{Job, Worked};
use crate::archive;
use crate::config::{Config, Loaded};
use crate::dump::{self, DumpError};
use crate::log;
use crate::model::Verdict;
use crate::restore::{self, Conclusion, Options};

pub(super) async fn base_backup(config: &Config) -> Worked {
    match archive::push(config, false).await {
        Ok(pushed) => Worked::of(Job::BaseBackup, config, Verdict::Ok, json!(pushed)),
        Err(error) => Worked::of(
            Job::BaseBackup,
            config,
            Verdict::Unknown(log::chain(&error)),
            Value::Null,
        ),
    }
}

pub(super) async fn dump(config: &Config) -> Worked {
    match dump::push(config, &[]).await {
        Ok(set) => Worked::of(
            Job::Dump,
            config,
            Verdict::Ok,
            json!({ "set": set.set, "bytes": set.bytes() }),
        ),
        Err(error) => {
            let reason = log::chain(&error);
            // The program's own bad end is a verdict on the database, all else is a look that failed.
            let verdict = match error {
                DumpError::Failed { .. } => Verdict::Critical(reason),
                _ => Verdict::Unknown(reason),
            };
            Worked::of(Job::Dump, config, verdict, Value::Null)
        }
    }
}

pub(super) async fn restore_test(loaded: &Loaded) -> Worked {
    let report = restore::run(loaded, &Options::default(), &mut |_| {}).await;
    let reason = || report.reason.clone().unwrap_or_default();
    let verdict = match report.conclusion {
        Conclusion::Passed => Verdict::Ok,
        Conclusion::Failed => Verdict::Critical(reason()),
        Conclusion::Refused | Conclusion::NotRun => Verdict::Unknown(reason()),
    };
    let lacked_prerequisite = report.conclusion == Conclusion::NotRun && report.nothing_to_restore;
    let detail = serde_json::to_value(&report).unwrap_or_default();
    Worked {
        lacked_prerequisite,
        ..Worked::of(Job::RestoreTest, &loaded.config, verdict, detail)
    }
}
