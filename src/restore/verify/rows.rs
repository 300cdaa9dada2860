//! The restored rows against the live server's: what was there before the backup, and still is, must have come back.
//!
//! Counting both and allowing for a difference would be wrong on a busy night. A live row whose inserting transaction had
//! ended before the backup's checkpoint was in the backup, and as it lives now it lived at every moment since: the restored
//! table holds at least so many rows, however much is written meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::databases::{Name, name_bytes};
use super::object_findings::{DATABASES, list_first};
use crate::model::Verdict;
use crate::postgres::{self, Connection, PostgresError, Target};

/// Bytes of a table that are read on the live server; of a larger one a sample is counted.
const READ: u64 = 64 << 20;
/// The share of a sample's count that may be its error.
const ERROR: f64 = 0.1;
/// One statement on the live server.
const STATEMENT: Duration = Duration::from_secs(10);
/// All of them: the live server has other work.
const IN_ALL: Duration = Duration::from_secs(120);
/// Names in one reason; the rest are counted.
const NAMED: usize = 3;

/// Restored rows by database and table, the latter schema-qualified and quoted; `None` where they were not read.
pub(crate) type RestoredRows = BTreeMap<String, Option<BTreeMap<String, Option<u64>>>>;

/// The result of the comparison.
#[derive(Debug, Default)]
struct RowComparison {
    tables: usize,
    missing: Vec<String>,
    /// What could not be compared, and why.
    left_out: Vec<String>,
    /// Databases that refuse each login, and why.
    closed: Vec<String>,
}

/// Compares `restored` with the live server `live`, one connection at a time; `ended_before` is the first transaction that
/// may not have ended at the backup's checkpoint.
///
/// # Errors
/// When the live server cannot be queried at all.
pub(crate) async fn check_rows(
    live: &Target,
    restored: &RestoredRows,
    ended_before: u32,
) -> Result<Verdict, PostgresError> {
    let deadline = Instant::now() + IN_ALL;
    let mut compared = RowComparison::default();
    let connection = postgres::connect(live, STATEMENT).await?;
    let databases = databases(&connection, ended_before).await?;
    drop(connection);
    for (database, closed) in databases {
        let counts = match (restored.get(&database), closed) {
            (None, _) => {
                let reason = format!(
                    "database {database} is on the live server since before the backup, and was not restored"
                );
                compared.missing.push(reason);
                continue;
            }
            (_, Some(reason)) => {
                compared.closed.push(format!("{database}: {reason}"));
                continue;
            }
            (Some(None), None) => {
                compared
                    .left_out
                    .push(format!("{database}: it was not read"));
                continue;
            }
            (Some(Some(counts)), None) => counts,
        };
        let target = Target {
            database: database.clone(),
            ..live.clone()
        };
        let result = compare(&target, counts, ended_before, deadline, &mut compared).await;
        if let Err(error) = result {
            compared.left_out.push(format!("{database}: {error}"));
        }
    }
    Ok(judge(&compared))
}

async fn compare(
    live: &Target,
    restored: &BTreeMap<String, Option<u64>>,
    ended_before: u32,
    deadline: Instant,
    compared: &mut RowComparison,
) -> Result<(), PostgresError> {
    let connection = postgres::connect(live, STATEMENT).await?;
    for table in tables(&connection, ended_before).await? {
        let named = format!("{}: {}", live.database, table.name.text);
        let rows = match restored.get(&table.name.text) {
            Some(Some(rows)) => rows,
            Some(None) => {
                compared.left_out.push(format!("{named}: it was not read"));
                continue;
            }
            None => {
                let reason = format!(
                    "{named} is on the live server since before the backup, and was not restored"
                );
                compared.missing.push(reason);
                continue;
            }
        };
        let left_out = match table.name.is_exact {
            true if Instant::now() <= deadline => None,
            true => Some("there was no time left"),
            false => Some("its name is not UTF-8"),
        };
        if let Some(reason) = left_out {
            compared.left_out.push(format!("{named}: {reason}"));
            continue;
        }
        let mut counted = count(&connection, &table, ended_before, READ).await;
        if let Ok(about @ LiveRows::About(_)) = counted
            && judge_table(&named, *rows, about).is_some()
        {
            counted = count_all(live, &table, ended_before, deadline).await;
        }
        match counted {
            Ok(live) => {
                compared.tables += 1;
                compared.missing.extend(judge_table(&named, *rows, live));
            }
            // Locked, or cancelled by replay: nothing is known of this one.
            Err(error) => compared.left_out.push(format!("{named}: {error}")),
        }
    }
    Ok(())
}

/// Counts all of a larger table: a sample alone blames no restore, for where few pages hold most rows it misses by far
/// more than its usual error.
async fn count_all(
    live: &Target,
    table: &Table,
    ended_before: u32,
    deadline: Instant,
) -> Result<LiveRows, PostgresError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let connection = postgres::connect(live, left.max(STATEMENT)).await?;
    count(&connection, table, ended_before, u64::MAX).await
}

/// A table of the live server.
struct Table {
    name: Name,
    oid: u32,
}

/// Rows from before the backup.
#[derive(Debug, Clone, Copy)]
enum LiveRows {
    Counted(u64),
    /// From a sample.
    About(u64),
}

fn judge_table(named: &str, restored: u64, live: LiveRows) -> Option<String> {
    let (least, about, rows) = match live {
        LiveRows::Counted(rows) => (rows, "", rows),
        LiveRows::About(rows) => ((rows as f64 * (1.0 - ERROR)) as u64, "about ", rows),
    };
    (restored < least).then(|| {
        format!("{named}: {restored} rows were restored, and {about}{rows} from before the backup are on the live server")
    })
}

fn judge(compared: &RowComparison) -> Verdict {
    let left_out = list_first(&compared.left_out, NAMED);
    let closed = list_first(&compared.closed, DATABASES);
    let is_unknown = left_out.is_some();
    let all: Vec<String> = [closed, left_out].into_iter().flatten().collect();
    if let Some(missing) = list_first(&compared.missing, NAMED) {
        return Verdict::Critical(missing);
    }
    let reason = format!(
        "{} tables hold all their rows; not compared: {}",
        compared.tables,
        all.join("; ")
    );
    match all.as_slice() {
        [] => Verdict::Ok,
        _ if is_unknown => Verdict::Unknown(reason),
        _ => Verdict::Warning(reason),
    }
}

/// Catalog rows that an older transaction wrote: what was made or renamed since may rightly be missing.
fn is_older(column: &str, ended_before: u32) -> String {
    format!("pg_catalog.age({column}) > pg_catalog.age('{ended_before}'::xid)")
}

/// Databases from before the backup, each with the reason why it refuses each login; without `template0`, which is never open.
async fn databases(
    connection: &Connection,
    ended_before: u32,
) -> Result<Vec<(String, Option<&'static str>)>, PostgresError> {
    let query = format!(
        "SELECT {} AS name, datallowconn AS allows, datconnlimit = -2 AS invalid
           FROM pg_catalog.pg_database
          WHERE (datallowconn OR datname <> 'template0') AND {} ORDER BY datname",
        name_bytes("datname::text"),
        is_older("xmin", ended_before)
    );
    let what = "for its databases";
    let failed = |error| PostgresError::Query { what, error };
    let rows = connection.query(&query, &[]).await.map_err(failed)?;
    let database = |row: &Row| -> Result<_, tokio_postgres::Error> {
        let name = Name::get(row, "name")?;
        let (allows, invalid): (bool, bool) = (row.try_get("allows")?, row.try_get("invalid")?);
        let closed = match (invalid, allows, name.is_exact) {
            (true, ..) => Some("an interrupted DROP DATABASE left it"),
            (_, false, _) => Some("it allows no connections"),
            (_, _, false) => Some("its name is not UTF-8"),
            _ => None,
        };
        Ok((name.text, closed))
    };
    rows.iter()
        .map(|row| database(row).map_err(failed))
        .collect()
}

/// Ordinary tables and materialized views; an unlogged one comes back empty, and rightly so.
async fn tables(connection: &Connection, ended_before: u32) -> Result<Vec<Table>, PostgresError> {
    let query = format!(
        "SELECT {} AS name, c.oid
           FROM pg_catalog.pg_class AS c
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated
            AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND {} AND {}
          ORDER BY n.nspname, c.relname",
        name_bytes("pg_catalog.format('%I.%I', n.nspname, c.relname)"),
        is_older("c.xmin", ended_before),
        is_older("n.xmin", ended_before)
    );
    let what = "for its tables";
    let rows = connection
        .query(&query, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    let table = |row: &Row| -> Result<Table, tokio_postgres::Error> {
        Ok(Table {
            name: Name::get(row, "name")?,
            oid: row.try_get("oid")?,
        })
    };
    rows.iter()
        .map(|row| table(row).map_err(|_| PostgresError::Answer { what }))
        .collect()
}

/// Reads about `bytes` of the table at most.
async fn count(
    connection: &Connection,
    table: &Table,
    ended_before: u32,
    bytes: u64,
) -> Result<LiveRows, PostgresError> {
    let share = bytes as f64 / size(connection, table).await?.max(1) as f64;
    let sample = if share < 1.0 {
        format!("TABLESAMPLE SYSTEM ({})", share * 100.0)
    } else {
        String::new()
    };
    let query = format!(
        "SELECT pg_catalog.count(*) FROM ONLY {} {sample} WHERE {}",
        table.name.text,
        is_older("xmin", ended_before)
    );
    let what = "for its rows";
    let row = connection
        .query_one(&query, &[])
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    let rows: i64 = row.try_get(0).map_err(|_| PostgresError::Answer { what })?;
    let rows = rows.cast_unsigned();
    Ok(if share < 1.0 {
        LiveRows::About((rows as f64 / share) as u64)
    } else {
        LiveRows::Counted(rows)
    })
}

/// The bytes of a table. For one table after the other: to ask is to wait for its lock.
async fn size(connection: &Connection, table: &Table) -> Result<u64, PostgresError> {
    const QUERY: &str = "SELECT pg_catalog.pg_relation_size($1::pg_catalog.oid) AS bytes";
    let what = "for a table's size";
    let failed = |error| PostgresError::Query { what, error };
    let row = connection
        .query_one(QUERY, &[&table.oid])
        .await
        .map_err(failed)?;
    let bytes: Option<i64> = row.try_get("bytes").map_err(failed)?;
    // NULL where it was dropped a moment ago.
    Ok(bytes.unwrap_or_default().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_lost_rows_is_named_and_one_that_gained_some_is_not() {
        for (restored, live, lost) in [
            (10, LiveRows::Counted(10), false),
            (15, LiveRows::Counted(10), false),
            (9, LiveRows::Counted(10), true),
            (905, LiveRows::About(1000), false),
            (890, LiveRows::About(1000), true),
        ] {
            let judged = judge_table("shop: public.orders", restored, live);
            assert_eq!(judged.is_some(), lost, "{restored} {live:?}");
        }
        let reason = judge_table("shop: public.orders", 9, LiveRows::Counted(10)).unwrap();
        assert!(reason.starts_with("shop: public.orders: 9 rows were restored, and 10"));
    }

    #[test]
    fn what_was_not_compared_is_said_and_what_is_missing_comes_first() {
        let mut compared = RowComparison {
            tables: 2,
            left_out: vec!["shop: a: timeout".to_owned()],
            ..RowComparison::default()
        };
        assert_eq!(
            judge(&compared).reason(),
            Some("2 tables hold all their rows; not compared: shop: a: timeout")
        );
        compared.closed = vec!["half: dropped".to_owned()];
        assert!(
            judge(&compared)
                .reason()
                .unwrap()
                .ends_with("half: dropped; shop: a: timeout")
        );
        compared.left_out.clear();
        assert!(matches!(judge(&compared), Verdict::Warning(_)));
        compared.missing = (1..=5).map(|n| format!("t{n}")).collect();
        assert_eq!(
            judge(&compared),
            Verdict::Critical("t1; t2; t3; and 2 more".to_owned())
        );
        assert_eq!(judge(&RowComparison::default()), Verdict::Ok);
    }
}
