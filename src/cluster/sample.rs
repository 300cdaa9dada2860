//! Samples the node's own server, over one connection that is kept.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::{SampleFailure, ServerSample};
use crate::config;
use crate::postgres::{self, Connection, Life, ServerIdentity, Target};

/// For one sample, login included.
const LIMIT: Duration = Duration::from_secs(3);

/// Holds the connection between samples.
#[derive(Debug)]
pub(crate) struct ServerSampler {
    target: Target,
    connection: Option<Connection>,
    server_ahead: SignedDuration,
}

impl ServerSampler {
    pub(crate) fn new(postgres: &config::Postgres) -> Self {
        Self {
            target: Target::from(postgres),
            connection: None,
            server_ahead: SignedDuration::ZERO,
        }
    }

    /// By how much the server's clock was ahead of this process's at the last sample: nothing, unless one of them was just set.
    pub(crate) fn server_ahead(&self) -> SignedDuration {
        self.server_ahead
    }

    /// Queries the server's state. Where the kept session has ended, a new login shows whether the server is down.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub(crate) async fn sample(&mut self) -> Result<ServerSample, SampleFailure> {
        let sampled = timeout(LIMIT, self.try_sample()).await;
        let sampled = sampled.unwrap_or_else(|_| {
            Err(SampleFailure {
                life: Life::Unknown,
                reason: format!("no answer within {} s", LIMIT.as_secs()),
            })
        });
        if sampled.is_err() {
            self.connection = None;
        }
        sampled
    }

    async fn try_sample(&mut self) -> Result<ServerSample, SampleFailure> {
        if let Some(connection) = self.connection.take() {
            match postgres::server(&connection).await {
                Ok(server) => {
                    self.connection = Some(connection);
                    return Ok(self.took(&server));
                }
                Err(error) if error.ends_session() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let connection = postgres::connect(&self.target, LIMIT).await?;
        let server = postgres::server(&connection).await?;
        self.connection = Some(connection);
        Ok(self.took(&server))
    }

    fn took(&mut self, server: &ServerIdentity) -> ServerSample {
        let at = Timestamp::now();
        self.server_ahead = server.now.duration_since(at);
        ServerSample {
            at,
            in_recovery: server.in_recovery,
            timeline: server.timeline,
            system_identifier: server.system_identifier,
            streaming: server.streaming,
            position: server.position,
        }
    }
}
