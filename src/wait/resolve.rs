//! Looks a target's name up, and keeps the answer for a moment.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::postgres::Target;

/// A hundred probes that each look up their name with every attempt cost more than their attempts.
const KEPT: Duration = Duration::from_secs(2);

/// What a name led to, and when.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    found: Option<(Vec<SocketAddr>, Instant)>,
}

impl Resolver {
    /// The addresses of `target`, looked up at most 2 s ago.
    ///
    /// # Errors
    /// In the system's words when the name does not resolve.
    pub(super) async fn addresses(&mut self, target: &Target) -> Result<Vec<SocketAddr>, String> {
        match &self.found {
            Some((addresses, at)) if at.elapsed() < KEPT => Ok(addresses.clone()),
            _ => {
                let name = (target.host.as_str(), target.port);
                let looked_up = tokio::net::lookup_host(name).await;
                let addresses: Vec<_> = looked_up.map_err(|error| error.to_string())?.collect();
                self.found = Some((addresses.clone(), Instant::now()));
                Ok(addresses)
            }
        }
    }
}
