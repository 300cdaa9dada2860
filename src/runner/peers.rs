//! The other nodes, asked once.

use std::net::{IpAddr, UdpSocket};

use jiff::Timestamp;

use crate::cluster::{self, Knowledge, Peer};
use crate::config::{self, Config};

/// The peers, and where the primary was when, as far as they and this node's daemon tell now.
pub(super) async fn look_around(config: &Config) -> Knowledge {
    let address = cluster::own_address(&config.http.listen);
    let (peers, positions) = tokio::join!(
        ask_peers(&config.cluster, &config.node.hostname),
        cluster::ask_positions(&address)
    );
    Knowledge {
        peers,
        positions: positions.unwrap_or_default(),
        ..Knowledge::default()
    }
}

/// Each configured peer that is another node, with its answer.
pub(crate) async fn ask_peers(settings: &config::Cluster, hostname: &str) -> Vec<Peer> {
    let asked = settings.peers.iter().map(|address| async move {
        let mut peer = Peer::new(address);
        match cluster::ask_state(address).await {
            Ok(state) if state.hostname == hostname => return None,
            Ok(state) => peer.answered(state, Timestamp::now()),
            // Another part of the report says that this node's own daemon does not answer.
            Err(_) if is_own(peer.host(), hostname) => return None,
            Err(error) => peer.failed(error.to_string(), Timestamp::now()),
        }
        Some(peer)
    });
    let peers = futures_util::future::join_all(asked).await;
    let peers: Vec<Peer> = peers.into_iter().flatten().collect();
    cluster::distinct(&peers)
}

/// Whether the peer `address` is this node, whose daemon need not answer.
pub(crate) fn is_this_node(hostname: &str, address: &str) -> bool {
    is_own(Peer::new(address).host(), hostname)
}

/// By name, or because only a local address can be bound.
fn is_own(host: &str, hostname: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == hostname || address.is_ok_and(|ip| UdpSocket::bind((ip, 0)).is_ok())
}
