//! The inventory of a server: the databases to dump, and the objects that no dump holds.

use serde::{Deserialize, Serialize};

use super::is_own;
use crate::config::Postgres;
use crate::postgres::{self, Connection, PostgresError, Target};

/// An object of the server that no dump of the set holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// `None` where it belongs to no database.
    pub database: Option<String>,
    /// With the reason.
    pub what: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.database {
            Some(database) => write!(f, "database {database}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What was found on a server.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The role that initdb made, by its current name.
    pub initdb_role: String,
    /// Of the session that looks, and of its database.
    pub is_superuser: bool,
    pub encoding: String,
    /// `server_version`.
    pub version: String,
    pub databases: Vec<String>,
    pub left_out: Vec<LeftOut>,
}

/// Looks at the server of `settings`, over a `connection` to it.
///
/// # Errors
/// When a query fails.
pub(crate) async fn inventory(
    settings: &Postgres,
    connection: &Connection,
) -> Result<Inventory, PostgresError> {
    // BOOTSTRAP_SUPERUSERID.
    const SELF: &str = "
        SELECT rolname::text AS name, pg_catalog.current_setting('is_superuser') = 'on' AS is_superuser,
               pg_catalog.current_setting('server_encoding') AS encoding,
               pg_catalog.current_setting('server_version') AS version
          FROM pg_catalog.pg_roles WHERE oid = 10";
    const DATABASES: &str = "
        SELECT datname::text AS name, datallowconn AS open, datistemplate AS template, datconnlimit AS connection_limit
          FROM pg_catalog.pg_database ORDER BY datname";
    let failed = |error| PostgresError::Query {
        what: "for its databases",
        error,
    };
    let row = connection.query_one(SELF, &[]).await.map_err(failed)?;
    let mut found = Inventory {
        initdb_role: row.try_get("name").map_err(failed)?,
        is_superuser: row.try_get("is_superuser").map_err(failed)?,
        encoding: row.try_get("encoding").map_err(failed)?,
        version: row.try_get("version").map_err(failed)?,
        databases: Vec::new(),
        left_out: Vec::new(),
    };
    for row in connection.query(DATABASES, &[]).await.map_err(failed)? {
        let database = Database {
            name: row.try_get("name").map_err(failed)?,
            open: row.try_get("open").map_err(failed)?,
            template: row.try_get("template").map_err(failed)?,
            connection_limit: row.try_get("connection_limit").map_err(failed)?,
        };
        let mut decision = judge_database(&database);
        if decision == Decision::IfNotEmpty {
            decision = match is_empty(settings, &database.name).await {
                Ok(true) => Decision::Nothing,
                Ok(false) => Decision::Dump,
                Err(error) if is_refusal(&error) => {
                    Decision::LeaveOut(format!("what it holds is unknown: {error}"))
                }
                // It may hold data, so that a set without it would be incomplete.
                Err(error) => return Err(error),
            };
        }
        match decision {
            Decision::Dump => found.databases.push(database.name),
            Decision::LeaveOut(what) => found.left_out.push(LeftOut {
                database: Some(database.name),
                what,
            }),
            Decision::Nothing | Decision::IfNotEmpty => {}
        }
    }
    found.left_out.extend(slots(connection).await?);
    Ok(found)
}

#[derive(Debug)]
struct Database {
    name: String,
    /// `ALLOW_CONNECTIONS`.
    open: bool,
    template: bool,
    /// -2: a `DROP DATABASE` was interrupted.
    connection_limit: i32,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Dump,
    /// A template that initdb made.
    IfNotEmpty,
    LeaveOut(String),
    /// initdb makes an equal one.
    Nothing,
}

fn judge_database(database: &Database) -> Decision {
    let by_initdb = ["template0", "template1"].contains(&database.name.as_str());
    if is_own(&database.name, database.connection_limit) {
        // A copy that `xdb dump restore` makes now, or left behind.
        return Decision::Nothing;
    }
    if database.connection_limit == -2 {
        let what = "an interrupted DROP DATABASE left it, and nothing can be read of it";
        return Decision::LeaveOut(what.to_owned());
    }
    match (database.open, database.template && by_initdb) {
        (true, true) => Decision::IfNotEmpty,
        (true, false) => Decision::Dump,
        (false, true) if database.name == "template0" => Decision::Nothing,
        (false, _) => Decision::LeaveOut("it allows no connections".to_owned()),
    }
}

/// Whether the server refuses every login, as to a database that allows no connections.
fn is_refusal(error: &PostgresError) -> bool {
    let (PostgresError::Connect { error, .. } | PostgresError::Query { error, .. }) = error else {
        return false;
    };
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    code.is_some_and(is_refused)
}

fn is_refused(code: &str) -> bool {
    // invalid_authorization_specification, insufficient_privilege, object_not_in_prerequisite_state.
    code.starts_with("28") || ["42501", "55000"].contains(&code)
}

/// Whether `database` holds nothing that was made since initdb.
async fn is_empty(settings: &Postgres, database: &str) -> Result<bool, PostgresError> {
    // FirstNormalObjectId. Temporary tables leave their schemas behind.
    const QUERY: &str = "
        WITH kept AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_')
        SELECT NOT EXISTS (SELECT FROM kept WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid >= 16384 AND relnamespace IN (SELECT oid FROM kept))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid >= 16384 AND typnamespace IN (SELECT oid FROM kept))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_language WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_collation WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_conversion WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_cast WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_ts_config WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_ts_dict WHERE oid >= 16384)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_default_acl)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s
                             JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
                            WHERE d.datname = pg_catalog.current_database()) AS empty";
    let target = Target {
        database: database.to_owned(),
        ..settings.into()
    };
    let failed = |error| PostgresError::Query {
        what: "what a template holds",
        error,
    };
    let connection = postgres::connect(&target, settings.connect_timeout).await?;
    let row = connection.query_one(QUERY, &[]).await.map_err(failed)?;
    row.try_get("empty").map_err(failed)
}

/// The logical replication slots. A physical slot belongs to its node.
async fn slots(connection: &Connection) -> Result<Option<LeftOut>, PostgresError> {
    const QUERY: &str = "
        SELECT pg_catalog.string_agg(slot_name, ', ' ORDER BY slot_name) AS names
          FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary";
    let failed = |error| PostgresError::Query {
        what: "for its replication slots",
        error,
    };
    let row = connection.query_one(QUERY, &[]).await.map_err(failed)?;
    let names: Option<String> = row.try_get("names").map_err(failed)?;
    Ok(names.map(|names| LeftOut {
        database: None,
        what: format!("logical replication slots: {names}"),
    }))
}

/// The objects of `database`, that of `connection`, that `pg_dump` does not write. On a standby it writes no rows of `unlogged`
/// tables either.
///
/// # Errors
/// When the query fails.
pub(super) async fn not_in_dump(
    connection: &Connection,
    database: &str,
    unlogged: bool,
) -> Result<Vec<LeftOut>, PostgresError> {
    const QUERY: &str = "
        WITH relations AS (
            SELECT c.oid, c.relkind, c.relpersistence, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
                   (SELECT e.extconfig IS NULL OR c.oid <> ALL (e.extconfig) FROM pg_catalog.pg_extension AS e
                     WHERE e.oid = d.refobjid) AS extensions_own
              FROM pg_catalog.pg_class AS c
              JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              LEFT JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   AND d.objid = c.oid AND d.deptype = 'e'
             WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'),
        missing AS (
            SELECT 'rows of foreign tables, which are on other servers' AS what, name FROM relations WHERE relkind = 'f'
            UNION ALL
            SELECT 'rows of unlogged tables, which a standby does not have', name FROM relations
             WHERE relkind = 'r' AND relpersistence = 'u' AND NOT $1
            UNION ALL
            SELECT 'rows that an extension keeps and does not mark as configuration', name FROM relations
             WHERE relkind = 'r' AND extensions_own AND pg_catalog.pg_relation_size(oid) > 0
            UNION ALL
            SELECT 'indexes that are not valid', r.name FROM relations AS r
              JOIN pg_catalog.pg_index AS i ON i.indexrelid = r.oid WHERE r.relkind = 'i' AND NOT i.indisvalid
            UNION ALL
            SELECT 'subscriptions, which only a superuser dumps', pg_catalog.quote_ident(s.subname)
              FROM pg_catalog.pg_subscription AS s JOIN pg_catalog.pg_database AS b ON b.oid = s.subdbid
             WHERE b.datname = pg_catalog.current_database() AND pg_catalog.current_setting('is_superuser') <> 'on'
            UNION ALL
            SELECT 'passwords of user mappings, which only a superuser reads', pg_catalog.quote_ident(srvname)
              FROM pg_catalog.pg_user_mappings WHERE pg_catalog.current_setting('is_superuser') <> 'on')
        SELECT what, pg_catalog.count(*) AS number,
               pg_catalog.array_to_string((pg_catalog.array_agg(name ORDER BY name))[1:3], ', ') AS named
          FROM missing GROUP BY what ORDER BY what";
    let failed = |error| PostgresError::Query {
        what: "what no dump holds",
        error,
    };
    let rows = connection.query(QUERY, &[&unlogged]).await;
    let rows = rows.map_err(failed)?;
    let left_out = rows.iter().map(|row| {
        let (what, named): (String, String) = (row.try_get("what")?, row.try_get("named")?);
        let number: i64 = row.try_get("number")?;
        let more = if number > 3 {
            format!(" and {} more", number - 3)
        } else {
            String::new()
        };
        Ok(LeftOut {
            database: Some(database.to_owned()),
            what: format!("{what}: {named}{more}"),
        })
    });
    let left_out: Result<Vec<_>, tokio_postgres::Error> = left_out.collect();
    left_out.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::mark_of;

    #[test]
    fn a_database_is_dumped_or_named_or_made_by_initdb() {
        const COPY: &str = "xdb_restore_0123456789abcdef";
        let named = |name: &str, (open, template, dropped): (bool, bool, bool)| {
            judge_database(&Database {
                name: name.to_owned(),
                open,
                template,
                connection_limit: if dropped { -2 } else { -1 },
            })
        };
        let left_out = |decision| matches!(decision, Decision::LeaveOut(_));
        assert_eq!(named("app", (true, false, false)), Decision::Dump);
        assert_eq!(named("gold", (true, true, false)), Decision::Dump);
        assert!(left_out(named("app", (false, false, false))));
        assert!(left_out(named("gold", (false, true, false))));
        assert!(left_out(named("app", (true, false, true))));
        assert_eq!(named("template0", (false, true, false)), Decision::Nothing);
        assert_eq!(
            named("template0", (true, true, false)),
            Decision::IfNotEmpty
        );
        assert_eq!(
            named("template1", (true, true, false)),
            Decision::IfNotEmpty
        );
        assert!(left_out(named("template1", (false, true, false))));
        // Without the mark of a template it is a database like others.
        assert_eq!(named("template1", (true, false, false)), Decision::Dump);
        for (limit, decision) in [(-1, Decision::Dump), (mark_of(COPY), Decision::Nothing)] {
            let database = Database {
                name: COPY.to_owned(),
                open: true,
                template: false,
                connection_limit: limit,
            };
            assert_eq!(judge_database(&database), decision);
        }
    }

    #[test]
    fn a_template_is_left_out_only_where_the_server_never_lets_xdb_in() {
        for (code, refused) in [
            ("28000", true),
            ("28P01", true),
            ("42501", true),
            ("55000", true),
            ("53300", false),
            ("55P03", false),
            ("57014", false),
            ("57P03", false),
            ("58P01", false),
            ("XX001", false),
        ] {
            assert_eq!(is_refused(code), refused, "{code}");
        }
    }
}
