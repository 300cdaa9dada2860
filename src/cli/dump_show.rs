//! `xdb dump show`: all that is known of one dump set.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, say_each, table};
use crate::dump::{self, DumpSet, Dumps, Listed, SetTest, Status};
use crate::restore::RestoreError;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the set is complete, 1 it is damaged, its test failed, or it was never finished, 4 there is none, or the bucket cannot be read."
)]
pub(crate) struct Arguments {
    /// The set to show, by default the newest complete one of every database
    #[arg(value_name = "NAME")]
    set: Option<String>,
    /// Print the set as JSON
    #[arg(long)]
    json: bool,
}

/// The JSON of `xdb dump show --json`.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    listed: &'a Listed,
    /// Sets that are newer than the one that is shown by default, and why none of them is.
    newer: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let dumps = handles.dumps().await?;
    let listed = dump::list(&dumps).await?;
    let (chosen, newer) = choose(arguments.set.as_deref(), &listed, &dumps)?;
    let shown = Shown {
        listed: chosen,
        newer,
    };
    if arguments.json {
        say(serde_json::to_string_pretty(&shown)?)?;
    } else {
        print(&shown)?;
    }
    if chosen.status == Status::Complete {
        return Ok(Exit::Good);
    }
    let reason = chosen.reason.as_deref().unwrap_or_default();
    let hint = "`xdb dump list` shows the other sets";
    complain(&format!("{}: {reason}", chosen.set), Some(hint));
    Ok(match chosen.status {
        Status::Unknown => Exit::CouldNot,
        _ => Exit::Bad,
    })
}

/// The set of this name, or the newest complete one; then also the newer ones that are passed over.
fn choose<'a>(
    name: Option<&str>,
    listed: &'a [Listed],
    dumps: &Dumps,
) -> Result<(&'a Listed, Vec<String>), RestoreError> {
    let repository = || dumps.location.to_string();
    if let Some(name) = name {
        let found = listed.iter().find(|listed| listed.set == name);
        let found = found.ok_or_else(|| RestoreError::NoSuchSet {
            set: name.to_owned(),
            repository: repository(),
        })?;
        return Ok((found, Vec::new()));
    }
    let is_wanted = |set: &Listed| {
        set.status == Status::Complete && !set.partial && set.may_be_of(&dumps.cluster)
    };
    let at = listed.iter().rposition(is_wanted);
    let at = at.ok_or_else(|| RestoreError::NoDump {
        repository: repository(),
    })?;
    let newer = listed[at + 1..].iter().map(|set| {
        let word = match set.status {
            _ if !set.may_be_of(&dumps.cluster) => "of another cluster",
            Status::Complete => "partial",
            status => status.word(),
        };
        format!("{} ({word})", set.set)
    });
    Ok((&listed[at], newer.collect()))
}

fn print(shown: &Shown<'_>) -> std::io::Result<()> {
    let listed = shown.listed;
    let status = match listed.status {
        Status::Complete if listed.partial => "partial: it does not count as a dump of the cluster",
        status => status.word(),
    };
    let line = |name: &str, value: &str| say(format_args!("{name:<9} {value}"));
    line("set", &listed.set)?;
    line("status", status)?;
    line("tested", &tested_text(listed.tested.as_ref()))?;
    line("stored", &ByteSize(listed.stored_bytes).to_string())?;
    if let Some(set) = &listed.manifest {
        print_manifest(set)?;
    }
    for newer in &shown.newer {
        say(format_args!("newer: {newer}"))?;
    }
    Ok(())
}

fn tested_text(tested: Option<&SetTest>) -> String {
    let Some(tested) = tested else {
        return "never".to_owned();
    };
    let (at, node) = (time(tested.at), &tested.node);
    match &tested.reason {
        None => format!("passed at {at} on {node}"),
        Some(reason) => format!("failed at {at} on {node}: {reason}"),
    }
}

fn print_manifest(set: &DumpSet) -> std::io::Result<()> {
    let line = |name: &str, value: String| say(format_args!("{name:<9} {value}"));
    let role = if set.in_recovery {
        "standby"
    } else {
        "primary"
    };
    let elapsed = set.finished_at.duration_since(set.started_at);
    line(
        "dumped",
        format!(
            "{} on {} ({role}), in {:.1} s",
            time(set.started_at),
            set.node,
            elapsed.as_secs_f64()
        ),
    )?;
    let (cluster, identifier) = (&set.cluster, set.system_identifier);
    line(
        "cluster",
        format!("{cluster}, system identifier {identifier}"),
    )?;
    if let Some(recipients) = set.age_recipients() {
        line("encrypted", format!("to {}", recipients.join(", ")))?;
    }
    let version = set.server_version;
    let server = set.server_version_text.clone();
    let server = server.unwrap_or_else(|| format!("{}.{}", version / 10_000, version % 10_000));
    let pg_dump = set.pg_dump_version.as_deref();
    let pg_dump = pg_dump.map_or_else(String::new, |version| format!(", dumped by {version}"));
    line("server", format!("PostgreSQL {server}{pg_dump}"))?;
    let databases = set.databases.iter().map(|database| {
        let (on_server, lsn) = (database.database_bytes, database.contents.lsn);
        vec![
            database.name.clone(),
            (database.rows.len() + database.contents.estimated_rows.len()).to_string(),
            database.rows.values().sum::<u64>().to_string(),
            ByteSize(database.dump.bytes).to_string(),
            on_server.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string()),
            database.snapshot_at.strftime("%F %T").to_string(),
            lsn.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string()),
        ]
    });
    let header = [
        "DATABASE",
        "TABLES",
        "ROWS",
        "STORED",
        "ON THE SERVER",
        "SNAPSHOT (UTC)",
        "LSN",
    ];
    say("")?;
    say(table(&header, &[1, 2, 3, 4], databases).trim_fmt())?;
    let tables = set.databases.iter().flat_map(|database| {
        let counted = database.rows.iter();
        let counted = counted.map(|(name, rows)| (name, rows.to_string()));
        let estimated = database.contents.estimated_rows.iter();
        let estimated = estimated.map(|(name, rows)| match rows {
            Some(rows) => (name, format!("about {rows}")),
            None => (name, "not counted".to_owned()),
        });
        let all: BTreeMap<_, _> = counted.chain(estimated).collect();
        let all = all.into_iter();
        all.map(|(name, rows)| vec![database.name.clone(), name.clone(), rows])
    });
    say("")?;
    say(table(&["DATABASE", "TABLE", "ROWS"], &[2], tables).trim_fmt())?;
    say_each("not in the dump", &set.left_out)
}

fn time(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}
