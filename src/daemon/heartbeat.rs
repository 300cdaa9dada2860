//! This node's key in Redis each 30 s, and the alerts that wait there for Redis to be back.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{sleep, timeout};

use super::judge;
use crate::alerts::{AlertsError, DELIVERY};
use crate::cluster::{Knowledge, NodeState, PAGED, Peer};
use crate::http::Shown;
use crate::jobs::Job;
use crate::log;
use crate::model::{AlertKey, Scope, Verdict};
use crate::redis::{Keys, RedisError};
use crate::runner::{Node, alerts, belongs_here, success_exchange};

const PERIOD: Duration = Duration::from_secs(30);
/// A changed reason is shown after this at the earliest.
const SHORTEST: Duration = Duration::from_secs(5);
/// A node that is neither configured nor heard of for this long, once its key is gone too, is no member any more.
const DEPARTED: SignedDuration = SignedDuration::from_secs(30);
/// After a start, a key of the cluster's former name that another daemon writes has been written once more.
const FORMER: SignedDuration = SignedDuration::from_secs(40);

/// What is remembered from one heartbeat to the next.
struct Memory {
    keys: Keys,
    began: Timestamp,
    /// Nodes with alerts that are no members, since when.
    strangers: BTreeMap<String, Timestamp>,
}

/// Shows this node, and mends what Redis lost.
pub(super) async fn beat(node: &Node, shown: &Shown) {
    let mut memory = Memory {
        keys: Keys::new(&node.tools.loaded.config.cluster.name),
        began: Timestamp::now(),
        strangers: BTreeMap::new(),
    };
    let mut view = node.view.clone();
    loop {
        let now = Timestamp::now();
        let mut state = shown.state(now);
        let known = node.tools.known.borrow().clone();
        let status = judge::status(node, &state.view, &known, now);
        state.verdict = Some(status.verdict);
        (state.live_rpo, state.rto_secs) = (Some(status.rpo), status.rto.secs);
        let json = serde_json::to_string(&state).expect("a node's state has text keys only");
        let published = node
            .redis
            .publish_node(&memory.keys, node.hostname(), &json)
            .await;
        let failure = match published {
            Err(error) => Some(AlertsError::Redis(error)),
            Ok(()) => mend(node, &mut memory, &known, now).await.err(),
        };
        note(node, failure.as_ref(), now);
        alerts::deliver(node).await;
        success_exchange::show(node).await;
        // A change of role is shown at once.
        let role = view.borrow().sample.map(|sample| sample.in_recovery);
        let changed = view.wait_for(|view| view.sample.map(|sample| sample.in_recovery) != role);
        let news = async {
            sleep(SHORTEST).await;
            node.alerts.changed().await;
        };
        tokio::select! {
            _ = timeout(PERIOD, changed) => {}
            () = news => {}
        }
    }
}

fn note(node: &Node, failure: Option<&AlertsError>, now: Timestamp) {
    let of_redis = match failure {
        Some(AlertsError::Redis(error)) => Some(format!("{error}; HINT: {}", error.hint())),
        Some(AlertsError::Store(error)) => {
            tracing::error!(
                "alerts cannot be compared, the store fails: {}",
                log::chain(error)
            );
            None
        }
        None => None,
    };
    if let Some(reason) = &of_redis {
        tracing::warn!("the heartbeat did not reach Redis: {reason}");
    }
    node.outages.redis.noted(of_redis, now);
}

/// Makes Redis show the alerts that this node answers for, and ends those that no node answers for.
async fn mend(
    node: &Node,
    memory: &mut Memory,
    known: &Knowledge,
    now: Timestamp,
) -> Result<(), AlertsError> {
    leave_former_names(node, memory, now).await?;
    let mut scopes = vec![Scope::Node(node.hostname().to_owned())];
    let speaks = judge::speaks(node, now);
    let (mut silent, mut departed) = (Vec::new(), Vec::new());
    if speaks == Some(true) {
        scopes.push(Scope::Cluster);
        // A silent peer cannot end its alerts itself.
        let peers = known.peers.iter().filter(|peer| peer.silent(now));
        let names = peers
            .map(Peer::name)
            .filter(|name| *name != node.hostname());
        silent.extend(names.map(|name| Scope::Node(name.to_owned())));
        departed = departed_nodes(node, memory, known, now).await?;
    }
    let own = scopes.clone();
    scopes.extend(silent.iter().chain(&departed).cloned());
    node.alerts.reconcile(&node.redis, &scopes).await?;
    end(node, silent, "the node is silent", now).await?;
    end(
        node,
        departed,
        "no node of this name is in the cluster",
        now,
    )
    .await?;
    // Before the others were asked, what was taken over for them stands.
    if speaks == Some(false) {
        // This node's own former name, say: the one that speaks for the cluster ends them in Redis.
        let others = move |key: &AlertKey| key.scope != Scope::Cluster && !own.contains(&key.scope);
        node.alerts.forget(others).await?;
    }
    end_passed(node, now).await?;
    if speaks != Some(true) {
        scopes = vec![Scope::Node(node.hostname().to_owned())];
    }
    end_abandoned(node, &scopes, now).await
}

async fn end(
    node: &Node,
    scopes: Vec<Scope>,
    reason: &str,
    now: Timestamp,
) -> Result<(), AlertsError> {
    let which = move |key: &AlertKey| scopes.contains(&key.scope);
    let ended = node.alerts.resolve(which, reason, now).await?;
    if !ended.is_empty() {
        tracing::info!(events = ended.len(), "alerts were ended: {reason}");
    }
    Ok(())
}

/// Ends the alerts of jobs of this node whose last run was good and began after them. A Redis that was restored may hold alerts
/// that were over long ago, and the next run may be a day away.
async fn end_passed(node: &Node, now: Timestamp) -> Result<(), AlertsError> {
    let own = Scope::Node(node.hostname().to_owned());
    let passed = node.store.read(move |reading| {
        let mut passed = Vec::new();
        for (key, state) in reading.alerts()? {
            let job = Job::named(&key.check).filter(|job| job.is_cluster_wide);
            let Some(job) = job.filter(|_| key.scope == own) else {
                continue;
            };
            let last = reading.runs(Some(job.name), 1)?.into_iter().next();
            if last.is_some_and(|run| run.verdict == Verdict::Ok && run.started_at > state.since) {
                passed.push(key);
            }
        }
        Ok(passed)
    });
    let passed = passed.await?;
    if passed.is_empty() {
        return Ok(());
    }
    let which = move |key: &AlertKey| passed.contains(key);
    let reason = "the last run of the job was good";
    node.alerts.resolve(which, reason, now).await?;
    Ok(())
}

/// Ends what no check and no job judges any more.
async fn end_abandoned(node: &Node, scopes: &[Scope], now: Timestamp) -> Result<(), AlertsError> {
    let view = node.view.borrow().clone();
    let settings = &node.tools.loaded.config.restore_test;
    let in_recovery = view.in_recovery(now);
    let definitions = node.tools.definitions.current();
    let down = view.failing.is_some();
    let asks_down_server = |check: &str| {
        let mut asks = definitions.iter().filter(|one| one.asks_postgresql());
        down && asks.any(|one| one.name == check)
    };
    let stands = |key: &AlertKey| {
        if key.scope == Scope::Cluster {
            // While the bucket cannot be looked at, what is known of it stands.
            return PAGED.contains(&key.check.as_str());
        }
        // While PostgreSQL is down, what was known of its inside stands; and while a check measures, what it raised before.
        // A receiver that was not tried since the start is not judged yet; `judge` ends the alerts of former ones.
        if key.check == DELIVERY {
            return true;
        }
        let is_made = definitions.iter().any(|one| one.name == key.check);
        let measures = is_made && node.tools.sampler.is_waiting(&key.check);
        if asks_down_server(&key.check) || measures {
            return true;
        }
        let job = Job::named(&key.check).filter(|job| job.is_cluster_wide);
        // Which jobs run here is known with the role.
        job.is_some_and(|job| in_recovery.is_none() || belongs_here(job, settings, &view, now))
    };
    let ended = node.alerts.end_abandoned(scopes, stands, now).await?;
    for event in &ended {
        let key = event.alert.key();
        tracing::info!(alert = %key, "an alert was ended: {}", event.alert.reason);
    }
    Ok(())
}

/// The nodes with alerts that are neither this one, a configured peer, nor heard of in Redis, for a while.
async fn departed_nodes(
    node: &Node,
    memory: &mut Memory,
    known: &Knowledge,
    now: Timestamp,
) -> Result<Vec<Scope>, AlertsError> {
    let live = node.redis.nodes(&memory.keys).await?;
    let is_member = |name: &String| {
        let peers = known.peers.iter();
        let is_peer = |peer: &Peer| peer.name() == name || peer.host() == name;
        name == node.hostname()
            || peers.into_iter().any(is_peer)
            || live.iter().any(|(hostname, _)| hostname == name)
    };
    let mut strangers = BTreeMap::new();
    for name in node.alerts.nodes_with_alerts(&node.redis).await? {
        if !is_member(&name) {
            let since = memory.strangers.get(&name).copied().unwrap_or(now);
            strangers.insert(name, since);
        }
    }
    memory.strangers = strangers;
    let departed = memory.strangers.iter().filter(|(_, since)| {
        let passed = now.duration_since(**since);
        passed >= DEPARTED
    });
    Ok(departed
        .map(|(name, _)| Scope::Node(name.clone()))
        .collect())
}

/// Ends what stands under a name that the cluster had before.
async fn leave_former_names(
    node: &Node,
    memory: &Memory,
    now: Timestamp,
) -> Result<(), AlertsError> {
    let former = node.alerts.former_names().await?;
    if now.duration_since(memory.began) < FORMER {
        return Ok(());
    }
    for name in former {
        let live = live_under(node, &name, memory.began).await?;
        if node.alerts.end_former(&node.redis, &name, &live).await? {
            tracing::info!("alerts under the cluster's former name {name} were ended");
        }
    }
    Ok(())
}

/// The nodes that still go by the cluster's former name; this node's own last words are not among them.
async fn live_under(
    node: &Node,
    former: &str,
    began: Timestamp,
) -> Result<Vec<String>, RedisError> {
    let nodes = node.redis.nodes(&Keys::new(former)).await?;
    let lives = |(hostname, json): &(String, String)| {
        hostname != node.hostname() || NodeState::parse(json).is_some_and(|state| state.at > began)
    };
    Ok(nodes
        .into_iter()
        .filter(lives)
        .map(|(name, _)| name)
        .collect())
}
