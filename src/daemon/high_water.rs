//! Sets the archive's high-water mark while this node leads: beside the push, which must not wait for it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::{Node, every};
use crate::archive;
use crate::cluster::Sample;
use crate::config::Config;
use crate::log;
use crate::model::{SegmentSize, WalSegment};
use crate::postgres::{self, Archiver, Connection, PostgresError, Target};

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
        let leads = |sample: &Sample| !sample.in_recovery && view.superseded_by.is_none();
        let Some(sample) = view.sample.filter(leads) else {
            set = None;
            continue;
        };
        let Some((last, size)) = server.last_archived(config, sample).await else {
            continue;
        };
        let reached = Some((sample.system_identifier, last));
        if set == reached {
            continue;
        }
        let raise = archive::raise_high_water(
            config,
            sample.system_identifier,
            (last, size),
            Timestamp::now(),
        );
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
    /// Known since the first answer.
    size: Option<SegmentSize>,
}

impl Server {
    async fn last_archived(
        &mut self,
        config: &Config,
        sample: Sample,
    ) -> Option<(WalSegment, SegmentSize)> {
        let archiver = match timeout(LIMIT, self.ask(config)).await {
            Ok(Ok(archiver)) => Some(archiver),
            // It may have ended, and its marks tell the rest.
            Ok(Err(_)) | Err(_) => {
                self.connection = None;
                None
            }
        };
        let (data, size) = (&config.postgres.data_directory, self.size?);
        let last = archive::last_archived(archiver.as_ref(), data, sample.timeline, size)?;
        Some((last, size))
    }

    async fn ask(&mut self, config: &Config) -> Result<Archiver, PostgresError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => postgres::connect(&Target::from(&config.postgres), LIMIT).await?,
        };
        if self.size.is_none() {
            self.size = Some(postgres::server(&connection).await?.segment_size);
        }
        let archiver = postgres::archiver(&connection).await?;
        self.connection = Some(connection);
        Ok(archiver)
    }
}
