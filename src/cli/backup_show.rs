//! `xdb backup show`: all that the repository tells of one backup.

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use super::backup::Listed;
use super::exit::{Exit, complain};
use super::output::say;
use crate::archive::catalog::{Catalog, Window};
use crate::storage::Repository;

/// A backup as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    /// From the full backup to this one; empty where a parent is gone.
    chain: Vec<String>,
    /// Of all the chain, as stored: what a restore downloads before any WAL.
    chain_bytes: u64,
    /// Where each tablespace stood, by OID.
    tablespaces: Vec<(String, String)>,
    /// One for each timeline that it can be recovered along; empty where it cannot be restored.
    windows: Vec<Window>,
}

/// Prints the backup `name`, or the one that finished last for `LATEST`.
pub fn show(
    repository: &Repository,
    catalog: &Catalog,
    name: &str,
    json: bool,
) -> anyhow::Result<Exit> {
    let found = match name {
        "LATEST" => catalog.newest(),
        name => catalog.backup(name),
    };
    let Some(backup) = found else {
        let hint = "`xdb backup list` shows what is there";
        complain(
            &format!("there is no backup {name} in {repository}"),
            Some(hint),
        );
        return Ok(Exit::Bad);
    };
    let chain = catalog.chain(backup).unwrap_or_default();
    let sentinels = chain.iter().filter_map(|link| link.sentinel.as_ref());
    let tablespaces = backup.sentinel.iter().flat_map(|s| &s.tablespaces);
    let listed = Listed::of(catalog, backup);
    let restorable = matches!(listed.status, "complete" | "left");
    let shown = Shown {
        chain: chain.iter().map(|link| link.name.clone()).collect(),
        chain_bytes: sentinels.map(|sentinel| sentinel.compressed_size).sum(),
        tablespaces: tablespaces
            .map(|one| (one.oid.clone(), one.location.clone()))
            .collect(),
        windows: if restorable {
            catalog.windows(backup)
        } else {
            Vec::new()
        },
        listed,
    };
    if json {
        say(serde_json::to_string_pretty(&shown)?)?;
    } else {
        print(&shown)?;
    }
    Ok(if restorable { Exit::Good } else { Exit::Bad })
}

fn print(shown: &Shown) -> std::io::Result<()> {
    let unknown = || "unknown".to_owned();
    let time =
        |at: Option<Timestamp>| at.map_or_else(unknown, |at| at.strftime("%F %T UTC").to_string());
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| ByteSize(bytes).to_string());
    let listed = &shown.listed;
    let reason = listed.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    say(format_args!(
        "backup       {} ({})",
        listed.name, listed.kind
    ))?;
    say(format_args!("status       {}{reason}", listed.status))?;
    let (started, finished) = (time(listed.started_at), time(listed.finished_at));
    say(format_args!("taken        {started} to {finished}"))?;
    let lsns = listed.start_lsn.zip(listed.finish_lsn);
    let lsns = lsns.map_or_else(unknown, |(start, finish)| format!("{start} to {finish}"));
    say(format_args!(
        "WAL          {lsns} on timeline {}",
        listed.timeline
    ))?;
    let of = listed.hostname.clone().unwrap_or_else(unknown);
    let identifier = listed.system_identifier;
    let identifier = identifier.map_or_else(unknown, |identifier| identifier.to_string());
    say(format_args!(
        "of           {of}, system identifier {identifier}"
    ))?;
    let (alone, chain) = (size(listed.compressed_bytes), ByteSize(shown.chain_bytes));
    let restored = size(listed.restored_bytes);
    say(format_args!(
        "size         {alone} stored, {chain} with its chain, {restored} restored"
    ))?;
    say(format_args!("chain        {}", shown.chain.join(" > ")))?;
    let permanent = match listed.permanent {
        Some(true) => "yes: retention leaves it alone",
        Some(false) => "no",
        None => "unknown",
    };
    say(format_args!("permanent    {permanent}"))?;
    for (oid, location) in &shown.tablespaces {
        say(format_args!("tablespace   {oid} at {location}"))?;
    }
    for window in &shown.windows {
        let (from, to) = (time(window.from), time(Some(window.to)));
        let gap = window.gap.as_ref();
        let gap = gap.map_or_else(String::new, |gap| format!("; WAL is missing: {gap}"));
        say(format_args!(
            "recoverable  {from} to {} on timeline {}, archived {to}{gap}",
            window.to_lsn, window.timeline
        ))?;
    }
    Ok(())
}
