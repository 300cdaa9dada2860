//! Asks the other nodes each second.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Senders, every, timelines};
use crate::cluster::{self, Knowledge, NodeState, Peer, View};
use crate::config;
use crate::runner::Node;

/// The peers as configured. One file may serve all nodes, so it may name this one too.
pub(super) fn configured(cluster: &config::Cluster, hostname: &str) -> Vec<Peer> {
    let all = cluster.peers.iter();
    let all = all.map(|address| Peer::new(address));
    all.filter(|peer| peer.host() != hostname).collect()
}

/// Keeps the peers fresh, and the primary's positions on a replica.
pub(super) async fn peers(node: Arc<Node>, senders: Senders) {
    let (node, views, known) = (&*node, &senders.view, &senders.known);
    let configured = known.borrow().peers.clone();
    let mut addresses: Vec<String> = configured.into_iter().map(|peer| peer.address).collect();
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        // Before the server has said which cluster it is of and where it is, what the peers say of timelines is lost.
        let run = views.borrow().current_run();
        let states = addresses.iter().map(|address| cluster::ask_state(address));
        let states = futures_util::future::join_all(states).await;
        let (mut ourselves, mut answered, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (address, state) in addresses.iter().zip(states) {
            match state {
                Ok(state) if state.hostname == node.hostname() => ourselves.push(address.clone()),
                // A node's second address: the first one has answered.
                Ok(state) if answered.contains(&state.hostname) => {
                    let kept = address_of(known, address, &state.hostname);
                    let is_other = |peer: &Peer| peer.address != *address;
                    if kept != *address {
                        known.send_modify(|known| known.peers.retain(is_other));
                    }
                }
                Ok(state) => {
                    answered.push(state.hostname.clone());
                    take_in(node, (views, known), address, state).await;
                }
                Err(error) => failed.push((address, error.to_string())),
            }
        }
        for (address, reason) in failed {
            let answers = |peer: &Peer| answered.iter().any(|name| name == peer.name());
            if !peer_of(known, address, answers) {
                fail(known, address, reason);
            }
        }
        // An address may be this node's, or another one of a peer's.
        addresses.retain(|address| !ourselves.contains(address));
        known.send_if_modified(|known| {
            let before = known.peers.len();
            known
                .peers
                .retain(|peer| !ourselves.contains(&peer.address));
            known.peers = cluster::distinct(&known.peers);
            known.peers.len() != before
        });
        views.send_if_modified(|view| {
            let is_of_now = run.is_some() && view.current_run() == run;
            is_of_now && !std::mem::replace(&mut view.asked_peers, true)
        });
    }
}

/// Takes in what the peer at `address` says.
async fn take_in(
    node: &Node,
    (views, known): (&watch::Sender<View>, &watch::Sender<Knowledge>),
    address: &str,
    state: NodeState,
) {
    let now = Timestamp::now();
    let kept = address_of(known, address, &state.hostname);
    let first = peer_of(known, &kept, |peer| peer.last_answer.is_none());
    // Not in the condition: what is borrowed there is held while it is written to below.
    let proof = cluster::prove_by_peer(&views.borrow(), &state, now);
    if let Some(proof) = proof {
        timelines::supersede(node, (views, known), proof);
    }
    if first {
        backfill(known, address, &state, now).await;
    }
    let own = views.borrow().clone();
    known.send_modify(|known| {
        follow(known, &own, &state, now);
        change(known, &kept, |peer| peer.answered(state, now));
    });
}

fn fail(known: &watch::Sender<Knowledge>, address: &str, reason: String) {
    if peer_of(known, address, |peer| peer.failing.is_none()) {
        tracing::warn!("a peer does not answer: {reason}");
    }
    let now = Timestamp::now();
    known.send_modify(|known| change(known, address, |peer| peer.failed(reason, now)));
}

/// Under which address the node `hostname` is kept that answers at `address`.
fn address_of(known: &watch::Sender<Knowledge>, address: &str, hostname: &str) -> String {
    let known = known.borrow();
    let is_it = |peer: &&Peer| {
        let heard = peer.last_answer.as_ref();
        heard.is_some_and(|(_, state)| state.hostname == hostname)
    };
    let kept = known.peers.iter().find(is_it);
    kept.map_or(address, |peer| &peer.address).to_owned()
}

/// Takes over the positions that a peer kept while this daemon did not run.
async fn backfill(
    known: &watch::Sender<Knowledge>,
    address: &str,
    state: &NodeState,
    now: Timestamp,
) {
    match cluster::ask_positions(address).await {
        Ok(positions) => known.send_modify(|known| {
            let ahead = state.at.duration_since(now);
            known.positions.prepend(&positions, ahead);
        }),
        Err(error) => tracing::warn!("the primary's positions cannot be taken over: {error}"),
    }
}

/// Adds where the primary is, by this node's own clock: two clocks need not agree.
fn follow(known: &mut Knowledge, own: &View, state: &NodeState, now: Timestamp) {
    let Some(sample) = state.view.sample else {
        return;
    };
    let age = state.at.duration_since(sample.at);
    if let (Some(position), Ok(at)) = (sample.position, now.checked_sub(age))
        && state.view.leads(state.at)
        && !own.leads(now)
    {
        known.positions.push(at, position);
    }
}

fn peer_of(known: &watch::Sender<Knowledge>, address: &str, asked: impl Fn(&Peer) -> bool) -> bool {
    let known = known.borrow();
    known
        .peers
        .iter()
        .any(|peer| peer.address == address && asked(peer))
}

fn change(known: &mut Knowledge, address: &str, change: impl FnOnce(&mut Peer)) {
    let mut peers = known.peers.iter_mut();
    if let Some(peer) = peers.find(|peer| peer.address == address) {
        change(peer);
    }
}
