//! The live server of this node: what the restore is measured against. Looked at, never touched.

use std::time::Duration;

use crate::archive::catalog::Catalog;
use crate::config::Config;
use crate::model::{Verdict, WalSegment};
use crate::postgres::{self, Archiver, PostgresError, Server};

/// This node's server as it was when the test began.
#[derive(Debug)]
pub struct Live {
    pub server: Server,
    pub archiver: Archiver,
    /// What else reads or writes all of it now, by its name.
    pub heavy: Vec<String>,
    /// How far this node's clock is behind the primary's at least; `None` where nothing shows that it is.
    pub clock_behind: Option<Duration>,
}

/// Why this node's server says nothing.
#[derive(Debug, Clone)]
pub enum Silent {
    /// There is none of this cluster here: nothing to be known, and no reason to fail a test.
    Absent(String),
    /// There is one, of another cluster.
    Foreign(String),
    /// There is one, and the look failed.
    Failed(String),
}

impl Silent {
    pub fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::Foreign(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Looks at the server of `config`.
///
/// # Errors
/// Why it could not be looked at.
pub async fn look(config: &Config) -> Result<Live, Silent> {
    let limit = Duration::from_secs(10);
    let connection = postgres::connect(&(&config.postgres).into(), limit)
        .await
        .map_err(|error| {
            let reason = format!("this node's server cannot be asked: {error}");
            // Nothing listens, or it is not up: no code of PostgreSQL's came back.
            match &error {
                PostgresError::Connect { error, .. } if error.code().is_none() => {
                    Silent::Absent(reason)
                }
                _ => Silent::Failed(reason),
            }
        })?;
    let no = |error| Silent::Failed(format!("this node's server cannot be asked: {error}"));
    let server = postgres::server(&connection).await.map_err(no)?;
    let archiver = postgres::archiver(&connection).await.map_err(no)?;
    let heavy = postgres::heavy_work(&connection).await.map_err(no)?;
    let clock_behind = postgres::clock_behind(&connection).await.map_err(no)?;
    Ok(Live {
        server,
        archiver,
        heavy,
        clock_behind,
    })
}

/// Whether the bucket holds what PostgreSQL archived last: a missing last segment cannot be seen in a bucket alone.
pub fn judge_archive_end(live: &Result<Live, Silent>, catalog: &Catalog) -> Verdict {
    let live = match live {
        Ok(live) => live,
        Err(silent) => return judge_mark(silent, catalog),
    };
    let Some(last) = live.archiver.last_archived.as_deref() else {
        return Verdict::Unknown(
            "the end of the archive is unverified: this server has archived nothing yet".into(),
        );
    };
    // Backup histories and partial segments begin with their segment's name; a timeline history has none.
    let Some(segment) = last
        .get(..24)
        .and_then(|name| WalSegment::parse(name, catalog.wal.size).ok())
    else {
        return Verdict::Unknown(format!(
            "the end of the archive is unverified: {last} was archived last"
        ));
    };
    let whole = last.len() == 24;
    let newest = catalog.wal.newest(segment.timeline);
    match newest {
        Some(_) if catalog.wal.get(segment).is_some() => Verdict::Ok,
        // A partial segment's or backup history's own segment may follow later.
        Some(newest) if !whole && newest.number + 1 >= segment.number => Verdict::Ok,
        // Its archiver also lets go what can no longer come.
        _ if live.server.in_recovery => judge_mark_on_standby(last, catalog),
        _ => Verdict::Critical(format!(
            "PostgreSQL archived {last}, and the repository does not hold it: its newest segment is {}",
            newest.map_or_else(
                || "none".to_owned(),
                |segment| segment.name(catalog.wal.size)
            )
        )),
    }
}

/// A standby passes over what the primary stored, and over what is in no archive: by the mark of the primary.
fn judge_mark_on_standby(last: &str, catalog: &Catalog) -> Verdict {
    match catalog.lost_end() {
        Ok(None) => Verdict::Ok,
        Ok(Some(lost)) => Verdict::Critical(lost_words(lost, catalog)),
        Err(unmarked) => Verdict::Unknown(format!(
            "the end of the archive is unverified: this standby passed over {last}, and {unmarked}"
        )),
    }
}

fn lost_words(lost: WalSegment, catalog: &Catalog) -> String {
    format!(
        "{} was archived last, by the high-water mark, and the repository does not hold it",
        lost.name(catalog.wal.size)
    )
}

/// Without a server here, the high-water mark in the bucket tells what was archived last.
fn judge_mark(silent: &Silent, catalog: &Catalog) -> Verdict {
    match catalog.lost_end() {
        Ok(None) => Verdict::Ok,
        Ok(Some(lost)) => Verdict::Critical(lost_words(lost, catalog)),
        Err(unmarked) => Verdict::Unknown(format!(
            "the end of the archive is unverified: {}, and {unmarked}",
            silent.reason()
        )),
    }
}
