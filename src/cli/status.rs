//! `xdb status`: the answer first, then who says so and why.

use clap::Args;
use jiff::Timestamp;

use super::exit::Exit;
use super::output::{say, table};
use crate::cluster::{Line, Status, ago};
use crate::config::Loaded;
use crate::daemon;
use crate::model::{AlertKey, Finding, Verdict};

#[derive(Debug, Args)]
#[command(
    after_help = "The verdict is that of this node's daemon, the same that its HTTP, Redis and the alerts show; without it, of a look made now.\n\
                  Exit codes: 0 ok, 1 a warning or worse, 4 nothing worse than unknown: something could not be looked at."
)]
pub struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments, loaded: &Loaded) -> anyhow::Result<Exit> {
    let status = daemon::status(&loaded.config).await;
    if arguments.json {
        say(serde_json::to_string_pretty(&status)?)?;
    } else {
        print(&status)?;
    }
    Ok(match status.verdict.as_str() {
        "ok" => Exit::Good,
        "unknown" => Exit::CouldNot,
        _ => Exit::Bad,
    })
}

fn print(status: &Status) -> std::io::Result<()> {
    say(format_args!(
        "{}: {}",
        status.verdict.to_uppercase(),
        status.answer
    ))?;
    say("")?;
    let header = ["NODE", "ROLE", "TIMELINE", "POSITION", "BEHIND", "SEEN"];
    let rows = status.nodes.iter().map(|line| row(line, status.at));
    say(table(&header, &[2], rows).trim_fmt())?;
    for line in &status.nodes {
        if let Some(trouble) = &line.trouble {
            say(format_args!("{}: {trouble}", line.hostname))?;
        }
    }
    say("")?;
    for line in evidence(status) {
        say(line)?;
    }
    let bad = |finding: &&Finding| finding.verdict != Verdict::Ok;
    let bad: Vec<_> = status.findings.iter().filter(bad).collect();
    if bad.is_empty() {
        say("alerts       none")?;
    }
    for finding in bad {
        say(alert(finding))?;
    }
    Ok(())
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
    let secs = |secs: Option<f64>| {
        secs.map_or_else(|| "unknown".to_owned(), |secs| format!("{secs:.1} s"))
    };
    let recoverable = match &evidence.base_backup {
        Ok(Some(backup)) => match backup.to {
            Some((timeline, lsn, at)) => format!(
                "{} to {lsn} on timeline {timeline}, archived {}",
                backup.backup,
                ago(at, status.at)
            ),
            None => backup.backup.clone(),
        },
        Ok(None) => "nothing".to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    let proven = match &evidence.proof {
        Ok(Some(proof)) => format!(
            "{}: a restore test passed on {}, RTO {}, RPO {}",
            ago(proof.at, status.at),
            proof.node,
            secs(proof.rto_secs),
            secs(proof.rpo_secs)
        ),
        Ok(None) => "never".to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    let dumped = match &evidence.dump {
        Ok(Some(dump)) => format!("{}: {}", ago(dump.at, status.at), dump.set),
        Ok(None) => "never".to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    vec![
        format!("recoverable  {recoverable}"),
        format!("proven       {proven}"),
        format!("dumped       {dumped}"),
    ]
}

fn alert(finding: &Finding) -> String {
    let key = AlertKey::of(finding);
    let reason = finding.verdict.reason().unwrap_or_default();
    let runbook = finding.runbook.as_deref();
    let see = runbook.map_or_else(String::new, |runbook| format!(" ({runbook})"));
    format!(
        "{:<12} {key}: {reason}{see}",
        finding.verdict.word().to_uppercase()
    )
}
