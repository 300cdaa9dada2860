//! `xdb dump restore`: into a database under a name of xdb's own, which gets its wanted name when all is well.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::contents_comparison::judge_contents;
use super::naming::take_name;
use super::program_messages::{is_missing_here, no_connection, server_is_gone};
use super::restore_plan::{PlannedRestore, counted, is_selected, unread};
use super::restore_request::DumpRestorePlan;
use super::restored::RestoredDump;
use super::roles::statements_for;
use super::row_comparison::judge_rows;
use super::selection::Part;
use super::sql::quote_name;
use super::stream::{StreamError, Streamed, stream};
use super::temporary::{self, TemporaryName};
use crate::dump::{self, Dumps, ObjectReader};
use crate::model::Verdict;
use crate::postgres::{self, PostgresError, Target};
use crate::process::Finished;
use crate::restore::drill::judge_volumes;
use crate::restore::{OnStep, RestoreError, Steps, secs};

/// As that of a restored cluster.
const LIMIT: Duration = Duration::from_hours(14 * 24);

/// Does what is `planned`; `on_step` gets each step when it ends. `name` is what a caller cleans up after a signal.
///
/// # Errors
/// When it is refused, or fails: then nothing is left but roles that were made.
pub(crate) async fn restore_dump(
    dumps: &Dumps,
    planned: PlannedRestore,
    name: &TemporaryName,
    on_step: OnStep<'_>,
) -> Result<RestoredDump, RestoreError> {
    if let Some(refusal) = planned.plan.refused {
        return Err(RestoreError::Refused {
            reason: refusal.reason,
            hint: refusal.hint,
        });
    }
    let began = Instant::now();
    let settings = planned.destination.settings.clone();
    let mut restore = Restore {
        dumps,
        planned,
        name,
        steps: Steps::new(on_step),
        notes: Vec::new(),
        checksum_verified: false,
    };
    let outcome = timeout(LIMIT, restore.whole()).await;
    let outcome = outcome.unwrap_or(Err(RestoreError::TimedOut { after: LIMIT }));
    let steps = restore.steps.into_list();
    let plan = restore.planned.plan;
    let dropped_leftovers = match outcome {
        Ok(leftovers) => leftovers,
        Err(error) => {
            // Its session and its advisory lock end here.
            drop(restore.planned.destination);
            if let Err(left) = temporary::clean_up(&settings, name).await {
                tracing::warn!(
                    "{} may be left on the server, and the next restore drops it: {left}",
                    name.restored()
                );
            }
            return Err(error);
        }
    };
    Ok(RestoredDump {
        set: plan.set,
        snapshot_at: plan.snapshot_at,
        database: plan.database,
        part: plan.part,
        into: plan.into,
        server: plan.server,
        replaced: plan.replaces,
        tables: plan.tables,
        rows: plan.rows,
        checksum_verified: restore.checksum_verified,
        secs: secs(began.elapsed()),
        steps,
        roles_created: plan.roles_to_create,
        dropped_leftovers,
        left_out: plan.left_out,
        notes: plan.notes.into_iter().chain(restore.notes).collect(),
    })
}

struct Restore<'a> {
    dumps: &'a Dumps,
    planned: PlannedRestore,
    name: &'a TemporaryName,
    steps: Steps<'a>,
    notes: Vec<String>,
    checksum_verified: bool,
}

impl Restore<'_> {
    fn plan(&self) -> &DumpRestorePlan {
        &self.planned.plan
    }

    /// Returns the names of leftovers that were dropped.
    async fn whole(&mut self) -> Result<Vec<String>, RestoreError> {
        let began = Instant::now();
        let connection = &self.planned.destination.connection;
        let leftovers = temporary::drop_leftovers(connection).await?;
        temporary::lock(connection, self.name).await?;
        self.make_roles().await?;
        self.make_database().await?;
        self.steps.end("prepare", began, None);

        let began = Instant::now();
        self.load().await?;
        let bytes = self.checksum_verified.then_some(self.plan().read_bytes);
        self.steps.end("restore", began, bytes);

        let began = Instant::now();
        let not_compared = self.compare().await?;
        self.notes.extend(not_compared);
        self.steps.end("compare", began, None);

        let began = Instant::now();
        let notes = take_name(&self.planned, self.name).await?;
        self.notes.extend(notes);
        self.steps.end("rename", began, None);
        Ok(leftovers)
    }

    /// All roles at once, or none.
    async fn make_roles(&self) -> Result<(), RestoreError> {
        let missing = self.plan().roles_to_create.iter().cloned().collect();
        let globals = self.planned.globals.as_deref().unwrap_or_default();
        let statements = statements_for(globals, &missing);
        if statements.is_empty() {
            return Ok(());
        }
        // A statement may hold a password: an error shows the server's words only.
        let failed = |error| PostgresError::Query {
            what: "to create the roles of the set",
            error,
        };
        let connection = &self.planned.destination.connection;
        connection.batch_execute("BEGIN").await.map_err(failed)?;
        for statement in &statements {
            if let Err(error) = connection.batch_execute(statement).await {
                // The session may be gone.
                let _ = connection.batch_execute("ROLLBACK").await;
                return Err(failed(error).into());
            }
        }
        Ok(connection.batch_execute("COMMIT").await.map_err(failed)?)
    }

    async fn make_database(&self) -> Result<(), RestoreError> {
        let connection = &self.planned.destination.connection;
        let entries = self.planned.of_database.iter();
        let definition = entries.clone().find(|entry| entry.kind == "DATABASE");
        let definition = definition.ok_or_else(|| {
            RestoreError::Bad(format!(
                "{} says not how its database is made",
                self.plan().object
            ))
        })?;
        let (name, tablespaces) = (self.name.restored(), &self.planned.destination.tablespaces);
        let made = temporary::create(connection, &name, &definition.definition, tablespaces).await;
        made.map_err(|error| {
            let reason = format!(
                "the database cannot be created: {}",
                postgres::in_words(&error)
            );
            not_restored(&reason)
        })?;
        // For people who list the databases.
        let comment = format!(
            "COMMENT ON DATABASE {} IS 'xdb dump restore is working here; left by a killed one, the next restore drops it'",
            quote_name(&name)
        );
        let commented = connection.batch_execute(&comment).await;
        commented.map_err(|error| {
            let what = "to comment on a database";
            PostgresError::Query { what, error }.into()
        })
    }

    async fn load(&mut self) -> Result<(), RestoreError> {
        let mut object = self.dumps.open_object(&self.planned.dumped.dump);
        let list = self
            .planned
            .selection
            .ids
            .as_deref()
            .map(use_list)
            .transpose()?;
        let command = self.pg_restore(list.as_ref());
        let own = self.planned.request.target.is_none();
        let data = own.then(|| self.dumps.postgres.data_directory.clone());
        let streamed = tokio::select! {
            streamed = stream(command, &mut object) => streamed,
            reason = no_room(data) => return Err(RestoreError::NotRestored {
                reason,
                hint: "make room there, and run it again; nothing is left of it on the server".to_owned(),
            }),
        };
        let streamed = match streamed {
            Ok(streamed) => streamed,
            Err(StreamError::Process(error)) => return Err(error.into()),
            Err(StreamError::Object(error)) => return Err(unread(error)),
        };
        if let Some(reason) = streamed.error.clone() {
            return Err(self.judge(reason, &streamed, object).await);
        }
        if self.planned.request.with_rows {
            object.finish().await.map_err(unread)?;
            self.checksum_verified = true;
        }
        self.notes.extend(streamed.not_filled.iter().map(|view| {
            format!("the materialized view {view} was not filled, because it reads foreign tables: REFRESH MATERIALIZED VIEW {view}")
        }));
        Ok(())
    }

    fn pg_restore(&self, list: Option<&OwnedFd>) -> Command {
        let destination = &self.planned.destination;
        let mut command = dump::client(
            &destination.settings,
            "pg_restore",
            destination.is_superuser,
        );
        command
            .args(["--format=custom", "--no-password", "--no-subscriptions"])
            .args(["--dbname", &self.name.restored()])
            .env("PGOPTIONS", options(destination.is_superuser));
        if let Some(list) = list {
            let path = format!("/proc/self/fd/{}", list.as_raw_fd());
            command.arg(format!("--use-list={path}"));
        }
        if !self.planned.request.with_owners {
            command.args(["--no-owner", "--no-privileges"]);
        }
        if !self.plan().missing_tablespaces.is_empty() {
            command.arg("--no-tablespaces");
        }
        command
    }

    /// Is it the object that is bad, or the place where it was to be restored?
    async fn judge(
        &self,
        reason: String,
        streamed: &Streamed,
        object: ObjectReader,
    ) -> RestoreError {
        let Finished { status, stderr, .. } = &streamed.finished;
        if stderr.contains("No space left on device") {
            return RestoreError::NotRestored {
                reason: format!("the disk of {} is full: {reason}", self.plan().server),
                hint: "make room there, and run it again".to_owned(),
            };
        }
        if status.code().is_none() || server_is_gone(stderr) || no_connection(stderr) {
            return not_restored(&format!("pg_restore: {reason}"));
        }
        // A damaged object may show as any error.
        if let Err(error) = object.finish().await {
            return unread(error);
        }
        if is_missing_here(&reason) {
            let server = &self.plan().server;
            return not_restored(&format!("{server} lacks what the dump needs: {reason}"));
        }
        RestoreError::Bad(format!("pg_restore: {reason}"))
    }

    /// Counts what was restored, and compares it with the manifest. Returns what could not be compared.
    async fn compare(&self) -> Result<Vec<String>, RestoreError> {
        let target = Target {
            database: self.name.restored(),
            ..Target::from(&self.planned.destination.settings)
        };
        let connection = postgres::connect(&target, Duration::ZERO).await?;
        let (rows, contents) = dump::read_restored(&connection, self.planned.unlogged).await?;
        let (dumped, selection) = (&self.planned.dumped, &self.planned.selection);
        let mut notes = Vec::new();
        let verdict = if self.planned.request.with_rows {
            let wanted = counted(dumped, selection).map(|(name, rows)| (name.clone(), rows));
            let wanted: BTreeMap<String, u64> = wanted.collect();
            let mut estimated = dumped.contents.estimated_rows.clone();
            estimated.retain(|name, _| is_selected(name, selection));
            let mut restored = rows;
            restored.retain(|name, _| is_selected(name, selection));
            if !estimated.is_empty() {
                let number = estimated.len();
                notes.push(format!(
                    "not compared: the rows of {number} tables, of which the manifest has estimates"
                ));
            }
            judge_rows(&wanted, &estimated, &restored)
        } else {
            let lost = counted(dumped, selection).find(|(name, _)| !rows.contains_key(*name));
            lost.map_or(Verdict::Ok, |(name, _)| {
                Verdict::Critical(format!("{name} is in the manifest and not in the dump"))
            })
        };
        let is_whole =
            self.planned.request.part == Part::Database && self.planned.request.with_rows;
        let contents = match is_whole {
            true => judge_contents(&dumped.contents, &contents),
            false => {
                let what = "sequences, large objects and extensions: only a whole database's are";
                notes.push(format!("not compared: {what}"));
                Verdict::Ok
            }
        };
        for verdict in [verdict, contents] {
            match verdict {
                Verdict::Critical(reason) => return Err(RestoreError::Bad(reason)),
                Verdict::Warning(reason) | Verdict::Unknown(reason) => notes.push(reason),
                Verdict::Ok => {}
            }
        }
        Ok(notes)
    }
}

/// Ends with the reason when the live server's volumes run out of room: a full volume of WAL stops it. Never for another
/// node's server.
async fn no_room(data_directory: Option<PathBuf>) -> String {
    const INTERVAL: Duration = Duration::from_secs(1);
    let Some(data) = data_directory else {
        return std::future::pending().await;
    };
    loop {
        if let Some(reason) = judge_volumes(&data) {
            return reason;
        }
        sleep(INTERVAL).await;
    }
}

fn not_restored(reason: &str) -> RestoreError {
    RestoreError::NotRestored {
        reason: reason.to_owned(),
        hint: "nothing is left of it on the server: repair what the reason names, and run it again"
            .to_owned(),
    }
}

/// A file without a name that lists entries for `pg_restore --use-list`: a child inherits it.
fn use_list(ids: &[i64]) -> Result<OwnedFd, RestoreError> {
    let lines: String = ids.iter().map(|id| format!("{id};\n")).collect();
    let failed = |error: rustix::io::Errno| RestoreError::File {
        operation: "write",
        path: "the list for pg_restore".into(),
        source: error.into(),
    };
    let list = rustix::fs::memfd_create(c"xdb-list", MemfdFlags::empty()).map_err(failed)?;
    let mut rest = lines.as_bytes();
    while !rest.is_empty() {
        let written = rustix::io::write(&list, rest).map_err(failed)?;
        rest = &rest[written..];
    }
    Ok(list)
}

/// No setting of server, database or role changes what is restored, no foreign table is read, and no statement is logged:
/// some hold passwords. The rename at the end waits for the disk, and so for all that was written before.
fn options(is_superuser: bool) -> String {
    const QUIET: &str = "-c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1 -c pgaudit.log=none -c pgaudit.role= -c pg_stat_statements.track=none";
    let pinned = match is_superuser {
        true => format!("{} {QUIET}", postgres::superuser_program_options()),
        false => postgres::program_options(),
    };
    format!("{pinned} -c restrict_nonsystem_relation_kind=foreign-table -c synchronous_commit=off")
}
