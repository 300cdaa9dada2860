//! `xdb status`: the answer first, then who says so and why.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::check::judge_exit;
use super::exit::Exit;
use super::handles::Handles;
use super::output::{say, table};
use super::watch;
use crate::cluster::{Evidence, Line, Marked, Status, in_time, is_range, proven, since_proof};
use crate::daemon;
use crate::model::{AlertKey, Finding, Verdict, ago};

#[derive(Debug, Args)]
#[command(
    after_help = "The verdict is that of this node's daemon, the same that its HTTP, Redis and the alerts show; without the daemon, of a check made now.\n\
                  Exit codes: 0 ok, 1 a warning or worse, 4 nothing worse than unknown: something could not be checked."
)]
pub(crate) struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Print it again with the time, each so many seconds (2 without a number) until interrupted; in place on a terminal
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600),
        conflicts_with = "json"
    )]
    watch: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let look = async || daemon::status(handles.config(), &handles.repository).await;
    if let Some(secs) = arguments.watch {
        return watch::repeat(Duration::from_secs(secs), async || lines(&look().await)).await;
    }
    let status = look().await;
    if arguments.json {
        say(serde_json::to_string_pretty(&status)?)?;
    } else {
        say(lines(&status).join("\n"))?;
    }
    // Not by the one worst verdict: a warning that stands counts, whatever else is unknown.
    Ok(judge_exit(
        status.findings.iter().map(|finding| &finding.verdict),
    ))
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![
        format!("{}: {}", status.verdict.to_uppercase(), status.answer),
        String::new(),
    ];
    let header = ["NODE", "ROLE", "TIMELINE", "POSITION", "BEHIND", "SEEN"];
    let rows = status.nodes.iter().map(|line| row(line, status.at));
    let table = table(&header, &[2], rows).trim_fmt();
    lines.extend(table.lines().map(str::to_owned));
    let troubled = status.nodes.iter().filter_map(|line| {
        let trouble = line.trouble.as_ref()?;
        Some(format!("{}: {trouble}", line.hostname))
    });
    lines.extend(troubled);
    lines.push(String::new());
    lines.extend(evidence(status));
    let bad = |finding: &&Finding| finding.verdict != Verdict::Ok;
    let bad: Vec<_> = status.findings.iter().filter(bad).collect();
    if bad.is_empty() {
        lines.push("alerts       none".to_owned());
    }
    lines.extend(
        bad.into_iter()
            .map(|finding| alert(finding, &status.marked)),
    );
    lines
}

fn row(line: &Line, now: Timestamp) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let behind = line.lag_bytes.zip(line.lag_secs).map(|(bytes, secs)| {
        let least = if line.lag_at_least { "at least " } else { "" };
        format!("{}, {least}{secs:.1} s", bytesize::ByteSize(bytes))
    });
    vec![
        line.hostname.clone(),
        line.role.clone().unwrap_or_else(|| "unknown".to_owned()),
        or_dash(line.timeline.map(|timeline| timeline.to_string())),
        or_dash(line.position.map(|lsn| lsn.to_string())),
        or_dash(behind),
        line.heard_at
            .map_or_else(|| "never".to_owned(), |at| ago(at, now)),
    ]
}

fn evidence(status: &Status) -> Vec<String> {
    let Some(evidence) = &status.evidence else {
        return Vec::new();
    };
    let unread = |error: &Option<String>| {
        let error = error.as_ref();
        error.map_or_else(String::new, |error| format!(" (not read now: {error})"))
    };
    let recoverable = match (&evidence.base_backup, &evidence.base_backup_error) {
        (None, None) => "nothing: there is no base backup".to_owned(),
        (None, Some(_)) => "unknown".to_owned(),
        (Some(backup), error) => {
            let to = backup.to.map_or_else(String::new, |to| {
                format!(
                    " to {} on timeline {}, archived {}",
                    to.lsn,
                    to.timeline,
                    ago(to.archived_at, status.at)
                )
            });
            format!("{}{to}{}", backup.backup, unread(error))
        }
    };
    let dumped = match (&evidence.dump, &evidence.dump_error) {
        (None, None) => "never".to_owned(),
        (None, Some(_)) => "unknown".to_owned(),
        (Some(dump), error) => {
            let partial = dump.newer_partial.as_ref();
            let partial = partial.map_or_else(String::new, |set| {
                format!(" (partial and newer, which does not count: {set})")
            });
            let ago = ago(dump.at, status.at);
            format!("{ago}: {}{partial}{}", dump.set, unread(error))
        }
    };
    vec![
        format!("recoverable  {recoverable}"),
        format!("rpo          {}", rpo(status)),
        format!("rto          {}", rto(status)),
        format!("proven       {}", proven_words(status, evidence)),
        format!("dumped       {dumped}"),
    ]
}

fn rpo(status: &Status) -> String {
    let rpo = &status.rpo;
    let most = if rpo.at_most { "at most " } else { "" };
    let live = match rpo.secs {
        None => "unknown".to_owned(),
        Some(0.0) => "0 s: the bucket holds every commit".to_owned(),
        Some(secs) => format!(
            "{most}{}: the age of the oldest commit that is not archived",
            in_time(secs)
        ),
    };
    let reason = rpo.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{live}{reason}")
}

fn rto(status: &Status) -> String {
    let rto = &status.rto;
    let forecast = match (rto.secs, rto.low_secs, rto.high_secs) {
        (None, ..) => return format!("unknown: {}", rto.based_on),
        (Some(_), Some(low), Some(high)) if is_range(low, high) => {
            format!("{} to {}", in_time(low), in_time(high))
        }
        (Some(secs), ..) => format!("about {}", in_time(secs)),
    };
    format!("{forecast} for a restore from now, by {}", rto.based_on)
}

fn proven_words(status: &Status, evidence: &Evidence) -> String {
    let secs = |secs: Option<f64>| {
        secs.map_or_else(|| "unknown".to_owned(), |secs| format!("{secs:.1} s"))
    };
    let Some(proof) = &evidence.proof else {
        let error = evidence.proof_error.as_ref();
        return error.map_or_else(|| "never".to_owned(), |_| "unknown".to_owned());
    };
    let mut words = format!(
        "{}: a restore test passed on {}, RTO {}, RPO {}{}",
        ago(proof.at, status.at),
        proof.node,
        secs(proof.rto_secs),
        secs(proof.rpo_secs),
        proven(proof)
    );
    let to = evidence.base_backup.as_ref().and_then(|backup| backup.to);
    if let Some(since) = since_proof(proof, to) {
        words = format!("{words}; {since}");
    }
    if proof.newest_backup_proven == Some(false)
        && let Some(newest) = &evidence.base_backup
    {
        let newest = &newest.backup;
        words = format!("{words}; the newest base backup {newest} has no passed restore test");
    }
    words
}

fn alert(finding: &Finding, marked: &[Marked]) -> String {
    let key = AlertKey::of(finding).to_string();
    let reason = finding.verdict.reason().unwrap_or_default();
    let runbook = finding.runbook.as_deref();
    let see = runbook.map_or_else(String::new, |runbook| format!(" ({runbook})"));
    let marks = marked.iter().find(|marked| marked.alert == key);
    let marks = marks.map_or_else(String::new, |marked| format!(" [{}]", marked.marks));
    format!(
        "{:<12} {key}: {reason}{see}{marks}",
        finding.verdict.word().to_uppercase()
    )
}
