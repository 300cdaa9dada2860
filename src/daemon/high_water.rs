//! Sets the archive's high-water mark while this node leads: beside the push, which must not wait for it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::every;
use crate::cluster::ServerSample;
use crate::config;
use crate::log;
use crate::model::{Lsn, SegmentSize, Timeline, WalSegment};
use crate::postgres::{self, Archiver, Connection, PostgresError, Target};
use crate::repository::{self, PositionSource, Timelines};
use crate::runner::Node;
use crate::store::StateFiles;

/// Between two looks, and so between two writes, in seconds.
const PERIOD_SECS: u64 = 10;
/// For one look at the server, and for one exchange with the bucket.
const LIMIT: Duration = Duration::from_secs(10);

/// Sets it whenever another segment was archived.
pub(super) async fn keep(node: &Node) {
    let config = &node.tools.loaded.config;
    let mut server = Server::default();
    let mut set: Option<(u64, WalSegment)> = None;
    let mut failing = false;
    let mut ticks = every(PERIOD_SECS);
    loop {
        ticks.tick().await;
        let view = node.view.borrow().clone();
        // Also once it ended: what it archived last is as true then, and a mark never moves back.
        let leads = |sample: &ServerSample| !sample.in_recovery && view.superseded_by.is_none();
        let Some(sample) = view.sample.filter(leads) else {
            set = None;
            continue;
        };
        let Some((last, size)) = server.last_archived(&config.postgres, sample).await else {
            continue;
        };
        let reached = Some((sample.system_identifier, last));
        if set == reached {
            continue;
        }
        let by = (config.node.hostname.as_str(), sample.system_identifier);
        let raise = async {
            let repository = node.tools.repository.get().await?;
            let state = StateFiles::of(&config.node.state_directory);
            let timelines = Timelines::of(&repository, state);
            let now = Timestamp::now();
            repository
                .raise_high_water(&timelines, by, (last, size), now)
                .await
        };
        match timeout(LIMIT, raise).await {
            Ok(Ok(_)) => (set, failing) = (reached, false),
            // Each ten seconds would be too often for what the evidence tells anyway.
            _ if failing => {}
            Ok(Err(error)) => {
                failing = true;
                tracing::warn!("the high-water mark is not set: {}", log::chain(&error));
            }
            Err(_) => {
                failing = true;
                let secs = LIMIT.as_secs();
                tracing::warn!("the high-water mark is not set: no answer within {secs} s");
            }
        }
    }
}

/// This node's server, over a connection that is kept.
#[derive(Default)]
struct Server {
    connection: Option<Connection>,
    /// Its settings, as of the last login that worked.
    known: Option<ServerSettings>,
}

#[derive(Clone, Copy)]
struct ServerSettings {
    size: SegmentSize,
    archives: bool,
}

impl Server {
    async fn last_archived(
        &mut self,
        settings: &config::Postgres,
        sample: ServerSample,
    ) -> Option<(WalSegment, SegmentSize)> {
        let asked = timeout(LIMIT, self.ask(settings)).await;
        let known = self.known?;
        let said = match asked {
            Ok(Ok(archiver)) => PositionSource::Archived(archiver),
            Ok(Err(_)) | Err(_) => {
                self.connection = None;
                let ended = ended(settings, sample.timeline).await;
                let ended = ended.filter(|_| known.archives);
                ended.map_or(PositionSource::Nothing, PositionSource::EndedAt)
            }
        };
        let data = &settings.data_directory;
        let last = repository::last_archived(&said, data, sample.timeline, known.size)?;
        Some((last, known.size))
    }

    async fn ask(&mut self, settings: &config::Postgres) -> Result<Archiver, PostgresError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = postgres::connect(&Target::from(settings), LIMIT).await?;
                let server = postgres::server(&connection).await?;
                self.known = Some(ServerSettings {
                    size: server.segment_size,
                    archives: server.archive_mode != "off",
                });
                connection
            }
        };
        let archiver = postgres::archiver(&connection).await?;
        self.connection = Some(connection);
        Ok(archiver)
    }
}

/// Where the server's last checkpoint begins, should it have been shut down on `timeline`.
async fn ended(settings: &config::Postgres, timeline: Timeline) -> Option<Lsn> {
    let ended = postgres::ended_at(&settings.bin_directory, &settings.data_directory).await;
    let (of, at) = ended.ok().flatten()?;
    (of == timeline).then_some(at)
}
