//! The verdict for a command line: this node's daemon's own, or made from a look of its own where that is away.

use std::path::Path;

use jiff::Timestamp;

use super::evidence::{self, Fetched};
use super::rpo;
use crate::cluster::{self, Knowledge, ServerSampler, Standing, Status, View, evaluate};
use crate::config::Config;
use crate::log;
use crate::model::{Finding, Scope, Supersession, Verdict};
use crate::repository::RepositoryHandle;
use crate::runner::ask_peers;
use crate::store::{Reader, StateFiles, StoreError};

/// Asks the daemon; without it the cluster is judged by one look, and that it is away is the first finding.
pub(crate) async fn status(config: &Config, repository: &RepositoryHandle) -> Status {
    let address = cluster::own_address(&config.http.listen);
    match cluster::ask_status(&address).await {
        Ok(status) => status,
        Err(error) => without_daemon(config, repository, &error.to_string()).await,
    }
}

async fn without_daemon(config: &Config, repository: &RepositoryHandle, away: &str) -> Status {
    let hostname = &config.node.hostname;
    let identifier = own_view(config).await.sample;
    let identifier = identifier.map(|sample| sample.system_identifier);
    let mut fetched = Fetched::default();
    let evidence = evidence::look(config, repository, None, identifier, &mut fetched).await;
    // After S3, which may take its time: a role is known by what was seen just now.
    let (view, peers) = tokio::join!(own_view(config), ask_peers(&config.cluster, hostname));
    let mut known = Knowledge {
        peers,
        evidence: Some(evidence),
        objectives: rpo::objectives(&config.archive, &config.restore_test),
        ..Knowledge::default()
    };
    known.rpo = rpo::measure_once(config, repository, &view, &known).await;
    let away = format!(
        "xdb's daemon does not answer on this node, so nothing is watched here: {away}; see systemctl status xdb"
    );
    let mut findings = vec![found(hostname, "daemon", Verdict::Critical(away))];
    match alerts(&config.node.state_directory) {
        Ok(alerts) => known.alerts = alerts,
        Err(error) => {
            let verdict = Verdict::Unknown(log::chain(&error));
            findings.push(found(hostname, "alerts", verdict));
        }
    }
    let now = Timestamp::now();
    let mut status = evaluate(&config.cluster.name, hostname, &view, &known, now);
    findings.append(&mut status.findings);
    let verdicts = findings.iter().map(|finding| &finding.verdict);
    Status {
        verdict: Verdict::worst(verdicts).word().to_owned(),
        findings,
        ..status
    }
}

fn found(hostname: &str, check: &str, verdict: Verdict) -> Finding {
    let scope = Scope::Node(hostname.to_owned());
    Finding::new(check, scope, "", verdict)
}

async fn own_view(config: &Config) -> View {
    let mut view = View::default();
    match ServerSampler::new(&config.postgres).sample().await {
        Ok(sample) => {
            view.record_sample(sample);
            if let Some(proof) = remembered(&config.node.state_directory) {
                view.remember(proof);
            }
        }
        Err(failure) => view.failed(failure, Timestamp::now()),
    }
    view
}

/// The proof of another node's promotion that this node's daemon kept.
fn remembered(state_directory: &Path) -> Option<Supersession> {
    let files = StateFiles::of(state_directory);
    let proof = files.supersession()?;
    let of = (proof.system_identifier, proof.timeline);
    let mut forgotten = files.forgotten().into_iter();
    let is_forgotten = forgotten.any(|one| one.covers(of.0, of.1, Some(&proof.history)));
    (!is_forgotten).then_some(proof)
}

fn alerts(state_directory: &Path) -> Result<Vec<Standing>, StoreError> {
    let Some(reader) = Reader::open(state_directory)? else {
        return Ok(Vec::new());
    };
    Ok(Standing::of(&reader.reading().alerts()?))
}
