//! Looks each ten seconds at whatever else knows of timelines: the archive, Redis, and what this node remembers.
//!
//! An old primary that boots again learns there that it is one. Not being able to look changes nothing.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{every, last_answer};
use crate::cluster::{Knowledge, NodeState, ServerRun, View, redis_claim};
use crate::log;
use crate::model::{ForgottenTimelines, Supersession, Timeline};
use crate::process;
use crate::redis::Keys;
use crate::repository::{NewerTimeline, PeerOn, Relation, Timelines};
use crate::runner::Node;
use crate::store::StateFiles;

/// For one look at the bucket or at Redis: a primary waits for the first before it is served.
const LOOK: Duration = Duration::from_secs(5);
/// For what one timeline holds: the WAL-G program may fetch a segment for it.
const JUDGE: Duration = Duration::from_secs(30);
/// For all that one look finds; a file of this node that hangs ends it, too.
const WHOLE: Duration = Duration::from_secs(300);

/// What this node knows of itself, and of the rest.
type Senders<'a> = (&'a watch::Sender<View>, &'a watch::Sender<Knowledge>);

/// Keeps what is known of newer timelines fresh.
pub(super) async fn follow(node: Arc<Node>, senders: super::Senders) {
    let (node, views, known) = (&*node, &senders.view, &senders.known);
    let files = files(node);
    let mut first_sample = views.subscribe();
    // Nothing can be compared before the server has said which timeline it is on.
    let tried = |view: &View| view.sample.is_some() || view.failing.is_some();
    let _ = first_sample.wait_for(tried).await;
    within_a_look("the last answer", last_answer::recall(node, views)).await;
    let _ = first_sample.wait_for(|view| view.sample.is_some()).await;
    let mut remember = pin!(remember(files, (views, known)));
    let remembered = async {
        remember.as_mut().await;
        true
    };
    let is_remembered = within_a_look("what this node remembers of timelines", remembered).await;
    let late = async {
        // A proof counts also where its volume answers later.
        if !is_remembered {
            remember.await;
        }
    };
    let looks = async {
        within_a_look("the last answer", last_answer::take_up(node, views)).await;
        look_again_and_again(node, (views, known)).await;
    };
    tokio::join!(late, looks);
}

/// Takes in what this node kept of timelines: which are forgotten, and the proof that another node was promoted.
async fn remember(files: StateFiles, (views, known): Senders<'_>) {
    let read = process::on_a_thread(move || (files.forgotten(), files.supersession()));
    let (forgotten, proof) = read.await;
    known.send_if_modified(|known| {
        // A look that was quicker has read the same file.
        let is_news = known.timelines.forgotten.is_empty() && !forgotten.is_empty();
        if is_news {
            known.timelines.forgotten = forgotten;
        }
        is_news
    });
    if let Some(proof) = proof.filter(|it| !is_forgotten(known, it)) {
        views.send_modify(|view| view.remember(proof));
    }
}

async fn look_again_and_again(node: &Node, (views, known): Senders<'_>) {
    let mut ticks = every(10);
    let mut archive = None;
    let mut unasked = views.subscribe();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // The server is back: it is served once the archive was asked.
            _ = unasked.wait_for(|view| view.current_run().is_some() && !view.asked_archive) => {}
        }
        let run = views.borrow().current_run();
        if archive.is_none() {
            archive = timeout(LOOK, open(node)).await.ok().flatten();
        }
        let look = look(node, (views, known), archive.as_ref());
        tokio::pin!(look);
        let ended = timeout(LOOK, &mut look).await;
        // Also where it could not look: that changes nothing.
        asked_archive(views, run);
        if ended.is_err() {
            let is_other = |view: &View| view.current_run().is_some() && view.current_run() != run;
            tokio::select! {
                () = look => {}
                // It was begun before this server came back, which needs a look of its own.
                _ = unasked.wait_for(is_other) => {}
                () = sleep(WHOLE) => {}
            }
        }
    }
}

/// What `read` gives, or nothing where the volume of the state directory hangs: waiting for it would keep the primary away for
/// good. Peers, archive and Redis are asked after it, and prove again what was remembered.
async fn within_a_look<T: Default>(what: &str, read: impl Future<Output = T>) -> T {
    timeout(LOOK, read).await.unwrap_or_else(|_| {
        tracing::error!(
            "{what} cannot be read within {} s: does the volume of node.state_directory hang?",
            LOOK.as_secs()
        );
        T::default()
    })
}

/// Of the server's `run`, and of no later one.
fn asked_archive(views: &watch::Sender<View>, run: Option<ServerRun>) {
    views.send_if_modified(|view| {
        let is_of_now = run.is_some() && view.current_run() == run;
        is_of_now && !std::mem::replace(&mut view.asked_archive, true)
    });
}

async fn look(node: &Node, senders: Senders<'_>, archive: Option<&Timelines>) {
    let Some(archive) = archive else {
        read_redis(node, senders).await;
        return;
    };
    let archived = async {
        // Before the look: what was forgotten proves nothing.
        if forget(node, senders, archive).await {
            look_at_archive(node, senders, archive).await;
        }
    };
    tokio::join!(archived, read_redis(node, senders));
}

async fn open(node: &Node) -> Option<Timelines> {
    let opened = node.tools.repository.get().await;
    let opened = opened.inspect_err(|error| cannot_look(&log::chain(error)));
    Some(Timelines::of(&opened.ok()?, files(node)))
}

fn cannot_look(reason: &str) {
    tracing::warn!("the archive's timelines cannot be looked at: {reason}");
}

/// Takes in a proof, and keeps it on disk: it must hold after a restart without S3 and without peers.
pub(super) fn supersede(node: &Node, (views, known): Senders<'_>, proof: Supersession) {
    if is_forgotten(known, &proof) {
        return;
    }
    let (timeline, proven_by) = (proof.timeline, proof.proven_by.clone());
    if views.send_if_modified(|view| view.record_supersession(proof.clone())) {
        tracing::error!(
            "another node was promoted to timeline {timeline}: {proven_by}; this server must not lead"
        );
        let files = files(node);
        // Not awaited: a volume that hangs must not keep the next proof away.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = files.keep_supersession(&proof) {
                tracing::error!("the proof of that cannot be kept on this node: {error}");
            }
            if let Err(error) = files.void_last_answer() {
                tracing::error!("the last answer cannot be taken back on this node: {error}");
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
    forgotten.any(|one| one.voids(proof))
}

/// Asked by a primary only: a standby follows whatever timeline comes.
async fn look_at_archive(node: &Node, (views, known): Senders<'_>, archive: &Timelines) {
    let own = views.borrow().position();
    let Some(own) = own else {
        known.send_if_modified(|known| {
            let had = !known.timelines.doubtful.is_empty();
            known.timelines.doubtful.clear();
            had
        });
        return;
    };
    let peers = peers_on(known, own.system_identifier);
    let mut doubtful = Vec::new();
    let each = |newer: NewerTimeline| {
        match newer.relation {
            // At once: others may be slow.
            Relation::Supersedes(proof) => supersede(node, (views, known), proof),
            Relation::Doubtful(reason) => doubtful.push((newer.timeline, reason)),
            Relation::Forgotten(_) => {}
        }
        ControlFlow::Continue(())
    };
    let unread = match archive.look(&own, &peers, JUDGE, each).await {
        Ok(unread) => unread,
        Err(error) => return cannot_look(&log::chain(&error)),
    };
    for (timeline, error) in &unread {
        cannot_look(&format!("timeline {timeline}: {}", log::chain(error)));
    }
    let unread: Vec<Timeline> = unread.into_iter().map(|(timeline, _)| timeline).collect();
    known.send_if_modified(|known| {
        let before = &mut known.timelines.doubtful;
        let doubtful = doubts(before, doubtful, &unread);
        let changed = *before != doubtful;
        *before = doubtful;
        changed
    });
}

/// What is doubtful now: of those that could not be read, what was before.
fn doubts(
    before: &[(Timeline, String)],
    mut now: Vec<(Timeline, String)>,
    unread: &[Timeline],
) -> Vec<(Timeline, String)> {
    let kept = before
        .iter()
        .filter(|(timeline, _)| unread.contains(timeline));
    now.extend(kept.cloned());
    now.sort();
    now
}

/// The peers that answer, and the timeline that each runs on.
fn peers_on(known: &watch::Sender<Knowledge>, system_identifier: u64) -> Vec<PeerOn> {
    let known = known.borrow();
    let answering = known.peers.iter().filter(|peer| peer.failing.is_none());
    let on = answering.filter_map(|peer| {
        let (_, state) = peer.last_answer.as_ref()?;
        state.view.in_recovery(state.at)?;
        let sample = state.view.sample?;
        let is_ours = sample.system_identifier == system_identifier;
        is_ours.then(|| PeerOn {
            name: state.hostname.clone(),
            timeline: sample.timeline,
            history: state.view.history.clone(),
        })
    });
    on.collect()
}

/// Takes back what a person had the cluster forget, on this node or on another, and keeps that here. `false` where it is not
/// known what was forgotten.
async fn forget(node: &Node, (views, known): Senders<'_>, archive: &Timelines) -> bool {
    let files = files(node);
    let Some(identifier) = views.borrow().sample.map(|sample| sample.system_identifier) else {
        return false;
    };
    let read = match timeout(LOOK, archive.forgotten(identifier)).await {
        Ok(Ok(read)) => Some(read),
        Ok(Err(error)) => {
            cannot_look(&log::chain(&error));
            None
        }
        Err(_) => {
            cannot_look(&format!("no answer within {} s", LOOK.as_secs()));
            None
        }
    };
    let is_known = read.is_some();
    let reading = files.clone();
    let here = process::on_a_thread(move || reading.forgotten()).await;
    let mut all = ForgottenTimelines::default();
    all.add(here.clone());
    all.add(read.unwrap_or_default().known);
    if all.known != here {
        let (keeping, known) = (files.clone(), all.known.clone());
        let kept = process::on_a_thread(move || keeping.keep_forgotten(&known)).await;
        if let Err(error) = kept {
            tracing::error!("that a timeline is forgotten cannot be kept here: {error}");
        }
    }
    let proof = views.borrow().proof.clone();
    let found = proof.and_then(|proof| all.known.iter().find(|one| one.voids(&proof)));
    if let Some(found) = found {
        views.send_modify(|view| {
            view.unlearn(|proof| found.voids(proof));
        });
        tracing::info!(
            "timeline {} is forgotten, as {} says: {}",
            found.timeline,
            found.by,
            found.why
        );
        let dropped = process::on_a_thread(move || files.drop_supersession()).await;
        if let Err(error) = dropped {
            tracing::error!("the proof of its promotion cannot be removed here: {error}");
        }
    }
    known.send_if_modified(|known| {
        let changed = known.timelines.forgotten != all.known;
        known.timelines.forgotten = all.known;
        changed
    });
    is_known
}

/// Redis stands in for a peer that does not answer, and proves nothing.
async fn read_redis(node: &Node, (views, known): Senders<'_>) {
    let keys = Keys::new(&node.tools.loaded.config.cluster.name);
    let Ok(Ok(states)) = timeout(LOOK, node.redis.nodes(&keys)).await else {
        // The heartbeat says that Redis is away.
        return;
    };
    let now = Timestamp::now();
    let view = views.borrow().clone();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_that_cannot_be_read_stays_what_it_was() {
        let doubt = |timeline: u32, why: &str| (Timeline(timeline), why.to_owned());
        let before = [doubt(2, "a"), doubt(3, "b")];
        for (what, now, unread, expected) in [
            ("all read", vec![doubt(3, "c")], vec![], vec![doubt(3, "c")]),
            (
                "one unread",
                vec![doubt(3, "c")],
                vec![Timeline(2)],
                vec![doubt(2, "a"), doubt(3, "c")],
            ),
            ("a new one unread", vec![], vec![Timeline(9)], vec![]),
        ] {
            assert_eq!(doubts(&before, now, &unread), expected, "{what}");
        }
    }
}
