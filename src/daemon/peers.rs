//! Asks the other nodes each second, and whatever else knows of timelines each ten.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Node, every};
use crate::archive;
use crate::cluster::{self, Knowledge, NodeState, Peer, View};
use crate::log;
use crate::model::Timeline;
use crate::redis::Keys;

/// For one look at the bucket or at Redis: a primary waits for the first before it is served.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the peers fresh, and the primary's positions on a replica.
pub(super) async fn peers(
    node: &Node,
    seen: &watch::Sender<View>,
    known: &watch::Sender<Knowledge>,
) {
    let cluster = &node.tools.loaded.config.cluster;
    let mut peers: Vec<Peer> = cluster.peers.iter().map(|it| Peer::new(it)).collect();
    known.send_modify(|known| known.peers.clone_from(&peers));
    let mut ticks = every(1);
    loop {
        ticks.tick().await;
        // Before the server has said which cluster it is of, what the peers say of timelines is lost.
        let sampled = seen.borrow().sample.is_some();
        let states = peers.iter().map(|peer| cluster::ask_state(&peer.address));
        let states = futures_util::future::join_all(states).await;
        let mut ourselves = None;
        for (peer, state) in peers.iter().zip(states) {
            let now = Timestamp::now();
            match state {
                Ok(state) if state.hostname == node.hostname() => {
                    ourselves = Some(peer.address.clone());
                }
                Ok(state) => {
                    let first = peer_of(known, &peer.address, |peer| peer.heard.is_none());
                    learn(seen, &state);
                    if first {
                        backfill(known, &peer.address, &state, now).await;
                    }
                    let own = seen.borrow().clone();
                    known.send_modify(|known| {
                        follow(known, &own, &state, now);
                        change(known, &peer.address, |peer| peer.heard(state, now));
                    });
                }
                Err(error) => {
                    let reason = error.to_string();
                    if peer_of(known, &peer.address, |peer| peer.failing.is_none()) {
                        tracing::warn!("a peer does not answer: {reason}");
                    }
                    known.send_modify(|known| {
                        change(known, &peer.address, |peer| peer.failed(reason, now));
                    });
                }
            }
        }
        // One file serves all nodes, so it may name this one too.
        if let Some(address) = ourselves {
            peers.retain(|peer| peer.address != address);
            known.send_modify(|known| known.peers.retain(|peer| peer.address != address));
        }
        if sampled && !seen.borrow().asked_peers {
            seen.send_modify(|view| view.asked_peers = true);
        }
    }
}

/// Keeps what disk, bucket and Redis know of timelines: an old primary that boots again learns there that it is one.
///
/// Not being able to ask changes nothing.
pub(super) async fn timelines(
    node: &Node,
    seen: &watch::Sender<View>,
    known: &watch::Sender<Knowledge>,
) {
    let mut ticks = every(10);
    let mut first_sample = seen.subscribe();
    // Nothing can be compared before the server has said which timeline it is on.
    let _ = first_sample.wait_for(|view| view.sample.is_some()).await;
    loop {
        ticks.tick().await;
        let before = seen.borrow().sample.map(|sample| sample.system_identifier);
        let (remembered, archived, ()) = tokio::join!(
            remember(node, seen),
            timeline_in_bucket(node, seen),
            read_redis(node, seen, known)
        );
        for timeline in [remembered, archived].into_iter().flatten() {
            seen.send_modify(|view| {
                // Meanwhile the server may have become another cluster's.
                if view.sample.map(|sample| sample.system_identifier) == before {
                    view.learn(timeline);
                }
            });
        }
        if !seen.borrow().asked_archive {
            seen.send_modify(|view| view.asked_archive = true);
        }
    }
}

/// Keeps the highest timeline on disk; gives it.
async fn remember(node: &Node, seen: &watch::Sender<View>) -> Option<Timeline> {
    let (sample, highest) = {
        let view = seen.borrow();
        (view.sample?, view.highest?)
    };
    let written = node
        .store
        .write(move |store| store.see_timeline(sample.system_identifier, highest))
        .await;
    written
        .inspect_err(|error| {
            tracing::error!("the timeline cannot be kept: {}", log::chain(error));
        })
        .ok()
}

/// Asked of a primary only: a standby follows whatever timeline comes.
async fn timeline_in_bucket(node: &Node, seen: &watch::Sender<View>) -> Option<Timeline> {
    let sample = seen.borrow().sample.filter(|sample| !sample.in_recovery)?;
    let looking = archive::timeline_after(&node.tools.loaded.config, sample.timeline);
    let reason = match timeout(LOOK, looking).await {
        Ok(Ok(newer)) => return newer,
        Ok(Err(error)) => log::chain(&error),
        Err(_) => format!("no answer within {} s", LOOK.as_secs()),
    };
    tracing::warn!("the archive's timelines cannot be looked at: {reason}");
    None
}

async fn read_redis(node: &Node, seen: &watch::Sender<View>, known: &watch::Sender<Knowledge>) {
    let keys = Keys::new(&node.tools.loaded.config.cluster.name);
    let Ok(Ok(states)) = timeout(LOOK, node.redis.nodes(&keys)).await else {
        // The heartbeat says that Redis is away.
        return;
    };
    let states = states.iter().filter_map(|(_, json)| NodeState::parse(json));
    for state in states.filter(|state| state.hostname != node.hostname()) {
        learn(seen, &state);
        known.send_modify(|known| {
            for peer in &mut known.peers {
                peer.read_in_redis(&state, Timestamp::now());
            }
        });
    }
}

/// What another node knows of this cluster's timelines.
fn learn(seen: &watch::Sender<View>, state: &NodeState) {
    let own = seen.borrow().sample.map(|sample| sample.system_identifier);
    let theirs = state.view.sample.map(|sample| sample.system_identifier);
    if own.is_some() && own == theirs {
        seen.send_if_modified(|view| {
            let before = view.highest;
            if let Some(timeline) = state.view.highest {
                view.learn(timeline);
            }
            view.highest != before
        });
    }
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
