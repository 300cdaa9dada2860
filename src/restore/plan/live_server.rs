//! The live server of this node, which the restore is compared with. It is only queried, never changed.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::config::Postgres;
use crate::model::WalSegment;
use crate::postgres::{self, Archiver, PostgresError, ServerIdentity};
use crate::repository::catalog::Catalog;

/// This node's server as it was when the test began.
#[derive(Debug)]
pub(crate) struct LiveServer {
    pub server: ServerIdentity,
    pub archiver: Archiver,
    /// Names of the programs that read or write all of it now.
    pub heavy: Vec<String>,
    /// How far this node's clock is behind the primary's at least; `None` where nothing shows that it is.
    pub clock_behind: Option<Duration>,
}

/// Why this node's server could not be queried.
#[derive(Debug, Clone)]
pub(crate) enum NoLiveServer {
    /// Nothing listens here.
    Absent(String),
    /// The server is another cluster's.
    Foreign(String),
    /// There is a server, and a query failed.
    Failed(String),
}

impl NoLiveServer {
    /// Whether this node has no server of this cluster. A failed query does not prove that.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Foreign(_))
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::Foreign(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Queries the server of `settings`.
///
/// # Errors
/// Why it could not be queried.
pub(crate) async fn read_live_server(settings: &Postgres) -> Result<LiveServer, NoLiveServer> {
    let limit = Duration::from_secs(10);
    let connection = postgres::connect(&settings.into(), limit)
        .await
        .map_err(|error| {
            let reason = format!("this node's server cannot be asked: {error}");
            match &error {
                PostgresError::Connect { error, .. } if nothing_listens(error) => {
                    NoLiveServer::Absent(reason)
                }
                _ => NoLiveServer::Failed(reason),
            }
        })?;
    let no = |error| NoLiveServer::Failed(format!("this node's server cannot be asked: {error}"));
    let server = postgres::server(&connection).await.map_err(no)?;
    let archiver = postgres::archiver(&connection).await.map_err(no)?;
    let heavy = postgres::heavy_work(&connection).await.map_err(no)?;
    let clock_behind = postgres::clock_behind(&connection).await.map_err(no)?;
    Ok(LiveServer {
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
pub(crate) fn last_archived_segment(
    live: Option<&LiveServer>,
    catalog: &Catalog,
) -> Option<WalSegment> {
    let last = live
        .filter(|live| !live.server.in_recovery)
        .and_then(|live| live.archiver.last_archived.as_deref())
        .and_then(|last| archived_segment(last, catalog));
    last.max(catalog.marked_end())
}

/// The segment that the name of an archived file begins with; `None` for a timeline's history.
pub(crate) fn archived_segment(file: &str, catalog: &Catalog) -> Option<WalSegment> {
    WalSegment::parse(file.get(..24)?, catalog.wal.size).ok()
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
        let reason = String::new;
        assert!(
            NoLiveServer::Absent(reason()).is_nothing()
                && NoLiveServer::Foreign(reason()).is_nothing()
        );
        assert!(!NoLiveServer::Failed(reason()).is_nothing());
    }
}
