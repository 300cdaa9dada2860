//! The hosts of a connection string, in the order in which libpq tries them. Pure.

use super::WaitError;
use crate::postgres::Target;

/// Debian's `DEFAULT_PGSOCKET_DIR`: an empty host means it.
pub(super) const SOCKET_DIRECTORY: &str = "/var/run/postgresql";
const PORT: u16 = 5432;

/// One host to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// A name, an address or the directory of a socket; empty where there is only `address`.
    pub name: String,
    /// libpq's `hostaddr`: where to connect without a lookup.
    pub address: Option<String>,
    pub port: u16,
}

impl Host {
    pub(super) fn of(target: &Target) -> Self {
        Self {
            name: target.host.clone(),
            address: None,
            port: target.port,
        }
    }

    /// What the password file and the messages call it.
    pub(crate) fn shown(&self) -> &str {
        match &self.address {
            Some(address) if self.name.is_empty() => address,
            _ => &self.name,
        }
    }

    /// The directory of a Unix socket, or its name in the abstract namespace (`@`).
    pub(super) fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with(['/', '@'])
    }
}

/// Pairs the lists as `connectOptions2` does: as many hosts as addresses, one port for all or one for each.
///
/// # Errors
/// When the lists have different lengths, or a port is not a number.
pub(crate) fn parse_hosts(
    names: Option<&str>,
    addresses: Option<&str>,
    ports: Option<&str>,
) -> Result<Vec<Host>, WaitError> {
    let wrong = |what: String| WaitError::Url(what);
    let list = |text: Option<&str>| -> Vec<String> {
        let parts = text.into_iter().flat_map(|text| text.split(','));
        parts.map(str::to_owned).collect()
    };
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(wrong(format!(
            "could not match {} host names to {} hostaddr values",
            names.len(),
            addresses.len()
        )));
    }
    let count = names.len().max(addresses.len()).max(1);
    if ports.len() > 1 && ports.len() != count {
        return Err(wrong(format!(
            "could not match {} port numbers to {count} hosts",
            ports.len()
        )));
    }
    let hosts = (0..count).map(|index| {
        let address = addresses.get(index).filter(|address| !address.is_empty());
        let name = names.get(index).cloned().unwrap_or_default();
        let port = ports
            .get(index)
            .or_else(|| ports.first().filter(|_| ports.len() == 1));
        Ok(Host {
            name: match address {
                None if name.is_empty() => SOCKET_DIRECTORY.to_owned(),
                _ => name,
            },
            address: address.cloned(),
            port: parse_port(port.map_or("", String::as_str))?,
        })
    });
    hosts.collect()
}

fn parse_port(text: &str) -> Result<u16, WaitError> {
    // As strtol: blanks around it are allowed.
    let text = text.trim();
    if text.is_empty() {
        return Ok(PORT);
    }
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| WaitError::Url("a port must be a number from 1 to 65535".to_owned()))
}
