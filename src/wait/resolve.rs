//! Looks names up, keeps the answers for a moment, and remembers which address answered.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Host;

/// A hundred probes that each look up their name with every attempt cost more than their attempts.
const KEPT: Duration = Duration::from_secs(2);
/// How long a lookup may take where the answer before it is still known.
const PATIENCE: Duration = Duration::from_secs(1);

/// What names led to, and when.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    names: HashMap<(String, u16), Known>,
}

#[derive(Debug, Default)]
struct Known {
    found: Option<(Vec<SocketAddr>, Instant)>,
    /// A lookup that outlived its attempt: with a dead nameserver it takes longer than one.
    running: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    /// Tried first, because it answered last time.
    answered: Option<SocketAddr>,
    /// Tried last, because it took a connection and was silent.
    silent: Vec<SocketAddr>,
}

fn key(host: &Host) -> (String, u16) {
    (host.shown().to_owned(), host.port)
}

impl Resolver {
    /// The addresses of `host`, in the order to try them.
    ///
    /// # Errors
    /// In the system's words when the name does not resolve.
    pub(super) async fn addresses(&mut self, host: &Host) -> Result<Vec<SocketAddr>, String> {
        let known = self.names.entry(key(host)).or_default();
        let fresh = known.found.as_ref().filter(|(_, at)| at.elapsed() < KEPT);
        let mut addresses = match fresh {
            Some((addresses, _)) => addresses.clone(),
            None => known.look_up(host).await?,
        };
        addresses.sort_by_key(|address| {
            let answered = known.answered == Some(*address);
            (known.silent.contains(address), !answered)
        });
        Ok(addresses)
    }

    /// `address` of `host` said something.
    pub(super) fn answered(&mut self, host: &Host, address: SocketAddr) {
        let known = self.names.entry(key(host)).or_default();
        known.answered = Some(address);
        known.silent.retain(|silent| *silent != address);
    }

    /// `address` of `host` took a connection and was silent.
    pub(super) fn silent(&mut self, host: &Host, address: SocketAddr) {
        let known = self.names.entry(key(host)).or_default();
        if known.answered == Some(address) {
            known.answered = None;
        }
        // The one that was silent first is tried before those that were silent later.
        known.silent.retain(|silent| *silent != address);
        known.silent.push(address);
    }
}

impl Known {
    async fn look_up(&mut self, host: &Host) -> Result<Vec<SocketAddr>, String> {
        let name = match &host.address {
            Some(address) if !is_literal(address) => {
                return Err(format!("could not parse network address {address:?}"));
            }
            Some(address) => address.clone(),
            None => host.name.clone(),
        };
        let port = host.port;
        let running = self.running.get_or_insert_with(|| {
            tokio::spawn(async move {
                let found = tokio::net::lookup_host((name, port)).await?;
                Ok(found.collect())
            })
        });
        let looked_up = match &self.found {
            None => running.await,
            Some((before, _)) => match timeout(PATIENCE, running).await {
                Ok(looked_up) => looked_up,
                Err(_) => return Ok(before.clone()),
            },
        };
        self.running = None;
        let looked_up = looked_up.map_err(|error| error.to_string())?;
        let addresses: Vec<_> = looked_up.map_err(|error| error.to_string())?;
        self.found = Some((addresses.clone(), Instant::now()));
        Ok(addresses)
    }
}

/// An address, possibly with the interface of a link-local one.
fn is_literal(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<std::net::IpAddr>().is_ok()
}
