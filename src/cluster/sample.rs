//! Samples the node's own server, over one connection that is kept.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::Sample;
use crate::config::Config;
use crate::log;
use crate::postgres::{self, Connection, Target};

/// For one sample, login included.
const LIMIT: Duration = Duration::from_secs(3);

/// Holds the connection between samples.
#[derive(Debug)]
pub struct Sampler {
    target: Target,
    connection: Option<Connection>,
    server_ahead: SignedDuration,
}

impl Sampler {
    pub fn new(config: &Config) -> Self {
        Self {
            target: Target::from(&config.postgres),
            connection: None,
            server_ahead: SignedDuration::ZERO,
        }
    }

    /// By how much the server's clock was ahead of this process's at the last sample: nothing, unless one of them was just set.
    pub fn server_ahead(&self) -> SignedDuration {
        self.server_ahead
    }

    /// Asks the server about itself; a connection that failed is made anew the next time.
    ///
    /// # Errors
    /// Why it could not be asked, as a sentence.
    pub async fn sample(&mut self) -> Result<Sample, String> {
        let sampled = timeout(LIMIT, self.try_sample()).await;
        let sampled =
            sampled.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
        if sampled.is_err() {
            self.connection = None;
        }
        sampled
    }

    async fn try_sample(&mut self) -> Result<Sample, String> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => postgres::connect(&self.target, LIMIT)
                .await
                .map_err(|error| log::chain(&error))?,
        };
        let server = postgres::server(&connection)
            .await
            .map_err(|error| log::chain(&error))?;
        self.connection = Some(connection);
        let at = Timestamp::now();
        self.server_ahead = server.now.duration_since(at);
        Ok(Sample {
            at,
            in_recovery: server.in_recovery,
            timeline: server.timeline,
            system_identifier: server.system_identifier,
            streaming: server.streaming,
            position: server.position,
        })
    }
}
