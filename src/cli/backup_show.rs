//! `xdb backup show`: all that the repository tells of one backup.

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use super::backup_list::{self, BackupLine};
use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::say;
use crate::archive::retention;
use crate::repository::Keeper;
use crate::repository::catalog::Window;

/// A backup as it is shown.
#[derive(Debug, Serialize)]
struct ShownBackup {
    #[serde(flatten)]
    listed: BackupLine,
    /// From the full backup to this one; empty where a parent is gone.
    chain: Vec<String>,
    /// What xdb recorded when it marked the backup permanent; `None` where an operator marked it, or it is not permanent.
    permanent_by_xdb: Option<Keeper>,
    /// Of all the chain, as stored: what a restore downloads before any WAL.
    chain_bytes: u64,
    /// Where each tablespace stood, by OID.
    tablespaces: Vec<(String, String)>,
    /// One for each timeline that it can be recovered along; empty where it cannot be restored.
    windows: Vec<Window>,
}

/// Prints the backup `name`, or the one that finished last for `LATEST`.
pub(crate) async fn show(handles: &Handles, name: &str, json: bool) -> anyhow::Result<Exit> {
    let (repository, catalog) = backup_list::read(handles).await?;
    let found = match name {
        "LATEST" => catalog.newest(),
        name => catalog.backup(name),
    };
    let Some(found) = found else {
        let hint = "`xdb backup list` shows what is there";
        complain(
            &format!("there is no backup {name} in {}", repository.location),
            Some(hint),
        );
        return Ok(Exit::Bad);
    };
    let permanent = retention::permanent(&repository, found).await?;
    let chain = catalog.chain(found).unwrap_or_default();
    let sentinels = chain.iter().filter_map(|link| link.sentinel.as_ref());
    let tablespaces = found.sentinel.iter().flat_map(|s| &s.tablespaces);
    let mut listed = BackupLine::of(&catalog, found);
    // wal-g marks beside the sentinel.
    listed.permanent = found.sentinel.is_some().then_some(permanent.is_some());
    let restorable = matches!(listed.status, "complete" | "left");
    let shown = ShownBackup {
        chain: chain.iter().map(|link| link.name.clone()).collect(),
        chain_bytes: sentinels.map(|sentinel| sentinel.compressed_size).sum(),
        tablespaces: tablespaces
            .map(|one| (one.oid.clone(), one.location.clone()))
            .collect(),
        windows: if restorable || listed.status == "disproved" {
            catalog.windows(found)
        } else {
            Vec::new()
        },
        permanent_by_xdb: permanent.flatten(),
        listed,
    };
    if json {
        say(serde_json::to_string_pretty(&shown)?)?;
    } else {
        print(&shown, &handles.config().cluster.name)?;
    }
    Ok(if restorable { Exit::Good } else { Exit::Bad })
}

fn print(shown: &ShownBackup, cluster: &str) -> std::io::Result<()> {
    let listed = &shown.listed;
    let reason = listed.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let mut lines = vec![
        ("backup", format!("{} ({})", listed.name, listed.kind)),
        ("status", format!("{}{reason}", listed.status)),
    ];
    lines.extend(listed.note.map(|note| ("note", note.to_owned())));
    lines.push(("tested", tested(listed)));
    lines.extend(facts(listed));
    let (alone, restored) = (size(listed.compressed_bytes), size(listed.restored_bytes));
    let chain = ByteSize(shown.chain_bytes);
    lines.extend([
        (
            "size",
            format!("{alone} stored, {chain} with its chain, {restored} restored"),
        ),
        ("chain", shown.chain.join(" > ")),
    ]);
    lines.extend(permanent(shown, cluster));
    lines.extend(
        shown
            .tablespaces
            .iter()
            .map(|(oid, location)| ("tablespace", format!("{oid} at {location}"))),
    );
    lines.extend(shown.windows.iter().map(|it| ("recoverable", range(it))));
    lines
        .iter()
        .try_for_each(|(name, value)| say(format_args!("{name:<13}{value}")))
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(unknown, |at| at.strftime("%F %T UTC").to_string())
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(unknown, |bytes| ByteSize(bytes).to_string())
}

fn tested(listed: &BackupLine) -> String {
    match &listed.test {
        None => "no restore test has judged it".to_owned(),
        Some(test) => test.failure().unwrap_or_else(|| {
            let at = time(Some(test.at));
            format!("the restore test of {at} on {} passed", test.node)
        }),
    }
}

/// When it was taken, and of which server.
fn facts(listed: &BackupLine) -> [(&'static str, String); 3] {
    let (started, finished) = (time(listed.started_at), time(listed.finished_at));
    let lsns = listed.start_lsn.zip(listed.finish_lsn);
    let lsns = lsns.map_or_else(unknown, |(start, finish)| format!("{start} to {finish}"));
    let host = listed.hostname.clone().unwrap_or_else(unknown);
    let identifier = listed.system_identifier;
    let identifier = identifier.map_or_else(unknown, |identifier| identifier.to_string());
    [
        ("taken", format!("{started} to {finished}")),
        ("WAL", format!("{lsns} on timeline {}", listed.timeline)),
        ("of", format!("{host}, system identifier {identifier}")),
    ]
}

fn permanent(shown: &ShownBackup, cluster: &str) -> Vec<(&'static str, String)> {
    let text = match (shown.listed.permanent, &shown.permanent_by_xdb) {
        (Some(true), Some(keeper)) => {
            let at = time(Some(keeper.at));
            format!("yes: by xdb on {} at {at}: {}", keeper.by, keeper.why)
        }
        (Some(true), None) => "yes, by a person: retention leaves it alone".to_owned(),
        (Some(false), _) => "no".to_owned(),
        (None, _) => unknown(),
    };
    let mut lines = vec![("permanent", text)];
    lines.extend(shown.permanent_by_xdb.as_ref().map(|keeper| {
        let record = format!("xdb/{cluster}/{}", keeper.path());
        let text = format!("a person's, and left alone, once {record} is deleted from the bucket");
        ("", text)
    }));
    lines
}

fn range(window: &Window) -> String {
    let (from, to) = (time(window.from), time(Some(window.to)));
    let end = match &window.gap {
        Some(gap) => format!("; WAL is missing: {gap}"),
        None if window.own_end_only => {
            ": its own end only, retention deleted what followed".to_owned()
        }
        None => String::new(),
    };
    format!(
        "{from} to {} on timeline {}, archived {to}{end}",
        window.to_lsn, window.timeline
    )
}
