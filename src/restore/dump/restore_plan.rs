//! What `xdb dump restore` would do: everything that can be known before anything is written.

use std::collections::BTreeSet;

use super::choice::{Choice, Wanted, choose};
use super::destination::{Destination, Existing};
use super::refusal::{Server, judge_plan, lacked_rows, lacks_own_rows};
use super::restore_request::{DumpRestorePlan, DumpRestoreRequest};
use super::roles::{needed_roles, roles_of};
use super::selection::{Part, Selection, select};
use super::sql::parse_table;
use super::toc::{Entry, Toc, TocError, parse_toc};
use crate::config::Postgres;
use crate::dump::{self, DumpedDatabase, Dumps, ObjectError, StoredObject};
use crate::log;
use crate::postgres;
use crate::restore::RestoreError;
use crate::restore::scratch::usable_bytes;

/// A plan, and what its restore works with.
pub(crate) struct PlannedRestore {
    pub plan: DumpRestorePlan,
    pub(super) destination: Destination,
    pub(super) request: DumpRestoreRequest,
    pub(super) dumped: DumpedDatabase,
    pub(super) globals: Option<String>,
    /// Whether the dump holds rows of unlogged tables.
    pub(super) unlogged: bool,
    pub(super) selection: Selection,
    /// The entries of the database itself: how it is made, and its properties.
    pub(super) of_database: Vec<Entry>,
}

/// Longer names are cut by the server.
const LONGEST_NAME: usize = 63;

/// Plans the restore of `request`; nothing is written.
///
/// # Errors
/// When a part of what it must know cannot be read, or there is nothing that could be restored.
pub(crate) async fn plan_restore(
    dumps: &Dumps,
    request: DumpRestoreRequest,
) -> Result<PlannedRestore, RestoreError> {
    let into = into_name(&request)?;
    let settings = request.target.as_ref().unwrap_or(&dumps.postgres);
    let destination = Destination::open(settings, &into).await?;
    let own = match &request.target {
        None => Some(destination.system_identifier),
        Some(_) => own_identifier(&dumps.postgres).await,
    };
    let listed = dump::list(dumps).await?;
    let wanted = Wanted {
        repository: &dumps.location.to_string(),
        set: request.set.as_deref(),
        database: &request.database,
        globals: request.globals,
        system_identifier: own,
        cluster: &dumps.cluster,
    };
    let choice = choose(&listed, &wanted)?;
    let toc = read_toc(dumps, &choice.database.dump).await?;
    let selection = select(&toc, &request.part, request.with_rows);
    let selection = selection.map_err(|error| RestoreError::Refused {
        reason: error.reason,
        hint: error.hint,
    })?;
    let globals = match request.globals {
        true => Some(read_globals(dumps, &choice.set.globals).await?),
        false => None,
    };
    let existing = destination.database(&into).await?;
    let found = Found {
        choice: &choice,
        toc: &toc,
        selection: &selection,
        globals: globals.as_deref(),
        existing: existing.as_ref(),
        destination: &destination,
        free: free(&request, &dumps.postgres),
    };
    let plan = found.plan(&request, into);
    let of_database = toc.entries.iter().filter(|it| is_of_database(it));
    let of_database = of_database.cloned().collect();
    let dumped = choice.database.clone();
    let unlogged = !choice.set.in_recovery || dumped.contents.dumped_from.is_some();
    Ok(PlannedRestore {
        plan,
        of_database,
        destination,
        request,
        dumped,
        globals,
        unlogged,
        selection,
    })
}

fn into_name(request: &DumpRestoreRequest) -> Result<String, RestoreError> {
    let refused = |reason, hint: &str| RestoreError::Refused {
        reason,
        hint: hint.to_owned(),
    };
    let beside = || format!("{}_restored", request.database);
    let into = request.into.clone().unwrap_or_else(beside);
    if into.len() > LONGEST_NAME || into.is_empty() || into.contains('\0') {
        return Err(refused(
            format!(
                "{into:?} cannot be a database's name: it has {} bytes",
                into.len()
            ),
            "name the restored database with --into, in at most 63 bytes",
        ));
    }
    if ["template0", "template1"].contains(&into.as_str()) {
        return Err(refused(
            format!("{into} is PostgreSQL's own template"),
            "restore it under another name (--into)",
        ));
    }
    Ok(into)
}

/// The system identifier of the configured server, where that answers.
async fn own_identifier(settings: &Postgres) -> Option<u64> {
    let connection = postgres::connect(&settings.into(), settings.connect_timeout).await;
    let server = postgres::server(&*connection.ok()?).await;
    server.ok().map(|server| server.system_identifier)
}

async fn read_globals(dumps: &Dumps, stored: &StoredObject) -> Result<String, RestoreError> {
    let bytes = dumps.read_object(stored).await.map_err(unread)?;
    String::from_utf8(bytes).map_err(|_| RestoreError::Refused {
        reason: "the globals are not in UTF-8, so xdb cannot tell their roles".to_owned(),
        hint: "create the roles with psql from the globals of the set (runbooks/dump_restore.md), then restore without --globals"
            .to_owned(),
    })
}

pub(super) fn unread(error: ObjectError) -> RestoreError {
    match error {
        ObjectError::Damaged(reason) => RestoreError::Bad(reason),
        ObjectError::Key { ref source, .. } => RestoreError::NotRestored {
            hint: source.hint(),
            reason: log::chain(&error),
        },
        ObjectError::Storage(error) => RestoreError::StorageLost {
            doing: "a dump was read",
            message: error.to_string(),
        },
    }
}

/// Reads as much of the dump as its table of contents takes.
async fn read_toc(dumps: &Dumps, stored: &StoredObject) -> Result<Toc, RestoreError> {
    let key = &stored.key;
    let mut object = dumps.open_object(stored);
    let (mut head, mut tried) = (Vec::new(), 0);
    loop {
        let more = object.next().await.map_err(unread)?;
        let at_end = more.is_none();
        head.extend_from_slice(&more.unwrap_or_default());
        // Each attempt reads from the beginning.
        if head.len() < 2 * tried && !at_end {
            continue;
        }
        tried = head.len();
        match parse_toc(&head) {
            Ok(toc) => return Ok(toc),
            Err(TocError::Incomplete) if !at_end => {}
            Err(TocError::Incomplete | TocError::NotADump) => {
                return Err(RestoreError::Bad(format!(
                    "{key} does not begin as a dump: its table of contents cannot be read"
                )));
            }
            Err(TocError::Version(major, minor)) => {
                return Err(RestoreError::Refused {
                    reason: format!(
                        "{key} is an archive of version {major}.{minor}, which this xdb does not know"
                    ),
                    hint: "restore it with an xdb of the version that made it, or with pg_restore"
                        .to_owned(),
                });
            }
        }
    }
}

/// What may be used where the restored database will be, on this node's own server: a twentieth of the volume is left to it.
fn free(request: &DumpRestoreRequest, own: &Postgres) -> Option<u64> {
    let is_own = request.target.is_none();
    is_own
        .then(|| usable_bytes(&own.data_directory).ok())
        .flatten()
}

/// Whether `pg_restore` leaves an entry to the one who makes the database.
fn is_of_database(entry: &Entry) -> bool {
    let about = ["ACL", "COMMENT", "SECURITY LABEL"].contains(&entry.kind.as_str());
    ["DATABASE", "DATABASE PROPERTIES"].contains(&entry.kind.as_str())
        || about && entry.tag.starts_with("DATABASE ")
}

struct Found<'a> {
    choice: &'a Choice<'a>,
    toc: &'a Toc,
    selection: &'a Selection,
    globals: Option<&'a str>,
    existing: Option<&'a Existing>,
    destination: &'a Destination,
    free: Option<u64>,
}

impl Found<'_> {
    /// The entries that are restored.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let ids = self.selection.ids.as_ref();
        let ids: Option<BTreeSet<i64>> = ids.map(|ids| ids.iter().copied().collect());
        self.toc.entries.iter().filter(move |entry| {
            is_of_database(entry) || ids.as_ref().is_none_or(|ids| ids.contains(&entry.id))
        })
    }

    fn plan(&self, request: &DumpRestoreRequest, into: String) -> DumpRestorePlan {
        let (set, database) = (self.choice.set, self.choice.database);
        let (roles_to_create, missing_roles) = self.roles(request.with_owners);
        let there = &self.destination.extensions;
        let extensions = self.tags_of("EXTENSION").into_iter();
        let missing_extensions = extensions.filter(|name| !there.contains(name)).collect();
        let mut left_out = self.selection.left_out.clone();
        let subscriptions = self.tags_of("SUBSCRIPTION").into_iter();
        left_out.extend(subscriptions.map(|name| {
            format!("subscription {name}: a copy must not take another server's changes")
        }));
        let is_whole = request.part == Part::Database && request.with_rows;
        let lacked = set.left_out.iter();
        let lacked = lacked.filter(|it| it.database.as_ref() == Some(&database.name));
        let lacked: Vec<String> = lacked.map(|it| it.what.clone()).collect();
        let lacks_rows = lacked.iter().any(|it| lacks_own_rows(it));
        left_out.extend(lacked);
        let rows: Vec<u64> = counted(database, self.selection)
            .map(|(_, rows)| rows)
            .collect();
        let estimated = database.contents.estimated_rows.keys();
        let estimated = estimated
            .filter(|it| is_selected(it, self.selection))
            .count();
        let mut plan = DumpRestorePlan {
            set: set.set.clone(),
            snapshot_at: database.snapshot_at,
            database: database.name.clone(),
            part: part_text(request),
            server: self.destination.shown(),
            replaces: self.existing.is_some() && request.clean,
            object: database.dump.key.clone(),
            read_bytes: database.dump.bytes,
            database_bytes: database.database_bytes.filter(|_| is_whole),
            free_bytes: self.free,
            tables: rows.len() + estimated,
            rows: if request.with_rows {
                rows.iter().sum()
            } else {
                0
            },
            roles_to_create,
            missing_roles,
            missing_extensions,
            missing_tablespaces: self.missing_tablespaces(),
            left_out,
            notes: self.choice.notes.clone(),
            refused: None,
            into,
        };
        if !request.with_rows {
            plan.notes.push("only the beginning of the object is read, so its SHA-256 is not checked (`xdb dump verify` does)".to_owned());
        }
        let at = Server {
            in_recovery: self.destination.in_recovery,
            major: self.destination.version / 10_000,
            dumped_major: set.server_version / 10_000,
        };
        if plan.replaces && lacks_rows {
            plan.refused = Some(lacked_rows(&plan));
            return plan;
        }
        plan.refused = judge_plan(&plan, at, self.existing, request.clean);
        plan
    }

    fn tags_of(&self, kind: &str) -> BTreeSet<String> {
        let of_kind = self.entries().filter(|entry| entry.kind == kind);
        of_kind.map(|entry| entry.tag.clone()).collect()
    }

    /// The roles that are made, and those that are missing all the same.
    fn roles(&self, with_owners: bool) -> (Vec<String>, Vec<String>) {
        let there = &self.destination.roles;
        let made = self.globals.map(roles_of).unwrap_or_default();
        let needed = needed_roles(self.entries(), with_owners);
        let missing = needed
            .into_iter()
            .filter(|role| !there.contains(role) && !made.contains(role));
        let made = made.iter().filter(|role| !there.contains(*role));
        (made.cloned().collect(), missing.collect())
    }

    fn missing_tablespaces(&self) -> Vec<String> {
        let there = &self.destination.tablespaces;
        let used: BTreeSet<&str> = self
            .entries()
            .map(|entry| entry.tablespace.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        let missing = used
            .into_iter()
            .filter(|name| !there.iter().any(|it| it == name));
        missing.map(str::to_owned).collect()
    }
}

fn part_text(request: &DumpRestoreRequest) -> String {
    let database = &request.database;
    let part = match &request.part {
        Part::Database => format!("the database {database}"),
        Part::Tables(names) if names.len() == 1 => format!("the table {} of {database}", names[0]),
        Part::Tables(names) => format!("the tables {} of {database}", names.join(", ")),
        Part::Schema(schema) => format!("the schema {schema} of {database}"),
    };
    match request.with_rows {
        true => part,
        false => format!("{part}, without rows"),
    }
}

/// The tables of the manifest that are restored with their rows, and how many rows each has.
pub(super) fn counted<'a>(
    database: &'a DumpedDatabase,
    selection: &'a Selection,
) -> impl Iterator<Item = (&'a String, u64)> {
    let rows = database.rows.iter().map(|(name, rows)| (name, *rows));
    rows.filter(|(name, _)| is_selected(name, selection))
}

/// Whether the table of this quoted name is restored with its rows.
pub(super) fn is_selected(name: &str, selection: &Selection) -> bool {
    let Some(tables) = &selection.tables else {
        return true;
    };
    match parse_table(name) {
        Some((Some(schema), table)) => tables.contains(&(schema, table)),
        _ => false,
    }
}
