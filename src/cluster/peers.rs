//! The other nodes, as this one heard of them, and who speaks for all. Pure.

use jiff::{SignedDuration, Timestamp};

use super::{NodeState, View};

/// A peer that was not heard of for this long is silent: Redis has its heartbeat each 30 s, and is read each 10.
const SILENT: SignedDuration = SignedDuration::from_secs(60);
/// A peer that has not answered for this long, and has no newer entry in Redis, is unreachable.
const UNREACHABLE: SignedDuration = SignedDuration::from_secs(3);

/// Another node, as this one heard of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// As configured, `host:port`.
    pub address: String,
    /// What it said last, and when by this node's clock.
    pub heard: Option<(Timestamp, NodeState)>,
    /// Since when it does not answer here, and why.
    pub failing: Option<(Timestamp, String)>,
}

impl Peer {
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            heard: None,
            failing: None,
        }
    }

    /// Its host name, or where it should answer while that is all that is known.
    pub fn name(&self) -> &str {
        match &self.heard {
            Some((_, state)) => &state.hostname,
            None => self.host(),
        }
    }

    /// Its address without the port: the same before and after it was first heard.
    pub fn host(&self) -> &str {
        self.address
            .rsplit_once(':')
            .map_or(&self.address, |(host, _)| host)
    }

    /// What it said, unless that is too long ago.
    pub fn live(&self, now: Timestamp) -> Option<&NodeState> {
        let (at, state) = self.heard.as_ref()?;
        (now.duration_since(*at) <= SILENT).then_some(state)
    }

    /// Why it cannot be reached, though it was heard of a short while ago.
    pub fn unreachable(&self, now: Timestamp) -> Option<&str> {
        let (since, reason) = self.failing.as_ref()?;
        let heard_since = self.heard.as_ref().is_some_and(|(at, _)| at > since);
        let lasts = now.duration_since(*since) >= UNREACHABLE;
        (lasts && !heard_since).then_some(reason)
    }

    /// Takes in what it said over HTTP.
    pub fn heard(&mut self, state: NodeState, now: Timestamp) {
        (self.heard, self.failing) = (Some((now, state)), None);
    }

    /// Takes in that it did not answer.
    pub fn failed(&mut self, reason: String, now: Timestamp) {
        let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
        self.failing = Some((since, reason));
    }

    /// Takes in what Redis holds of it, where that is newer than what was heard.
    ///
    /// New words count from now, whatever the peer's clock says; the first may be as old as Redis keeps them.
    pub fn read_in_redis(&mut self, state: &NodeState, now: Timestamp) {
        let same = match &self.heard {
            Some((_, heard)) => heard.hostname == state.hostname,
            None => self.host() == state.hostname || self.address == state.listen,
        };
        let newer = self
            .heard
            .as_ref()
            .is_none_or(|(_, heard)| state.at > heard.at);
        if same && newer && self.failing.is_some() {
            let at = if self.heard.is_some() {
                now
            } else {
                state.at.min(now)
            };
            self.heard = Some((at, state.clone()));
        }
    }
}

/// Whether this node judges what concerns the cluster as a whole: the primary, or the survivor.
///
/// Where no node leads, the first by name of those that live; two that cannot hear each other both do. A replica that
/// was told of no peers does not.
pub fn speaks_for_cluster(hostname: &str, view: &View, peers: &[Peer], now: Timestamp) -> bool {
    if view.leads(now) {
        return true;
    }
    if peers.is_empty() && view.in_recovery(now) == Some(true) {
        return false;
    }
    // A primary that cannot be reached cannot raise the alert about itself.
    let reachable = peers.iter().filter(|peer| peer.unreachable(now).is_none());
    let live: Vec<&NodeState> = reachable.filter_map(|peer| peer.live(now)).collect();
    let another_leads = live.iter().any(|state| state.view.leads(state.at));
    let before_us = |state: &&NodeState| {
        state.view.superseded_by.is_none() && state.hostname.as_str() < hostname
    };
    !another_leads && view.superseded_by.is_none() && !live.iter().any(before_us)
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;
    use crate::model::Timeline;

    const NOW: i64 = 10_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view(in_recovery: Option<bool>, highest: u32) -> View {
        let mut view = View::default();
        if let Some(in_recovery) = in_recovery {
            view.saw(Sample {
                at: at(NOW),
                in_recovery,
                timeline: Timeline(1),
                system_identifier: 7,
                streaming: false,
                position: None,
            });
            view.learn(Timeline(highest));
        }
        view
    }

    fn state(hostname: &str, view: View, said_at: i64) -> NodeState {
        NodeState::new(hostname, "10.0.2.31:8009", view, Vec::new(), at(said_at))
    }

    fn peer(hostname: &str, view: View, heard_at: i64) -> Peer {
        let mut peer = Peer::new(&format!("{hostname}:8009"));
        peer.heard(state(hostname, view, NOW), at(heard_at));
        peer
    }

    #[test]
    fn the_primary_speaks_for_the_cluster_and_without_one_the_first_that_lives() {
        let (primary, replica) = (Some(false), Some(true));
        for (what, own, other, heard_at, db1_speaks, db2_speaks) in [
            // As seen from db1, then from db2 with the two roles changed over.
            (
                "it leads",
                view(primary, 1),
                view(replica, 1),
                NOW,
                true,
                true,
            ),
            (
                "the other leads",
                view(replica, 1),
                view(primary, 1),
                NOW,
                false,
                false,
            ),
            (
                "the other led, and is silent",
                view(replica, 1),
                view(primary, 1),
                NOW - 61,
                true,
                true,
            ),
            (
                "nobody leads",
                view(replica, 1),
                view(None, 1),
                NOW,
                true,
                false,
            ),
            (
                "superseded",
                view(primary, 2),
                view(replica, 1),
                NOW,
                false,
                false,
            ),
        ] {
            let peers = [peer("db2", other.clone(), heard_at)];
            let speaks = speaks_for_cluster("db1", &own, &peers, at(NOW));
            assert_eq!(speaks, db1_speaks, "{what}, db1");
            let peers = [peer("db1", other, heard_at)];
            let speaks = speaks_for_cluster("db2", &own, &peers, at(NOW));
            assert_eq!(speaks, db2_speaks, "{what}, db2");
        }
        assert!(speaks_for_cluster("db1", &view(None, 1), &[], at(NOW)));
    }

    #[test]
    fn another_node_speaks_for_an_unreachable_primary_until_redis_has_news_of_it() {
        let replica = view(Some(true), 1);
        let mut peers = [peer("db1", view(Some(false), 1), NOW - 4)];
        let speaks = |peers: &[Peer]| speaks_for_cluster("db2", &replica, peers, at(NOW));
        assert!(!speaks(&peers));
        peers[0].failed("refused".to_owned(), at(NOW - 2));
        assert!(!speaks(&peers), "a moment");
        peers[0].failing = Some((at(NOW - 3), "refused".to_owned()));
        assert_eq!(peers[0].unreachable(at(NOW)), Some("refused"));
        assert!(speaks(&peers));
        peers[0].read_in_redis(&state("db1", view(Some(false), 1), NOW + 1), at(NOW));
        assert!(!speaks(&peers), "Redis has news of it");
    }

    #[test]
    fn redis_speaks_for_a_peer_that_does_not_answer() {
        let mut silent = Peer::new("10.0.2.31:8009");
        let told = state("db2", view(Some(true), 1), NOW - 10);
        // One that answers needs no Redis.
        silent.read_in_redis(&told, at(NOW));
        assert_eq!(silent.heard, None);
        silent.failed("refused".to_owned(), at(NOW - 3));
        silent.failed("refused".to_owned(), at(NOW));
        assert_eq!(
            silent.failing.as_ref().map(|(since, _)| *since),
            Some(at(NOW - 3))
        );
        silent.read_in_redis(&told, at(NOW));
        assert!(silent.live(at(NOW)).is_some());
        assert!(silent.live(at(NOW + 51)).is_none());
        // Another node's words are not taken for its own.
        silent.read_in_redis(&state("db3", view(Some(true), 1), NOW), at(NOW));
        assert_eq!(silent.name(), "db2");
    }
}
