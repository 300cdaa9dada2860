//! Calls a job's `heartbeat` URL after each success, so that a dead man's switch outside of this network hears of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::Node;
use crate::config::{Endpoint, HEARTBEAT, Heartbeat};
use crate::jobs::Job;
use crate::log;
use crate::webhook::{self, Call};

/// Before each attempt.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// As the check `alert-delivery` names it.
fn name_of(job: &Job) -> String {
    format!("{HEARTBEAT}{}", job.name)
}

/// Whether the job of this name has a URL.
pub(crate) fn has_heartbeat(settings: &Heartbeat, job: &str) -> bool {
    url_of(settings, job).is_some()
}

fn url_of<'a>(settings: &'a Heartbeat, job: &str) -> Option<&'a Endpoint> {
    let url = match job {
        "base-backup" => &settings.base_backup,
        "dump" => &settings.dump,
        "restore-test" => &settings.restore_test,
        "dump-test" => &settings.dump_test,
        "prune" => &settings.prune,
        "dump-prune" => &settings.dump_prune,
        _ => return None,
    };
    url.as_ref()
}

/// Calls the URL of `job` once; its success does not depend on it.
pub(super) async fn beat(node: Arc<Node>, job: &'static Job) {
    let Some(url) = url_of(&node.tools.loaded.config.heartbeat, job.name) else {
        return;
    };
    let mut failure = None;
    for pause in PAUSES {
        sleep(pause).await;
        match webhook::call(url, &Call::default()).await {
            Ok(()) => {
                failure = None;
                break;
            }
            Err(error) => failure = Some(error),
        }
    }
    let reason = failure.map(|error| format!("{}; HINT: {}", log::chain(&error), error.hint()));
    if let Some(reason) = &reason {
        tracing::warn!(
            job = job.name,
            "the call of its heartbeat URL failed: {reason}"
        );
    }
    let receivers = &node.outages.receivers;
    receivers.noted(&name_of(job), reason, Timestamp::now());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JOBS;

    #[test]
    fn every_job_that_is_kept_in_the_history_has_a_url() {
        let settings = |name: &str| Some(Endpoint::Url(format!("http://{name}.example").into()));
        let settings = Heartbeat {
            base_backup: settings("base-backup"),
            dump: settings("dump"),
            restore_test: settings("restore-test"),
            dump_test: settings("dump-test"),
            prune: settings("prune"),
            dump_prune: settings("dump-prune"),
        };
        for job in JOBS {
            assert_eq!(
                url_of(&settings, job.name).is_some(),
                job.is_cluster_wide,
                "{}",
                job.name
            );
        }
    }
}
