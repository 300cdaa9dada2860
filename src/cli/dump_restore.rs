//! `xdb dump restore`: one database, or a part of it, out of a dump.

use bytesize::ByteSize;
use clap::Args;
use tokio::signal::unix::SignalKind;

use super::dump_target::target_settings;
use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, show_step};
use super::signals::{LEFT_THREADS, listen, told_to_end, until};
use crate::log;
use crate::restore::dump::{
    self, DumpRestorePlan, DumpRestoreRequest, Part, RestoredDump, TemporaryName,
};
use crate::restore::{RestoreError, Step};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 restored and compared, 1 the dump is damaged or cannot be restored, 2 usage, 3 refused, 4 could not run, 130/143 interrupted."
)]
pub(crate) struct Arguments {
    /// The database of the dump
    #[arg(value_name = "DB")]
    database: String,
    /// The set to read, by default the newest that holds the database whole
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Only this table, with its partitions, indexes, constraints and sequences; may be given again
    #[arg(long, value_name = "T", conflicts_with = "schema")]
    table: Vec<String>,
    /// Only this schema
    #[arg(long, value_name = "S")]
    schema: Option<String>,
    /// The name of the restored database, by default DB_restored
    #[arg(long, value_name = "NAME")]
    into: Option<String>,
    /// Restore no rows
    #[arg(long)]
    schema_only: bool,
    /// Create the roles of the set that the server lacks, with their passwords
    #[arg(long, conflicts_with = "no_owner")]
    globals: bool,
    /// Restore without owners and privileges
    #[arg(long)]
    no_owner: bool,
    /// Replace a database of that name, once the restored one is complete; only for a whole database
    #[arg(long, conflicts_with_all = ["table", "schema", "schema_only"])]
    clean: bool,
    /// Print what would be restored, and what is missing; restore nothing
    #[arg(long)]
    plan: bool,
    /// Another server than this node's own, as a connection string
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Print the plan or the result as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn request(&self, handles: &Handles) -> anyhow::Result<DumpRestoreRequest> {
        let own = &handles.config().postgres;
        let target = self.target.as_deref();
        let part = match (&self.schema, self.table.as_slice()) {
            (Some(schema), _) => Part::Schema(schema.clone()),
            (None, []) => Part::Database,
            (None, tables) => Part::Tables(tables.to_vec()),
        };
        Ok(DumpRestoreRequest {
            set: self.set.clone(),
            database: self.database.clone(),
            part,
            into: self.into.clone(),
            with_rows: !self.schema_only,
            globals: self.globals,
            with_owners: !self.no_owner,
            clean: self.clean,
            target: target.map(|url| target_settings(url, own)).transpose()?,
        })
    }
}

/// Restores, and drops what it made after SIGINT or SIGTERM.
pub(crate) fn run(arguments: &Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let request = arguments.request(handles)?;
    let own = &handles.config().postgres;
    let server = request.target.clone().unwrap_or_else(|| own.clone());
    let name = TemporaryName::new();
    let work = async {
        // A closed terminal must not end a restore of hours.
        let _heard = listen(SignalKind::hangup())?;
        judged(restore(arguments, request, handles, &name).await)
    };
    let clean_up = async {
        if arguments.plan {
            return;
        }
        let hint = "the next `xdb dump restore` into this server drops it";
        match dump::clean_up(&server, &name).await {
            Ok(None) => {}
            Ok(Some(old)) => complain(
                &format!(
                    "the restore was complete when it was stopped; what it replaced is now the database {old}"
                ),
                Some(hint),
            ),
            Err(error) => complain(&format!("a database may be left: {error}"), Some(hint)),
        }
    };
    until(told_to_end(), work, clean_up, LEFT_THREADS)
}

/// The hint of a restore test, to take a new backup, does not help here.
fn judged(outcome: anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    match outcome {
        Err(error) => match error.downcast_ref() {
            Some(RestoreError::Bad(reason)) => {
                let hint = "nothing was restored under the wanted name: `xdb dump list` shows the other sets (--set)";
                complain(reason, Some(hint));
                Ok(Exit::Bad)
            }
            _ => Err(error),
        },
        ended => ended,
    }
}

async fn restore(
    arguments: &Arguments,
    request: DumpRestoreRequest,
    handles: &Handles,
    name: &TemporaryName,
) -> anyhow::Result<Exit> {
    let dumps = handles.dumps().await?;
    let planned = dump::plan_restore(&dumps, request).await?;
    let plan = plan_text(&planned.plan);
    if arguments.plan {
        if arguments.json {
            say(serde_json::to_string_pretty(&planned.plan)?)?;
        } else {
            say(plan)?;
        }
        return match planned.plan.refused {
            None => Ok(Exit::Good),
            Some(refusal) => Err(RestoreError::Refused {
                reason: refusal.reason,
                hint: refusal.hint,
            }
            .into()),
        };
    }
    // Neither the plan nor the steps are part of the result.
    log::to_stderr(&format!("{plan}\n"));
    let mut progress = |step: &Step| show_step(step);
    let restored = dump::restore_dump(&dumps, planned, name, &mut progress).await?;
    if arguments.json {
        say(serde_json::to_string_pretty(&restored)?)?;
    } else {
        say(result_text(&restored))?;
    }
    Ok(Exit::Good)
}

fn plan_text(plan: &DumpRestorePlan) -> String {
    let snapshot = plan.snapshot_at.strftime("%F %T UTC");
    let replaces = match plan.replaces {
        true => ", in place of the database there, which is dropped at the end",
        false => ", a new database",
    };
    let mut lines = vec![
        ("set", format!("{} (as of {snapshot})", plan.set)),
        ("restore", plan.part.clone()),
        (
            "into",
            format!("{} on {}{replaces}", plan.into, plan.server),
        ),
        (
            "read",
            format!("{} from {}", ByteSize(plan.read_bytes), plan.object),
        ),
        (
            "rows",
            format!("{} tables, {} rows", plan.tables, plan.rows),
        ),
    ];
    if let Some(bytes) = plan.database_bytes {
        let free = plan.free_bytes.map_or_else(
            || "what may be used there is unknown".to_owned(),
            |free| format!("{} may be used", ByteSize(free)),
        );
        lines.push((
            "disk",
            format!("{} as it was dumped, {free}", ByteSize(bytes)),
        ));
    }
    for (what, names) in [
        ("roles", &plan.roles_to_create),
        ("missing", &plan.missing_roles),
        ("missing", &plan.missing_extensions),
        ("missing", &plan.missing_tablespaces),
    ] {
        if !names.is_empty() {
            lines.push((what, names.join(", ")));
        }
    }
    let left_out = plan.left_out.iter();
    lines.extend(left_out.map(|what| ("left out", what.clone())));
    lines.extend(plan.notes.iter().map(|note| ("note", note.clone())));
    if let Some(refusal) = &plan.refused {
        lines.push(("refused", refusal.reason.clone()));
    }
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:<9} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn result_text(restored: &RestoredDump) -> String {
    let RestoredDump {
        into,
        part,
        server,
        set,
        secs,
        ..
    } = restored;
    let mut text = format!(
        "RESTORED: {part} into the database {into} on {server}, in {secs:.1} s\n\
         {set}, as of {}: {} tables, {} rows, as in the manifest",
        restored.snapshot_at.strftime("%F %T UTC"),
        restored.tables,
        restored.rows,
    );
    let mut add = |what: &str, items: &[String]| {
        for item in items {
            text.push_str(&format!("\n{what}: {item}"));
        }
    };
    add("role created", &restored.roles_created);
    add("left out", &restored.left_out);
    add("note", &restored.notes);
    add(
        "dropped, as a killed restore left it",
        &restored.dropped_leftovers,
    );
    text.push_str(
        "\nIt has no statistics yet: vacuumdb --analyze-in-stages, or wait for autovacuum",
    );
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn a_database_is_never_replaced_by_a_part_of_one() {
        let parse = |more: &[&str]| {
            let words = ["xdb", "dump", "restore", "app", "--into", "app"];
            Cli::try_parse_from([&words[..], more].concat())
        };
        assert!(parse(&["--clean"]).is_ok());
        for part in [
            &["--table", "t"][..],
            &["--schema", "s"],
            &["--schema-only"],
        ] {
            assert!(parse(part).is_ok(), "{part:?}");
            assert!(parse(&[part, &["--clean"]].concat()).is_err(), "{part:?}");
        }
    }
}
