//! The addresses behind a Redis host name.

use std::net::{SocketAddr, UdpSocket};

use redis::RedisFuture;
use redis::io::AsyncDNSResolver;

/// Leaves out the addresses that this node has no route to, such as IPv6 ones in a network without it.
///
/// The crate tries all addresses at once and reports the error of the one that failed last. A reason that helps, such as a
/// certificate that is not trusted, would be hidden behind the error of an address that cannot work.
pub(super) struct Reachable;

impl AsyncDNSResolver for Reachable {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, port)).await?;
            let addresses = prefer(found.collect(), has_route);
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

/// Those of `addresses` that have a route; all of them where none has one.
fn prefer(addresses: Vec<SocketAddr>, has_route: impl Fn(&SocketAddr) -> bool) -> Vec<SocketAddr> {
    let routed: Vec<SocketAddr> = addresses.iter().copied().filter(has_route).collect();
    if routed.is_empty() { addresses } else { routed }
}

/// A datagram socket finds its source address by the routes, and sends nothing when it is connected.
fn has_route(address: &SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect(address).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_route_are_left_out_unless_there_is_no_other() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let both = vec![at("[::1]:6379"), at("127.0.0.1:6379")];
        let only_v4 = prefer(both.clone(), SocketAddr::is_ipv4);
        assert_eq!(only_v4, [at("127.0.0.1:6379")]);
        assert_eq!(prefer(both.clone(), |_| false), both);
        assert_eq!(prefer(both.clone(), |_| true), both);
    }

    #[test]
    fn loopback_has_a_route() {
        assert!(has_route(&"127.0.0.1:1".parse().unwrap()));
    }
}
