//! The live server of this node, which the restore is compared with. It is only queried, never changed.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::config::Postgres;
use crate::model::{Verdict, WalSegment};
use crate::postgres::{self, Archiver, PostgresError, Server};
use crate::repository::catalog::Catalog;

/// This node's server as it was when the test began.
#[derive(Debug)]
pub struct Live {
    pub server: Server,
    pub archiver: Archiver,
    /// Names of the programs that read or write all of it now.
    pub heavy: Vec<String>,
    /// How far this node's clock is behind the primary's at least; `None` where nothing shows that it is.
    pub clock_behind: Option<Duration>,
}

/// Why this node's server could not be queried.
#[derive(Debug, Clone)]
pub enum Silent {
    /// Nothing listens here.
    Absent(String),
    /// The server is another cluster's.
    Foreign(String),
    /// There is a server, and a query failed.
    Failed(String),
}

impl Silent {
    /// Whether this node has no server of this cluster. A failed query does not prove that.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Foreign(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::Foreign(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Looks at the server of `settings`.
///
/// # Errors
/// Why it could not be looked at.
pub async fn look(settings: &Postgres) -> Result<Live, Silent> {
    let limit = Duration::from_secs(10);
    let connection = postgres::connect(&settings.into(), limit)
        .await
        .map_err(|error| {
            let reason = format!("this node's server cannot be asked: {error}");
            match &error {
                PostgresError::Connect { error, .. } if nothing_listens(error) => {
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

/// Whether a connection failed because no server listens; not for a timeout, a name without an address, or TLS.
fn nothing_listens(error: &(dyn std::error::Error + 'static)) -> bool {
    const NOTHING: [ErrorKind; 2] = [ErrorKind::ConnectionRefused, ErrorKind::NotFound];
    let causes = std::iter::successors(Some(error), |error| error.source());
    let kinds = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    // The last one is the cause of the others.
    kinds
        .last()
        .is_some_and(|error| NOTHING.contains(&error.kind()))
}

/// The last segment that a primary is known to have archived, from this node's server or the high-water mark. A standby's
/// archiver does not count: it skips segments that the archive does not hold.
pub fn archived(live: Option<&Live>, catalog: &Catalog) -> Option<WalSegment> {
    let last = live
        .filter(|live| !live.server.in_recovery)
        .and_then(|live| live.archiver.last_archived.as_deref())
        .and_then(|last| segment_of(last, catalog));
    last.max(catalog.marked_end())
}

/// The segment that the name of an archived file begins with; `None` for a timeline's history.
fn segment_of(file: &str, catalog: &Catalog) -> Option<WalSegment> {
    WalSegment::parse(file.get(..24)?, catalog.wal.size).ok()
}

/// Whether the bucket holds what PostgreSQL archived last: a missing last segment cannot be seen in a bucket alone.
pub fn judge_archive_end(live: &Result<Live, Silent>, catalog: &Catalog) -> Verdict {
    let live = match live {
        Ok(live) => live,
        Err(silent) => return judge_mark(silent.reason(), catalog),
    };
    let Some(last) = live.archiver.last_archived.as_deref() else {
        return judge_mark("this server has archived nothing yet", catalog);
    };
    let Some(segment) = segment_of(last, catalog) else {
        return judge_mark(&format!("{last} was archived last"), catalog);
    };
    let whole = last.len() == 24;
    let newest = catalog.wal.newest(segment.timeline);
    match newest {
        Some(_) if catalog.wal.get(segment).is_some() => Verdict::Ok,
        // A partial segment's or backup history's own segment may follow later.
        Some(newest) if !whole && newest.number + 1 >= segment.number => Verdict::Ok,
        // A standby's archiver skips segments that the primary stored, and those that the archive does not hold.
        _ if live.server.in_recovery => {
            judge_mark(&format!("this standby passed over {last}"), catalog)
        }
        _ => Verdict::Critical(format!(
            "PostgreSQL archived {last}, and the repository does not hold it: its newest segment is {}",
            newest.map_or_else(
                || "none".to_owned(),
                |segment| segment.name(catalog.wal.size)
            )
        )),
    }
}

fn lost_words(lost: WalSegment, catalog: &Catalog) -> String {
    format!(
        "{} was archived last, by the high-water mark, and the repository does not hold it",
        lost.name(catalog.wal.size)
    )
}

/// Judges by the high-water mark in the bucket where this node's server does not know what was archived last, for `reason`.
fn judge_mark(reason: &str, catalog: &Catalog) -> Verdict {
    match catalog.lost_end() {
        Ok(None) => Verdict::Ok,
        Ok(Some(lost)) => Verdict::Critical(lost_words(lost, catalog)),
        Err(unmarked) => Verdict::Unknown(format!(
            "the end of the archive is unverified: {reason}, and {unmarked}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Outer(#[source] io::Error);

    #[test]
    fn only_a_server_that_is_not_there_is_nothing_to_look_at() {
        for (kind, expected) in [
            (ErrorKind::ConnectionRefused, true),
            (ErrorKind::NotFound, true),
            (ErrorKind::TimedOut, false),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::ConnectionReset, false),
        ] {
            let error = Outer(io::Error::from(kind));
            assert_eq!(nothing_listens(&error), expected, "{kind}");
        }
        let words = String::new;
        assert!(Silent::Absent(words()).is_nothing() && Silent::Foreign(words()).is_nothing());
        assert!(!Silent::Failed(words()).is_nothing());
    }
}
