//! Looks each ten seconds at whatever else knows of timelines: the archive, Redis, and what this node remembers.
//!
//! An old primary that boots again learns there that it is one. Not being able to look changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Node, every, last_answer};
use crate::archive::{Relation, Timelines};
use crate::cluster::{Knowledge, NodeState, View, redis_claim};
use crate::log;
use crate::model::{ForgottenTimeline, Supersession, Timeline};
use crate::process;
use crate::redis::Keys;
use crate::store::StateFiles;

/// For one look at the bucket or at Redis: a primary waits for the first before it is served.
const LOOK: Duration = Duration::from_secs(5);

/// What this node knows of itself, and of the rest.
type Senders<'a> = (&'a watch::Sender<View>, &'a watch::Sender<Knowledge>);

/// Keeps what is known of newer timelines fresh.
pub(super) async fn follow(
    node: &Node,
    seen: &watch::Sender<View>,
    known: &watch::Sender<Knowledge>,
) {
    let files = files(node);
    let mut ticks = every(10);
    let mut first_sample = seen.subscribe();
    // Nothing can be compared before the server has said which timeline it is on.
    let _ = first_sample.wait_for(|view| view.sample.is_some()).await;
    let (forgotten, proof) =
        process::on_a_thread(move || (files.forgotten(), files.supersession())).await;
    known.send_modify(|known| known.timelines.forgotten = forgotten);
    if let Some(proof) = proof.filter(|it| !is_forgotten(known, it)) {
        seen.send_modify(|view| view.remember(proof));
    }
    last_answer::take_up(node, seen).await;
    let mut archive = None;
    loop {
        ticks.tick().await;
        if archive.is_none() {
            archive = open(node).await;
        }
        if let Some(archive) = &archive {
            tokio::join!(
                look_at_archive(node, (seen, known), archive),
                forget(node, (seen, known), archive),
                read_redis(node, (seen, known))
            );
        } else {
            read_redis(node, (seen, known)).await;
        }
        if !seen.borrow().asked_archive {
            seen.send_modify(|view| view.asked_archive = true);
        }
    }
}

async fn open(node: &Node) -> Option<Timelines> {
    let opened = Timelines::open(&node.tools.loaded.config).await;
    opened
        .inspect_err(|error| cannot_look(&log::chain(error)))
        .ok()
}

fn cannot_look(reason: &str) {
    tracing::warn!("the archive's timelines cannot be looked at: {reason}");
}

/// Takes in a proof, and keeps it on disk: it must hold after a restart without S3 and without peers.
pub(super) fn learn(node: &Node, (seen, known): Senders<'_>, proof: Supersession) {
    if is_forgotten(known, &proof) {
        return;
    }
    let (timeline, proven_by) = (proof.timeline, proof.proven_by.clone());
    if seen.send_if_modified(|view| view.learn(proof.clone())) {
        tracing::error!(
            "another node was promoted to timeline {timeline}: {proven_by}; this server must not lead"
        );
        let files = files(node);
        // Not awaited: a volume that hangs must not keep the next proof away.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = files.keep_supersession(&proof) {
                tracing::error!("the proof of that cannot be kept on this node: {error}");
            }
        });
    }
}

fn files(node: &Node) -> StateFiles {
    StateFiles::of(&node.tools.loaded.config.node.state_directory)
}

fn is_forgotten(known: &watch::Sender<Knowledge>, proof: &Supersession) -> bool {
    let known = known.borrow();
    let mut forgotten = known.timelines.forgotten.iter();
    forgotten.any(|one| covers(one, proof))
}

fn covers(forgotten: &ForgottenTimeline, proof: &Supersession) -> bool {
    let history = Some(&proof.history);
    forgotten.covers(proof.system_identifier, proof.timeline, history)
}

/// Asked by a primary only: a standby follows whatever timeline comes.
async fn look_at_archive(node: &Node, (seen, known): Senders<'_>, archive: &Timelines) {
    let own = seen.borrow().position();
    let Some(own) = own else {
        known.send_if_modified(|known| {
            let had = !known.timelines.doubtful.is_empty();
            known.timelines.doubtful.clear();
            had
        });
        return;
    };
    let peers = peers_on(known, own.system_identifier);
    let newer = match timeout(LOOK, archive.newer(&own, &peers)).await {
        Ok(Ok(newer)) => newer,
        Ok(Err(error)) => return cannot_look(&log::chain(&error)),
        Err(_) => return cannot_look(&format!("no answer within {} s", LOOK.as_secs())),
    };
    let mut doubtful = Vec::new();
    for newer in newer {
        match newer.relation {
            Relation::Supersedes(proof) => learn(node, (seen, known), proof),
            Relation::Doubtful(reason) => doubtful.push((newer.timeline, reason)),
            Relation::Forgotten(_) => {}
        }
    }
    known.send_if_modified(|known| {
        let changed = known.timelines.doubtful != doubtful;
        known.timelines.doubtful = doubtful;
        changed
    });
}

/// The peers that answer, and the timeline that each runs on.
fn peers_on(known: &watch::Sender<Knowledge>, system_identifier: u64) -> Vec<(String, Timeline)> {
    let known = known.borrow();
    let answering = known.peers.iter().filter(|peer| peer.failing.is_none());
    let on = answering.filter_map(|peer| {
        let (_, state) = peer.heard.as_ref()?;
        state.view.in_recovery(state.at)?;
        let sample = state.view.sample?;
        let is_ours = sample.system_identifier == system_identifier;
        is_ours.then(|| (state.hostname.clone(), sample.timeline))
    });
    on.collect()
}

/// Takes back what a person had the cluster forget, on this node or on another.
async fn forget(node: &Node, (seen, known): Senders<'_>, archive: &Timelines) {
    let files = files(node);
    let read = files.clone();
    let mut forgotten = process::on_a_thread(move || read.forgotten()).await;
    let proof = seen.borrow().proof.clone();
    if let Some(proof) = proof {
        let history = Some(&proof.history);
        let asked = archive.forgotten(proof.system_identifier, proof.timeline, history);
        if let Ok(Some(found)) = timeout(LOOK, asked).await {
            seen.send_modify(|view| {
                view.unlearn(|proof| covers(&found, proof));
            });
            tracing::info!(
                "timeline {} is forgotten, as {} says: {}",
                found.timeline,
                found.by,
                found.why
            );
            if !forgotten.contains(&found) {
                forgotten.push(found);
            }
            let forgotten = forgotten.clone();
            let keep = move || {
                let kept = files.keep_forgotten(&forgotten);
                kept.and_then(|()| files.drop_supersession())
            };
            if let Err(error) = process::on_a_thread(keep).await {
                tracing::error!("that a timeline is forgotten cannot be kept here: {error}");
            }
        }
    }
    known.send_if_modified(|known| {
        let changed = known.timelines.forgotten != forgotten;
        known.timelines.forgotten = forgotten;
        changed
    });
}

/// Redis stands in for a peer that does not answer, and proves nothing.
async fn read_redis(node: &Node, (seen, known): Senders<'_>) {
    let keys = Keys::new(&node.tools.loaded.config.cluster.name);
    let Ok(Ok(states)) = timeout(LOOK, node.redis.nodes(&keys)).await else {
        // The heartbeat says that Redis is away.
        return;
    };
    let now = Timestamp::now();
    let view = seen.borrow().clone();
    let states = states.iter().filter_map(|(_, json)| NodeState::parse(json));
    let others: Vec<NodeState> = states
        .filter(|state| state.hostname != node.hostname())
        .collect();
    known.send_modify(|known| {
        // What a proof says of this server is told already.
        let claims = others.iter().filter_map(|state| redis_claim(&view, state));
        known.timelines.claimed = claims.filter(|_| view.superseded_by.is_none()).collect();
        for state in &others {
            for peer in &mut known.peers {
                peer.read_in_redis(state, now);
            }
        }
    });
}
