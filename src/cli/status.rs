//! `xdb status`: the answer first. Read from the bucket and from what this node's daemon remembers; nothing is changed.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::exit::Exit;
use super::output::say;
use crate::archive::{self, catalog};
use crate::config::{Config, Loaded};
use crate::dump;
use crate::log;
use crate::model::Run;
use crate::storage::Bucket;
use crate::store::Reader;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What would be got back now; `Err` where it could not be looked at.
#[derive(Debug, Serialize)]
struct Status {
    /// The newest base backup and the time up to which it can be recovered.
    base_backup: Result<Option<Recoverable>, String>,
    /// The newest complete set of dumps, and when it was begun.
    dump: Result<Option<(String, Timestamp)>, String>,
    /// The last restore test that was judged on this node.
    restore_test: Result<Option<Proof>, String>,
    /// Alerts of this node that stand, as `check/node/object: reason`.
    alerts: Result<Vec<String>, String>,
}

#[derive(Debug, Serialize)]
struct Recoverable {
    backup: String,
    /// When the last segment that it reaches came into the bucket; `None`: it cannot be restored.
    archived_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Proof {
    at: Timestamp,
    passed: bool,
    rto_secs: Option<f64>,
    rpo_secs: Option<f64>,
}

pub async fn run(arguments: Arguments, loaded: &Loaded) -> anyhow::Result<Exit> {
    let config = &loaded.config;
    let (restore_test, alerts) = remembered(config);
    let status = Status {
        base_backup: base_backup(config)
            .await
            .map_err(|error| log::chain(&error)),
        dump: newest_dump(config).await,
        restore_test,
        alerts,
    };
    if arguments.json {
        say(serde_json::to_string_pretty(&status)?)?;
    } else {
        let now = Timestamp::now();
        for line in lines(&status, now) {
            say(line)?;
        }
    }
    Ok(judge(&status))
}

async fn base_backup(config: &Config) -> Result<Option<Recoverable>, archive::ArchiveError> {
    let repository = archive::repository(config)?;
    let bucket = Bucket::open(&config.s3, &repository.bucket).await?;
    let catalog = catalog::read(&bucket, &repository).await?;
    Ok(catalog.newest().map(|newest| Recoverable {
        backup: newest.name.clone(),
        archived_at: catalog
            .why_unusable(newest)
            .is_none()
            .then(|| catalog.window(newest))
            .flatten()
            .map(|window| window.to),
    }))
}

async fn newest_dump(config: &Config) -> Result<Option<(String, Timestamp)>, String> {
    let listed = dump::list(config)
        .await
        .map_err(|error| log::chain(&error))?;
    let complete = listed.into_iter().rfind(|set| set.reason.is_none());
    Ok(complete.map(|set| (set.set, set.started_at)))
}

type Remembered = (Result<Option<Proof>, String>, Result<Vec<String>, String>);

fn remembered(config: &Config) -> Remembered {
    let reader = match Reader::open(&config.node.state_directory) {
        Ok(Some(reader)) => reader,
        Ok(None) => return (Ok(None), Ok(Vec::new())),
        Err(error) => return (Err(log::chain(&error)), Err(log::chain(&error))),
    };
    let reading = reader.reading();
    let runs = reading
        .runs(Some("restore-test"), 50)
        .map_err(|error| log::chain(&error));
    let alerts = reading
        .alerts()
        .map_err(|error| log::chain(&error))
        .map(|alerts| {
            let raised = alerts
                .into_iter()
                .filter(|(_, state)| state.raised_at.is_some());
            raised
                .map(|(key, state)| format!("{key}: {}", state.reason))
                .collect()
        });
    (runs.map(|runs| runs.iter().find_map(proof)), alerts)
}

/// The report that a judged run keeps; `None` for one that judged nothing.
fn proof(run: &Run) -> Option<Proof> {
    let report = &run.detail["detail"];
    let judged = !matches!(run.verdict, crate::model::Verdict::Unknown(_));
    judged.then(|| Proof {
        at: run.started_at,
        passed: report["passed"] == true,
        rto_secs: report["rto_secs"].as_f64(),
        rpo_secs: report["rpo_secs"].as_f64(),
    })
}

fn judge(status: &Status) -> Exit {
    let looked = status.base_backup.is_ok() && status.dump.is_ok() && status.alerts.is_ok();
    let good = matches!(
        &status.base_backup,
        Ok(Some(Recoverable {
            archived_at: Some(_),
            ..
        }))
    ) && matches!(&status.alerts, Ok(alerts) if alerts.is_empty())
        && !matches!(&status.restore_test, Ok(Some(proof)) if !proof.passed);
    match (looked, good) {
        (_, true) => Exit::Good,
        (true, false) => Exit::Bad,
        (false, false) => Exit::CouldNot,
    }
}

fn lines(status: &Status, now: Timestamp) -> Vec<String> {
    let ago = |at: Timestamp| format!("{} s ago", now.duration_since(at).as_secs().max(0));
    let secs = |secs: Option<f64>| {
        secs.map_or_else(|| "unknown".to_owned(), |secs| format!("{secs:.1} s"))
    };
    let mut lines = vec![match &status.base_backup {
        Ok(Some(Recoverable {
            backup,
            archived_at: Some(at),
        })) => {
            format!(
                "recoverable: {backup} and the WAL that was archived up to {}",
                ago(*at)
            )
        }
        Ok(Some(Recoverable {
            backup,
            archived_at: None,
        })) => format!("NOT recoverable: {backup} cannot be restored"),
        Ok(None) => "NOT recoverable: there is no base backup".to_owned(),
        Err(reason) => format!("recoverable: unknown: {reason}"),
    }];
    lines.push(match &status.restore_test {
        Ok(Some(proof)) => format!(
            "proven: a restore test {} {}, RTO {}, RPO {}",
            if proof.passed { "passed" } else { "FAILED" },
            ago(proof.at),
            secs(proof.rto_secs),
            secs(proof.rpo_secs)
        ),
        Ok(None) => "proven: never on this node".to_owned(),
        Err(reason) => format!("proven: unknown: {reason}"),
    });
    lines.push(match &status.dump {
        Ok(Some((set, at))) => format!("dumped: {set}, {}", ago(*at)),
        Ok(None) => "dumped: never".to_owned(),
        Err(reason) => format!("dumped: unknown: {reason}"),
    });
    match &status.alerts {
        Ok(alerts) if alerts.is_empty() => lines.push("alerts: none".to_owned()),
        Ok(alerts) => lines.extend(alerts.iter().map(|alert| format!("ALERT {alert}"))),
        Err(reason) => lines.push(format!("alerts: unknown: {reason}")),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_first_and_no_backup_is_no_good() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let at: Timestamp = "2026-11-21T11:59:30Z".parse().unwrap();
        let well = Status {
            base_backup: Ok(Some(Recoverable {
                backup: "base_1".into(),
                archived_at: Some(at),
            })),
            dump: Ok(None),
            restore_test: Ok(Some(Proof {
                at,
                passed: true,
                rto_secs: Some(1.25),
                rpo_secs: None,
            })),
            alerts: Ok(Vec::new()),
        };
        assert_eq!(
            lines(&well, now),
            [
                "recoverable: base_1 and the WAL that was archived up to 30 s ago",
                "proven: a restore test passed 30 s ago, RTO 1.2 s, RPO unknown",
                "dumped: never",
                "alerts: none"
            ]
        );
        assert_eq!(judge(&well), Exit::Good);
        let none = Status {
            base_backup: Ok(None),
            ..well
        };
        assert!(lines(&none, now)[0].starts_with("NOT recoverable"));
        assert_eq!(judge(&none), Exit::Bad);
        let away = Status {
            base_backup: Err("S3 does not answer".into()),
            ..none
        };
        assert_eq!(
            judge(&Status {
                dump: Err("too".into()),
                ..away
            }),
            Exit::CouldNot
        );
    }
}
