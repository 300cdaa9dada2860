//! Judges each part of the cluster for [`super::evaluate`]. Pure.

use jiff::{SignedDuration, Timestamp};

use super::rpo::in_time;
use super::{Evidence, Line, Objectives, Peer, Recoverable, RepositoryFaults, TimelinesSeen, View};
use crate::model::{Finding, Scope, Verdict, ago};

/// Older evidence is none: the look at the buckets hangs.
pub(super) const STALE: SignedDuration = SignedDuration::from_mins(15);

/// The checks of [`super::evaluate`] that become alerts themselves; other checks and jobs raise theirs.
pub(crate) const PAGED: [&str; 8] = [
    "recoverability",
    "archive-rpo",
    "restore-objective",
    "wal-gap",
    "foreign-backup",
    "backup-incomplete",
    "primary",
    "node",
];

pub(super) fn finding(check: &str, object: &str, verdict: Verdict) -> Finding {
    let mut finding = Finding::new(check, Scope::Cluster, object, verdict);
    if PAGED.contains(&check) {
        finding.runbook = Some(format!("runbooks/{check}.md"));
    }
    finding
}

pub(super) fn judge_evidence(evidence: Option<&Evidence>, now: Timestamp) -> Vec<Finding> {
    let unknown = |reason: &str| Verdict::Unknown(reason.to_owned());
    let verdicts = match evidence {
        None => [(); 3].map(|()| unknown("the buckets have not been checked yet")),
        Some(evidence) if now.duration_since(evidence.at) > STALE => {
            let reason = format!("the buckets were last checked {}", ago(evidence.at, now));
            [(); 3].map(|()| unknown(&reason))
        }
        Some(evidence) => {
            let Evidence { proof, dump, .. } = evidence;
            let (proof_error, dump_error) = (&evidence.proof_error, &evidence.dump_error);
            [
                match &evidence.base_backup_error {
                    Some(reason) => unknown(reason),
                    None => judge_backup(evidence.base_backup.as_ref()),
                },
                judge_presence(
                    proof.as_ref(),
                    proof_error.as_deref(),
                    "no restore test has passed yet",
                ),
                judge_presence(
                    dump.as_ref(),
                    dump_error.as_deref(),
                    "there is no complete dump",
                ),
            ]
        }
    };
    let checks = ["recoverability", "proof", "dump"];
    let judged = checks.into_iter().zip(verdicts);
    // That the bucket could not be read is one finding, above; an alert on these stays as it is.
    let faults = evidence.and_then(|evidence| evidence.faults.as_ref());
    let doubted = faults.into_iter().flat_map(judge_doubts);
    judged
        .chain(doubted)
        .map(|(check, verdict)| finding(check, "", verdict))
        .collect()
}

/// Whether a restore from now meets its objective: ok where none is wanted, or the tests were held back, so that an alert
/// of before ends; nothing where the forecast is unknown.
pub(super) fn judge_forecast(
    evidence: Option<&Evidence>,
    objectives: &Objectives,
) -> Option<Finding> {
    let ok = || Some(finding("restore-objective", "forecast", Verdict::Ok));
    let Some(objective) = objectives.rto else {
        return ok();
    };
    let objective = objective.as_secs_f64();
    let forecast = evidence?.forecast.as_ref()?;
    if forecast.throttled {
        return ok();
    }
    let secs = forecast.secs?;
    let verdict = if secs > objective {
        Verdict::Warning(format!(
            "a restore from now takes about {}, over its objective of {}",
            in_time(secs),
            in_time(objective)
        ))
    } else {
        Verdict::Ok
    };
    let mut finding = finding("restore-objective", "forecast", verdict);
    (finding.value, finding.threshold) = (Some(secs), Some(objective));
    Some(finding)
}

fn judge_doubts(faults: &RepositoryFaults) -> [(&'static str, Verdict); 3] {
    let verdict = |doubt: &Option<String>, bad: fn(String) -> Verdict| {
        let doubt = doubt.clone();
        doubt.map_or(Verdict::Ok, bad)
    };
    [
        ("wal-gap", verdict(&faults.gap, Verdict::Warning)),
        (
            "foreign-backup",
            verdict(&faults.foreign, Verdict::Critical),
        ),
        (
            "backup-incomplete",
            verdict(&faults.incomplete, Verdict::Warning),
        ),
    ]
}

fn judge_backup(base_backup: Option<&Recoverable>) -> Verdict {
    let Some(backup) = base_backup else {
        return Verdict::Critical("there is no base backup".to_owned());
    };
    if let Some(reason) = &backup.unusable {
        return Verdict::Critical(format!("{} cannot be restored: {reason}", backup.backup));
    }
    let Some(gap) = &backup.gap else {
        return Verdict::Ok;
    };
    let to = backup.to;
    let to = to.map_or_else(String::new, |to| format!("; it ends at {}", to.lsn));
    match &backup.acknowledged {
        None => Verdict::Critical(format!("WAL is missing: {gap}{to}")),
        Some(acknowledged) => {
            Verdict::Warning(format!("WAL is missing: {gap}{to}; {acknowledged}"))
        }
    }
}

fn judge_presence<T>(found: Option<&T>, error: Option<&str>, absent: &str) -> Verdict {
    match (error, found) {
        (Some(reason), _) => Verdict::Unknown(reason.to_owned()),
        (None, None) => Verdict::Warning(absent.to_owned()),
        (None, Some(_)) => Verdict::Ok,
    }
}

/// One primary, and one cluster.
pub(super) fn judge_primaries(
    nodes: &[Line],
    (hostname, view): (&str, &View),
    peers: &[Peer],
    now: Timestamp,
) -> Verdict {
    let own = view.sample.map(|sample| sample.system_identifier);
    for peer in peers {
        let sample = peer.live(now).and_then(|state| state.view.sample);
        let theirs = sample.map(|sample| sample.system_identifier);
        if let (Some(own), Some(theirs)) = (own, theirs)
            && own != theirs
        {
            return Verdict::Critical(format!(
                "{} is of another cluster: its system identifier is {theirs}, this node's {own}",
                peer.name()
            ));
        }
    }
    let led: Vec<&Line> = nodes
        .iter()
        .filter(|node| node.role.as_deref() == Some("primary"))
        .collect();
    // What a server was before it stopped answering is no second primary beside one that answers.
    let silent = silent_nodes(view, peers, hostname);
    let answers = |node: &&&Line| !silent.contains(&node.hostname.as_str());
    let any_answers = led.iter().any(|node| answers(&node));
    let primaries: Vec<&str> = led
        .iter()
        .filter(|node| answers(node) || !any_answers)
        .map(|node| node.hostname.as_str())
        .collect();
    let unreachable = |name: &str| {
        let mut peers = peers.iter().filter(|peer| peer.name() == name);
        peers.find_map(|peer| peer.unreachable(now))
    };
    match primaries.as_slice() {
        [one] => unreachable(one).map_or(Verdict::Ok, |reason| {
            Verdict::Critical(format!(
                "{one} is the primary and cannot be reached: {reason}"
            ))
        }),
        // No peer to ask: only by its stream can a replica tell whether it has a primary.
        [] if peers.is_empty() && view.in_recovery(now) == Some(true) => Verdict::Ok,
        [] => {
            let roles = nodes.iter().map(|node| {
                let role = node.role.as_deref().unwrap_or("of no known role");
                format!("{} is {role}", node.hostname)
            });
            let roles: Vec<_> = roles.collect();
            let told = roles.join(", ");
            if let Some(reason) = lost_primary(view, peers, now) {
                Verdict::Critical(format!("there is no primary: {told}; {reason}"))
            } else if nodes.iter().any(|node| node.role.is_none()) {
                Verdict::Unknown(format!("no primary is known: {told}"))
            } else {
                Verdict::Critical(format!("there is no primary: {told}"))
            }
        }
        several => Verdict::Critical(format!(
            "{} are primaries at once: stop all but one before anything is written",
            several.join(" and ")
        )),
    }
}

/// Why the node that led last does so no more, where that is known.
fn lost_primary(view: &View, peers: &[Peer], now: Timestamp) -> Option<String> {
    let down = |view: &View| {
        let failing = view
            .failing
            .as_ref()
            .filter(|_| view.led_last() && view.down)?;
        Some(format!(
            "PostgreSQL on the last primary is down: {}",
            failing.1
        ))
    };
    let live = peers.iter().filter_map(|peer| peer.live(now));
    down(view).or_else(|| live.map(|state| &state.view).find_map(down))
}

/// Nodes whose server, or whose daemon, does not answer at the moment.
fn silent_nodes<'a>(view: &View, peers: &'a [Peer], hostname: &'a str) -> Vec<&'a str> {
    let failing = |peer: &&Peer| {
        let heard = peer.last_answer.as_ref();
        peer.failing.is_some() || heard.is_some_and(|(_, state)| state.view.failing.is_some())
    };
    let own = view.failing.is_some().then_some(hostname);
    own.into_iter()
        .chain(peers.iter().filter(failing).map(Peer::name))
        .collect()
}

/// Timelines that prove nothing: they supersede no server, and an operator must look at them.
pub(super) fn judge_timelines(seen: &TimelinesSeen) -> Vec<Finding> {
    let doubtful: Vec<_> = seen
        .doubtful
        .iter()
        .map(|(timeline, reason)| {
            format!("the archive holds timeline {timeline}, which is not this cluster's: {reason}")
        })
        .collect();
    let mut findings = Vec::new();
    if !doubtful.is_empty() {
        let verdict = Verdict::Critical(doubtful.join("; "));
        findings.push(finding("foreign-backup", "timeline", verdict));
    }
    if !seen.claimed.is_empty() {
        let verdict = Verdict::Warning(seen.claimed.join("; "));
        findings.push(finding("foreign-backup", "redis", verdict));
    }
    findings
}

pub(super) fn judge_superseded(view: &View) -> Verdict {
    view.superseded_by.map_or(Verdict::Ok, |timeline| {
        Verdict::Critical(format!(
            "timeline {timeline} exists and this server is not on it: it must rejoin as a replica"
        ))
    })
}

pub(super) fn judge_peer(peer: &Peer, now: Timestamp) -> Verdict {
    if let Some(state) = peer.live(now) {
        return judge_superseded(&state.view);
    }
    let why = match &peer.failing {
        Some((_, reason)) => reason.as_str(),
        None => "it was not asked yet",
    };
    match &peer.last_answer {
        Some((at, _)) => Verdict::Critical(format!(
            "{} was last heard of {}: {why}",
            peer.name(),
            ago(*at, now)
        )),
        None => Verdict::Unknown(format!("{} was never heard of: {why}", peer.name())),
    }
}
