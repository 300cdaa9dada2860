//! The one verdict on the cluster, which the command line, HTTP, Redis and the alerts show alike. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::headline::answer;
use super::judge::{
    PAGED, finding, judge_evidence, judge_forecast, judge_peer, judge_primaries, judge_superseded,
    judge_timelines,
};
use super::rpo::{LiveRpo, judge_rpo, live_rpo};
use super::{ArchiveEnd, Evidence, Knowledge, Line, Peer, RestoreForecast, Standing, View};
use crate::model::{AlertKey, AlertMarks, Finding, Scope, Severity, Verdict};

/// The version of this JSON.
const VERSION: u32 = 1;

/// What a node makes of all that it knows: the document of `/api/status` and `xdb status --json`, which the README describes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub v: u32,
    pub cluster: String,
    /// The node that says so.
    pub reporter: String,
    pub at: Timestamp,
    /// The worst of the findings, in a word.
    pub verdict: String,
    /// What a restore gives if the primary is lost now, in a sentence.
    pub answer: String,
    pub nodes: Vec<Line>,
    pub rpo: LiveRpo,
    pub rto: LiveRto,
    /// What the answer is made from; `None` before the buckets were checked.
    pub evidence: Option<Evidence>,
    pub findings: Vec<Finding>,
    /// Which of the findings are alerts that are silenced, acknowledged or follow from another. They count all the same.
    #[serde(default)]
    pub marked: Vec<Marked>,
}

/// An alert with what people decided about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marked {
    /// `{check}/{node or "cluster"}/{object}`.
    pub alert: String,
    #[serde(flatten)]
    pub marks: AlertMarks,
}

/// How long a restore from now takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LiveRto {
    /// The forecast; `None` where it is not known.
    pub secs: Option<f64>,
    /// The range that the restore tests allow.
    pub low_secs: Option<f64>,
    pub high_secs: Option<f64>,
    /// The restore tests that it rests on, or why it is not known.
    pub based_on: String,
    /// What the newest restore test that passed has measured, and when.
    pub measured_secs: Option<f64>,
    pub measured_at: Option<Timestamp>,
    /// `restore_test.rto_objective`.
    pub objective_secs: Option<f64>,
}

/// The name under which an alert stands of the only peer that was not heard since the daemon began: by its address, the same
/// silence would be a second alert. `None` where it is not clear which alert that is.
fn name_before_restart(hostname: &str, known: &Knowledge) -> Option<String> {
    let unheard = known.peers.iter().filter(|peer| peer.last_answer.is_none());
    let is_known =
        |name: &str| name == hostname || known.peers.iter().any(|peer| peer.name() == name);
    let keys = known.alerts.iter();
    let keys = keys.filter_map(|alert| AlertKey::parse(&alert.key).ok());
    let mut names = keys
        .filter(|key| key.check == "node" && key.scope == Scope::Cluster && !is_known(&key.object))
        .map(|key| key.object);
    let name = names.next()?;
    (unheard.count() == 1 && names.next().is_none()).then_some(name)
}

/// Judges the cluster by what the node `hostname` knows.
pub(crate) fn evaluate(
    cluster: &str,
    hostname: &str,
    view: &View,
    known: &Knowledge,
    now: Timestamp,
) -> Status {
    let mut nodes = vec![line(hostname, view, now, known, now)];
    nodes.extend(known.peers.iter().map(|peer| peer_line(peer, known, now)));
    nodes.sort_by(|one, other| one.hostname.cmp(&other.hostname));

    let evidence = known.evidence.as_ref();
    let rpo = live_rpo(view, known, now);
    let rto = live_rto(known);
    let mut findings = judge_evidence(evidence, now);
    // A replica that was told of no peers cannot ask its primary, and does not speak for the cluster.
    let alone = known.peers.is_empty() && view.in_recovery(now) == Some(true);
    let rpo_verdict = judge_rpo(&rpo, evidence).filter(|_| !alone);
    findings.extend(rpo_verdict.map(|verdict| {
        let mut finding = finding("archive-rpo", "", verdict);
        (finding.value, finding.threshold) = (rpo.secs, rpo.warning_secs);
        finding
    }));
    findings.extend(judge_forecast(evidence, &known.objectives));
    let primaries = judge_primaries(&nodes, (hostname, view), &known.peers, now);
    findings.push(finding("primary", "", primaries));
    findings.extend(judge_timelines(&known.timelines));
    findings.push(finding("node", hostname, judge_superseded(view)));
    let before_restart = name_before_restart(hostname, known);
    for peer in &known.peers {
        let unheard = before_restart
            .as_deref()
            .filter(|_| peer.last_answer.is_none());
        let name = unheard.unwrap_or_else(|| peer.name());
        findings.push(finding("node", name, judge_peer(peer, now)));
    }
    let live = known.peers.iter().filter_map(|peer| peer.live(now));
    let alerts = known
        .alerts
        .iter()
        .chain(live.flat_map(|state| &state.alerts));
    let marked = alerts.clone().filter_map(marked).collect();
    for alert in alerts.filter_map(as_finding) {
        let told = |told: &Finding| AlertKey::of(told) == AlertKey::of(&alert);
        // What is paged from here was judged above; a node's own finding of the same check was not.
        let paged = alert.scope == Scope::Cluster && PAGED.contains(&alert.check.as_str());
        if !paged && !findings.iter().any(told) {
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
        answer: answer(&nodes, evidence, archive_end(view, known), &rpo, now),
        nodes,
        rpo,
        rto,
        evidence: known.evidence.clone(),
        findings,
        marked,
    }
}

/// The newest end of the archive that is known: the node that leads looks for it more often than at the buckets as a whole.
pub(crate) fn archive_end(view: &View, known: &Knowledge) -> Option<ArchiveEnd> {
    let listed = known.evidence.as_ref()?.base_backup.as_ref()?.to;
    let own = known.rpo.as_ref().filter(|_| view.led_last());
    let measured = own.and_then(|rpo| rpo.archived);
    let key = |end: &ArchiveEnd| (end.timeline, end.lsn);
    listed.into_iter().chain(measured).max_by_key(key)
}

fn live_rto(known: &Knowledge) -> LiveRto {
    let evidence = known.evidence.as_ref();
    let forecast = evidence.and_then(|evidence| evidence.forecast.as_ref());
    let proof = evidence.and_then(|evidence| evidence.proof.as_ref());
    let of = |secs: fn(&RestoreForecast) -> Option<f64>| forecast.and_then(secs);
    let unknown = || "no base backup is known to be recoverable".to_owned();
    LiveRto {
        secs: of(|forecast| forecast.secs),
        low_secs: of(|forecast| forecast.low_secs),
        high_secs: of(|forecast| forecast.high_secs),
        based_on: forecast.map_or_else(unknown, |forecast| forecast.based_on.clone()),
        measured_secs: proof.and_then(|proof| proof.rto_secs),
        measured_at: proof.map(|proof| proof.at),
        objective_secs: known.objectives.rto.map(|rto| rto.as_secs_f64()),
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

/// A position that was heard longer ago says nothing of how far the standby is behind now.
const LAG_COUNTS: SignedDuration = SignedDuration::from_secs(10);

fn peer_line(peer: &Peer, known: &Knowledge, now: Timestamp) -> Line {
    let mut line = match &peer.last_answer {
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
    // What it was says nothing of what it is.
    if peer.live(now).is_none() {
        line.role = None;
    }
    let age = line.heard_at.map(|at| now.duration_since(at));
    if line.role.is_none() || age.is_none_or(|age| age > LAG_COUNTS) {
        (line.lag_bytes, line.lag_secs) = (None, None);
    }
    let failing = peer.failing.as_ref().map(|(_, reason)| reason.clone());
    line.trouble = line.trouble.or(failing);
    line
}

fn marked(alert: &Standing) -> Option<Marked> {
    let marked = || Marked {
        alert: alert.key.clone(),
        marks: alert.marks.clone(),
    };
    (!alert.marks.is_empty()).then(marked)
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
