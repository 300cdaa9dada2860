//! The one verdict on the cluster, which the command line, HTTP, Redis and the alerts show alike. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::judge::{
    PAGED, ago, finding, judge_evidence, judge_peer, judge_primaries, judge_superseded,
};
use super::{Evidence, Knowledge, Peer, Standing, View};
use crate::model::{AlertKey, Finding, Lsn, Severity, Timeline, Verdict};

/// The version of this JSON.
const VERSION: u32 = 1;

/// What a node makes of all that it knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub v: u32,
    pub cluster: String,
    /// The node that says so.
    pub reporter: String,
    pub at: Timestamp,
    /// The worst of the findings, in a word.
    pub verdict: String,
    /// What would be got back now, in a sentence.
    pub answer: String,
    pub nodes: Vec<Line>,
    /// What the answer is made from; `None` before the buckets were looked at.
    pub evidence: Option<Evidence>,
    pub findings: Vec<Finding>,
}

/// A node, as the table shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub hostname: String,
    /// `primary`, `replica` or `superseded`; `None` when it is not known.
    pub role: Option<String>,
    pub timeline: Option<Timeline>,
    /// Written by a primary, replayed by a standby.
    pub position: Option<Lsn>,
    /// A standby's, where the primary's positions are known.
    pub lag_bytes: Option<u64>,
    pub lag_secs: Option<f64>,
    /// The primary was ahead before the oldest position that is known: the lag is that or more.
    pub lag_at_least: bool,
    /// When it was last heard of.
    pub heard_at: Option<Timestamp>,
    /// Why its role is not known, or why it is not served.
    pub trouble: Option<String>,
}

/// Judges the cluster by what the node `hostname` knows.
pub fn evaluate(
    cluster: &str,
    hostname: &str,
    view: &View,
    known: &Knowledge,
    now: Timestamp,
) -> Status {
    let mut nodes = vec![line(hostname, view, now, known, now)];
    nodes.extend(known.peers.iter().map(|peer| peer_line(peer, known, now)));
    nodes.sort_by(|one, other| one.hostname.cmp(&other.hostname));

    let mut findings = judge_evidence(known.evidence.as_ref(), now);
    let primaries = judge_primaries(&nodes, view, &known.peers, now);
    findings.push(finding("primary", "", primaries));
    findings.push(finding("node", hostname, judge_superseded(view)));
    for peer in &known.peers {
        findings.push(finding("node", peer.name(), judge_peer(peer, now)));
    }
    let live = known.peers.iter().filter_map(|peer| peer.live(now));
    let alerts = known
        .alerts
        .iter()
        .chain(live.flat_map(|state| &state.alerts));
    for alert in alerts.filter_map(as_finding) {
        let told = |told: &Finding| AlertKey::of(told) == AlertKey::of(&alert);
        // What is paged from here is judged anew above.
        if !PAGED.contains(&alert.check.as_str()) && !findings.iter().any(told) {
            findings.push(alert);
        }
    }
    let verdict = Verdict::worst(findings.iter().map(|finding| &finding.verdict));
    Status {
        v: VERSION,
        cluster: cluster.to_owned(),
        reporter: hostname.to_owned(),
        at: now,
        verdict: verdict.word().to_owned(),
        answer: answer(&nodes, known.evidence.as_ref(), now),
        nodes,
        evidence: known.evidence.clone(),
        findings,
    }
}

/// `said_at` is the node's own clock, by which its sample is fresh or not.
fn line(
    hostname: &str,
    view: &View,
    said_at: Timestamp,
    known: &Knowledge,
    heard_at: Timestamp,
) -> Line {
    let in_recovery = view.in_recovery(said_at);
    let role = match (in_recovery, view.superseded_by) {
        (Some(false), Some(_)) => Some("superseded"),
        (Some(false), None) => Some("primary"),
        (Some(true), _) => Some("replica"),
        (None, _) => None,
    };
    let position = view.sample.and_then(|sample| sample.position);
    let lag = position
        .filter(|_| in_recovery == Some(true))
        .and_then(|replayed| known.positions.lag(replayed, heard_at));
    let failing = view.failing.as_ref().map(|(_, reason)| reason.clone());
    Line {
        hostname: hostname.to_owned(),
        role: role.map(str::to_owned),
        timeline: view.sample.map(|sample| sample.timeline),
        position,
        lag_bytes: lag.map(|lag| lag.bytes),
        lag_secs: lag.map(|lag| lag.time.as_secs_f64()),
        lag_at_least: lag.is_some_and(|lag| lag.at_least),
        heard_at: Some(heard_at),
        trouble: failing.filter(|_| in_recovery.is_none()),
    }
}

fn peer_line(peer: &Peer, known: &Knowledge, now: Timestamp) -> Line {
    let mut line = match &peer.heard {
        Some((at, state)) => line(&state.hostname, &state.view, state.at, known, *at),
        None => Line {
            hostname: peer.host().to_owned(),
            role: None,
            timeline: None,
            position: None,
            lag_bytes: None,
            lag_secs: None,
            lag_at_least: false,
            heard_at: None,
            trouble: None,
        },
    };
    if peer.live(now).is_none() {
        // What it was says nothing of what it is.
        (line.role, line.lag_bytes, line.lag_secs) = (None, None, None);
    }
    let failing = peer.failing.as_ref().map(|(_, reason)| reason.clone());
    line.trouble = line.trouble.or(failing);
    line
}

/// `None` for an alert whose key another version wrote.
fn as_finding(alert: &Standing) -> Option<Finding> {
    let key = AlertKey::parse(&alert.key).ok()?;
    let reason = alert.reason.clone();
    let verdict = match alert.severity {
        Severity::Critical => Verdict::Critical(reason),
        Severity::Warning => Verdict::Warning(reason),
        Severity::Unknown => Verdict::Unknown(reason),
    };
    let mut finding = Finding::new(key.check, key.scope, key.object, verdict);
    finding.runbook.clone_from(&alert.runbook);
    Some(finding)
}

/// What would be got back now.
fn answer(nodes: &[Line], evidence: Option<&Evidence>, now: Timestamp) -> String {
    let primary = nodes
        .iter()
        .find(|node| node.role.as_deref() == Some("primary"));
    let primary = primary.map_or("the primary", |node| node.hostname.as_str());
    let lost = format!("if {primary} burned down now,");
    let Some(evidence) = evidence else {
        return format!(
            "{lost} nobody knows what would be got back: the buckets were not looked at yet"
        );
    };
    let back = match &evidence.base_backup {
        Err(reason) => return format!("{lost} nobody knows what would be got back: {reason}"),
        Ok(None) => {
            return format!(
                "{lost} nothing would be got back from the archive: there is no base backup"
            );
        }
        Ok(Some(backup)) => match (&backup.unusable, backup.to) {
            (Some(reason), _) => {
                return format!("{lost} {} could not be restored: {reason}", backup.backup);
            }
            (None, Some((_, lsn, at))) => {
                format!(
                    "all up to {lsn}, archived {}, would be got back",
                    ago(at, now)
                )
            }
            (None, None) => "the base backup alone would be got back".to_owned(),
        },
    };
    let proof = match &evidence.proof {
        Ok(Some(proof)) => {
            let rto = proof.rto_secs.map_or_else(
                || "in a time that was not measured".to_owned(),
                |secs| format!("in about {secs:.1} s"),
            );
            format!("{rto}; proven {} on {}", ago(proof.at, now), proof.node)
        }
        Ok(None) => "but no restore test has proven it".to_owned(),
        Err(_) => "but its proof cannot be read".to_owned(),
    };
    format!("{lost} {back} {proof}")
}
