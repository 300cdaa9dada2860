//! `xdb restore`: a cluster that is kept, and what to do with it next.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use jiff::Timestamp;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::say;
use crate::cluster::is_range;
use crate::config::{Flag, Postgres};
use crate::log;
use crate::model::Verdict;
use crate::restore::{
    self, Forecast, HeldSetting, PlacedTablespace, RestoreError, RestoreRequest, RestoredCluster,
    Setup, Step, Until, UntilError, shell,
};

/// Verifications whose warnings are printed and do not change the exit code.
const REMARKS: [&str; 2] = ["databases", "prepared_transactions"];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The new data directory, empty or missing
    #[arg(long, value_name = "DIR")]
    target_dir: PathBuf,
    /// The backup to begin with; by default the newest complete one, or the last complete one before --until
    #[arg(long, value_name = "NAME|LATEST")]
    backup: Option<String>,
    /// Stop at a time with its zone, at an LSN or at a restore point, and not at the end of the archive
    #[arg(long, value_name = "TIME|LSN|name:NAME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Another repository than the configured one
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    repository: Option<String>,
    /// Print what would be restored, how long that takes and what is lost; restore nothing
    #[arg(long)]
    plan: bool,
    /// Complete a restore in --target-dir that was stopped after its recovery
    #[arg(long, conflicts_with_all = ["backup", "until", "repository", "plan"])]
    finish: bool,
    /// Print the plan or the result as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Flags that are configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        super::repository_flag(self.repository.as_deref())
    }

    fn request(&self) -> anyhow::Result<RestoreRequest> {
        let text = self.until.as_deref();
        let until = text.map(str::parse).transpose();
        let until: Option<Until> = until.map_err(|error: UntilError| error)?;
        Ok(RestoreRequest {
            directory: std::path::absolute(&self.target_dir)?,
            backup: self.backup.clone(),
            until,
        })
    }
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    match restore(&arguments, handles).await {
        Err(error) => match error.downcast_ref() {
            // The hint of a restore test, to take a new backup, does not help here.
            Some(RestoreError::Bad(reason)) => {
                let hint = "restore another one with --backup: `xdb backup list` shows them";
                complain(reason, Some(hint));
                Ok(Exit::Bad)
            }
            _ => Err(error),
        },
        ended => ended,
    }
}

async fn restore(arguments: &Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let postgres = &handles.config().postgres;
    let request = arguments.request()?;
    if arguments.finish {
        let restored = restore::finish_restore(&postgres.bin_directory, &request.directory).await?;
        return conclude(arguments, &restored, postgres);
    }
    // Before anything is asked of S3.
    restore::check_target(&request.directory)?;
    let setup = Setup::new(&handles.loaded, handles.repository.get().await?);
    let mut outlook = restore::outlook(&setup, &request).await?;
    for reason in &outlook.passed_over {
        let taken = &outlook.forecast.backup;
        complain(
            reason,
            Some(&format!(
                "{taken} is taken instead; --backup names another one"
            )),
        );
    }
    let plan = plan_text(&outlook.forecast);
    if arguments.plan {
        if arguments.json {
            say(serde_json::to_string_pretty(&outlook.forecast)?)?;
        } else {
            say(plan)?;
        }
        outlook.judge(&setup).await?;
        return Ok(Exit::Good);
    }
    outlook.judge(&setup).await?;
    // The plan and the steps are no part of the result, and standard error may be closed by then.
    log::to_stderr(&format!("{plan}\n"));
    let mut progress = |step: &Step| {
        log::to_stderr(&format!("{step}\n"));
    };
    let notify = |message: &str| {
        log::to_stderr(&format!("{message}\n"));
    };
    let restored = restore::restore_cluster(&setup, outlook, &mut progress, &notify).await?;
    conclude(arguments, &restored, postgres)
}

/// Prints the result; errors come first.
fn conclude(
    arguments: &Arguments,
    restored: &RestoredCluster,
    postgres: &Postgres,
) -> anyhow::Result<Exit> {
    if let Some(reason) = &restored.reason {
        let hint = "the cluster is kept: check its data before you use it";
        complain(reason, Some(hint));
    }
    if let Some(reason) = &restored.unknown {
        let hint = format!(
            "the cluster is kept in {}, and transactions at the end of the archive may be missing: compare it with what you expect before you use it",
            restored.directory.display()
        );
        complain(reason, Some(&hint));
    }
    if arguments.json {
        say(serde_json::to_string_pretty(restored)?)?;
    } else {
        say(result_text(restored, postgres))?;
    }
    for verification in &restored.verifications {
        let remark = match &verification.verdict {
            Verdict::Warning(remark) | Verdict::Unknown(remark) => remark,
            _ => continue,
        };
        if REMARKS.contains(&verification.name.as_str()) {
            complain(&format!("{}: {remark}", verification.name), None);
        }
    }
    Ok(match (&restored.reason, &restored.unknown) {
        (Some(_), _) => Exit::Bad,
        (None, Some(_)) => Exit::CouldNot,
        (None, None) => Exit::Good,
    })
}

fn plan_text(plan: &Forecast) -> String {
    let time = |at: Timestamp| at.strftime("%F %T UTC").to_string();
    let finished = plan
        .backup_finished_at
        .map_or_else(String::new, |at| format!(" (finished {})", time(at)));
    let wal = plan.wal.as_ref().map_or_else(
        || "none".to_owned(),
        |wal| {
            let (first, last, segments) = (&wal.first, &wal.last, wal.segments);
            format!(
                "{first} to {last}, {segments} segment{}, on timeline {}",
                if segments == 1 { "" } else { "s" },
                plan.timeline
            )
        },
    );
    let until = plan.until.as_deref().unwrap_or("the end of the archive");
    let range = plan.expected_low_secs.zip(plan.expected_high_secs);
    let expected = match (plan.expected_secs, range) {
        (None, _) => format!("unknown: {}", plan.expected_by),
        (Some(_), Some((low, high))) if is_range(low, high) => {
            format!("{low:.1} s to {high:.1} s, by {}", plan.expected_by)
        }
        (Some(secs), _) => format!("about {secs:.1} s, by {}", plan.expected_by),
    };
    let mut lines = vec![
        ("backup", format!("{}{finished}", plan.backup)),
        ("chain", plan.chain.join(" > ")),
        (
            "fetch",
            format!("{} from {}", ByteSize(plan.fetch_bytes), plan.repository),
        ),
        ("WAL", wal),
        ("until", until.to_owned()),
        (
            "space",
            format!(
                "{} needed, {} free for {}",
                ByteSize(plan.needed_bytes),
                ByteSize(plan.free_bytes),
                plan.directory.display()
            ),
        ),
        ("duration", expected),
    ];
    lines.extend(plan.tablespaces.iter().map(|tablespace| {
        let (oid, stood) = (&tablespace.oid, &tablespace.location);
        let placed = plan.directory.join("pg_tblspc").join(oid);
        let value = format!("the tablespace of {stood} in {}", placed.display());
        ("placed", value)
    }));
    lines.push(("lost", plan.lost.clone()));
    let lines = lines.iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name:<10}{value}"))
        .collect();
    lines.join("\n")
}

fn result_text(restored: &RestoredCluster, postgres: &Postgres) -> String {
    let commit = restored.recovered_to.map_or_else(
        || "no commit in the WAL".to_owned(),
        |at| format!("last commit {}", at.strftime("%F %T%.f UTC")),
    );
    let reached = restored.recovered_lsn.zip(restored.timeline);
    let reached = reached.map_or_else(String::new, |(lsn, timeline)| {
        format!(" to {lsn} on timeline {timeline}, {commit}")
    });
    let (directory, backup, secs) = (&restored.directory, &restored.backup, restored.secs);
    format!(
        "{backup} recovered{reached}, in {secs:.1} s\n\
         {} is complete (timeline {}) and stopped. It no longer needs the bucket. Archiving stays off until you enable it.\n{}",
        directory.display(),
        restored.new_timeline,
        remarks(restored)
            + &tablespace_commands(&restored.tablespaces)
            + &next_commands(directory, restored, postgres)
    )
}

/// The commands that move tablespaces out of the data directory.
fn tablespace_commands(tablespaces: &[PlacedTablespace]) -> String {
    if tablespaces.is_empty() {
        return String::new();
    }
    let lines = tablespaces.iter().map(|PlacedTablespace { stood, placed, .. }| {
        let placed = shell(placed);
        format!(
            "  mkdir -m 700 NEW && cp -a {placed}/. NEW/ && sync && rm -r {placed} && ln -s NEW {placed}   # stood in {stood}\n"
        )
    });
    let lines: String = lines.collect();
    format!(
        "To give each tablespace a disk of its own again, while no server runs here (NEW: the path from / of a directory that is not there yet):\n{lines}"
    )
}

/// The commands that restore the held settings. Values are only copied from file to file: some hold passwords.
fn release_commands(directory: &Path, held: &[HeldSetting]) -> String {
    let reset = held.iter().filter(|held| held.name != SYNCHRONOUS);
    let reset = reset.map(|held| format!("-c 'ALTER SYSTEM RESET {}'", held.name));
    let reset = reset.collect::<Vec<_>>().join(" ");
    format!(
        "  psql {reset}\n{}",
        give_back(directory, held, |name| name != SYNCHRONOUS)
    )
}

/// With it each commit waits for a standby that is not there yet.
const SYNCHRONOUS: &str = "synchronous_standby_names";

/// The command that appends the old ALTER SYSTEM of those of `held` whose names are `wanted`; empty where there is none.
fn give_back(directory: &Path, held: &[HeldSetting], wanted: impl Fn(&str) -> bool) -> String {
    let set = held.iter().filter(|held| wanted(held.name));
    let set: Vec<_> = set
        .filter_map(|held| Some((held.name, held.was?)))
        .collect();
    let Some((_, file)) = set.first() else {
        return String::new();
    };
    let names: Vec<_> = set.iter().map(|(name, _)| *name).collect();
    let (names, at) = (names.join("|"), |name: &str| shell(&directory.join(name)));
    let (from, to) = (at(file), at("postgresql.auto.conf"));
    format!("  grep -iE '^ *({names}) *=' {from} >>{to}\n")
}

/// Another port than that of the server that runs here: clients that connect by port, as workers of extensions do, must not
/// reach the copy.
fn other_port(postgres: &Postgres) -> u16 {
    postgres.port.checked_add(10).unwrap_or(15432)
}

/// The held settings, and the configuration files that xdb wrote.
fn remarks(restored: &RestoredCluster) -> String {
    let held: Vec<String> = restored
        .held
        .iter()
        .map(|held| match &held.was {
            Some(file) => format!("{} (its ALTER SYSTEM is in {file})", held.name),
            None => held.name.to_owned(),
        })
        .collect();
    let mut lines = format!(
        "Held back, so that nothing of the old cluster runs in it: {}\n",
        held.join(", ")
    );
    for file in &restored.made_files {
        lines.push_str(&format!(
            "The backup brought no usable {file}: xdb wrote a minimal one\n"
        ));
    }
    let links = restored.verifications.iter();
    for verification in links.filter(|verification| verification.name == "links") {
        if let Some(reason) = verification.verdict.reason() {
            lines.push_str(&format!("Not restored: {reason}\n"));
        }
    }
    lines.push('\n');
    lines
}

/// The next commands, to be copied; the runbook says when each is due.
fn next_commands(directory: &Path, restored: &RestoredCluster, postgres: &Postgres) -> String {
    let bin = postgres.bin_directory.display();
    let history = restored.new_timeline.history_file();
    let release = release_commands(directory, &restored.held);
    let given_back = give_back(directory, &restored.held, |name| name == SYNCHRONOUS);
    let last = format!(
        "\n  and once it streams:\n  psql -c 'ALTER SYSTEM RESET {SYNCHRONOUS}'\n{given_back}  psql -c 'SELECT pg_reload_conf()'"
    );
    let (directory, port) = (shell(directory), other_port(postgres));
    format!(
        "To look at it, beside the server that runs here:\n  \
           {bin}/pg_ctl -D {directory} -w -l {directory}/look.log -o \"-c listen_addresses= -c port={port} -c unix_socket_directories={directory} -c default_transaction_read_only=on -c external_pid_file= -c logging_collector=off\" start\n  \
           psql -h {directory} -p {port} -d postgres\n  \
           {bin}/pg_ctl -D {directory} -w stop\n\
         To make it the primary, once the old one is fenced (runbooks/disaster_restore.md):\n  \
           start it as this node's server, look at it\n\
         {release}  \
           restart it\n  \
           cd {directory} && xdb wal-push pg_wal/{history}\n  \
           xdb backup push --full\n  \
           let the replica rejoin (runbooks/rejoin.md){last}"
    )
}
