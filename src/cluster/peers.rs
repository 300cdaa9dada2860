//! The other nodes, as this one heard of them, and who speaks for all. Pure.

use jiff::{SignedDuration, Timestamp};

use super::{NodeState, View};
use crate::model::{Supersession, judge_descent};

/// A peer that was not heard of for this long is silent: Redis has its heartbeat each 30 s, and is read each 10.
const SILENT: SignedDuration = SignedDuration::from_secs(60);
/// A peer that has not answered for this long, and has no newer entry in Redis, is unreachable.
const UNREACHABLE: SignedDuration = SignedDuration::from_secs(3);

/// Another node, as this one heard of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Peer {
    /// As configured, `host:port`.
    pub address: String,
    /// What it said last, and when by this node's clock.
    pub last_answer: Option<(Timestamp, NodeState)>,
    /// Since when it does not answer here, and why.
    pub failing: Option<(Timestamp, String)>,
}

impl Peer {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            last_answer: None,
            failing: None,
        }
    }

    /// Its host name, or where it should answer while that is all that is known.
    pub(crate) fn name(&self) -> &str {
        match &self.last_answer {
            Some((_, state)) => &state.hostname,
            None => self.host(),
        }
    }

    /// Its address without the port: the same before and after it was first heard.
    pub(crate) fn host(&self) -> &str {
        self.address
            .rsplit_once(':')
            .map_or(&self.address, |(host, _)| host)
    }

    /// What it said, unless that is too long ago.
    pub(crate) fn live(&self, now: Timestamp) -> Option<&NodeState> {
        let (at, state) = self.last_answer.as_ref()?;
        (now.duration_since(*at) <= SILENT).then_some(state)
    }

    /// Whether it answered or failed to answer once since this process began.
    pub(crate) fn was_asked(&self) -> bool {
        self.last_answer.is_some() || self.failing.is_some()
    }

    /// Whether it has said nothing for long. A peer that this process has only begun to ask may answer yet.
    pub(crate) fn silent(&self, now: Timestamp) -> bool {
        let since = match (&self.last_answer, &self.failing) {
            (Some((at, _)), _) | (None, Some((at, _))) => *at,
            (None, None) => return false,
        };
        now.duration_since(since) > SILENT
    }

    /// Why it cannot be reached, though it was heard of a short while ago.
    pub(crate) fn unreachable(&self, now: Timestamp) -> Option<&str> {
        let (since, reason) = self.failing.as_ref()?;
        let heard_since = self.last_answer.as_ref().is_some_and(|(at, _)| at > since);
        let lasts = now.duration_since(*since) >= UNREACHABLE;
        (lasts && !heard_since).then_some(reason)
    }

    /// Takes in what it said over HTTP.
    pub(crate) fn answered(&mut self, state: NodeState, now: Timestamp) {
        (self.last_answer, self.failing) = (Some((now, state)), None);
    }

    /// Takes in that it did not answer.
    pub(crate) fn failed(&mut self, reason: String, now: Timestamp) {
        let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
        self.failing = Some((since, reason));
    }

    /// Takes in what Redis holds of it, where that is newer than what was heard.
    ///
    /// New words count from now, whatever the peer's clock says; the first may be as old as Redis keeps them.
    pub(crate) fn read_in_redis(&mut self, state: &NodeState, now: Timestamp) {
        let same = match &self.last_answer {
            Some((_, heard)) => heard.hostname == state.hostname,
            None => self.host() == state.hostname || self.address == state.listen,
        };
        let newer = self
            .last_answer
            .as_ref()
            .is_none_or(|(_, heard)| state.at > heard.at);
        if same && newer && self.failing.is_some() {
            let at = if self.last_answer.is_some() {
                now
            } else {
                state.at.min(now)
            };
            self.last_answer = Some((at, state.clone()));
        }
    }
}

/// The peers by name: a node that is configured by name and by address is one. Of its addresses one that answers stands for it.
pub(crate) fn distinct(peers: &[Peer]) -> Vec<Peer> {
    let mut distinct: Vec<Peer> = Vec::new();
    for peer in peers {
        match distinct
            .iter_mut()
            .find(|other| other.name() == peer.name())
        {
            Some(other) if other.failing.is_some() && peer.failing.is_none() => {
                *other = peer.clone();
            }
            Some(_) => {}
            None => distinct.push(peer.clone()),
        }
    }
    distinct
}

/// The proof that `peer` runs on a timeline that supersedes the primary of `view`.
///
/// A peer says so itself over HTTP, and shows the history by which it came there. What others say of it is no proof.
pub(crate) fn prove_by_peer(view: &View, peer: &NodeState, now: Timestamp) -> Option<Supersession> {
    let own = view.position()?;
    let theirs = peer.view.sample?;
    // What its server was before it stopped answering proves nothing of now.
    peer.view.in_recovery(peer.at)?;
    if theirs.system_identifier != own.system_identifier {
        return None;
    }
    let history = peer.view.history.clone()?;
    judge_descent(theirs.timeline, &history, &own).ok()?;
    Some(Supersession {
        system_identifier: own.system_identifier,
        timeline: theirs.timeline,
        history,
        proven_by: format!("{} runs on it", peer.hostname),
        at: now,
    })
}

/// What `state`, which was read in Redis, says of a timeline above the primary's own; `None` where it says none.
///
/// Every holder of the Redis password can write it, so it is shown and changes nothing.
pub(crate) fn redis_claim(view: &View, state: &NodeState) -> Option<String> {
    let own = view.position()?;
    let theirs = state.view.sample?;
    let claimed = state.view.highest.max(Some(theirs.timeline))?;
    (theirs.system_identifier == own.system_identifier && claimed > own.timeline).then(|| {
        format!(
            "Redis says that {} knows of timeline {claimed}; no peer and no archive proves it, so it changes nothing",
            state.hostname
        )
    })
}

/// Whether this node judges what concerns the cluster as a whole: the primary, or the survivor.
///
/// Where no node leads, the first by name of those that live; two that cannot hear each other both do. A replica that
/// was told of no peers does not.
pub(crate) fn speaks_for_cluster(
    hostname: &str,
    view: &View,
    peers: &[Peer],
    now: Timestamp,
) -> bool {
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
    use super::super::ServerSample;
    use super::*;
    use crate::model::{Lsn, Supersession, Timeline, TimelineHistory};

    const NOW: i64 = 10_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view(in_recovery: Option<bool>, highest: u32) -> View {
        let mut view = View::default();
        if let Some(in_recovery) = in_recovery {
            view.record_sample(ServerSample {
                at: at(NOW),
                in_recovery,
                timeline: Timeline(1),
                system_identifier: 7,
                streaming: false,
                position: Some(Lsn(200)),
            });
            view.remember(Supersession {
                system_identifier: 7,
                timeline: Timeline(highest),
                history: "1\t0/64\tr\n".parse().unwrap(),
                proven_by: "db3 runs on it".to_owned(),
                at: at(NOW),
            });
        }
        view
    }

    fn state(hostname: &str, view: View, said_at: i64) -> NodeState {
        NodeState::new(hostname, "10.0.2.31:8009", view, Vec::new(), at(said_at))
    }

    fn peer(hostname: &str, view: View, heard_at: i64) -> Peer {
        let mut peer = Peer::new(&format!("{hostname}:8009"));
        peer.answered(state(hostname, view, NOW), at(heard_at));
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
    fn a_node_with_two_addresses_is_one() {
        let told = state("db2", view(Some(true), 1), NOW);
        let answering = |address: &str| {
            let mut peer = Peer::new(address);
            peer.answered(told.clone(), at(NOW));
            peer
        };
        let failing = |mut peer: Peer| {
            peer.failed("refused".to_owned(), at(NOW));
            peer
        };
        let (name, ip) = ("db2:8009", "10.0.2.31:8009");
        for (what, peers, kept) in [
            (
                "both answer",
                vec![answering(name), answering(ip)],
                vec![name],
            ),
            (
                "the first does not",
                vec![failing(answering(name)), answering(ip)],
                vec![ip],
            ),
            (
                "the name was never heard",
                vec![failing(Peer::new(name)), answering(ip)],
                vec![ip],
            ),
            (
                "the address was never heard",
                vec![answering(name), failing(Peer::new(ip))],
                vec![name, ip],
            ),
            (
                "two nodes",
                vec![answering(name), Peer::new("db3:8009")],
                vec![name, "db3:8009"],
            ),
        ] {
            let found = distinct(&peers);
            let found: Vec<_> = found.iter().map(|peer| peer.address.as_str()).collect();
            assert_eq!(found, kept, "{what}");
        }
    }

    #[test]
    fn a_peer_proves_a_timeline_that_it_runs_on_and_redis_proves_none() {
        let own = view(Some(false), 1);
        let running = |timeline: u32, in_recovery: bool, identifier: u64, history: &str| {
            let mut view = View::default();
            view.record_sample(ServerSample {
                at: at(NOW),
                in_recovery,
                timeline: Timeline(timeline),
                system_identifier: identifier,
                streaming: false,
                position: Some(Lsn(300)),
            });
            let history: Option<TimelineHistory> = history.parse().ok();
            view.history = history;
            state("db2", view, NOW)
        };
        let left = "1\t0/64\tr\n";
        for (what, peer, proves) in [
            ("promoted", running(2, false, 7, left), true),
            ("follows one that was", running(2, true, 7, left), true),
            (
                "left later than we are",
                running(2, false, 7, "1\t0/640\tr\n"),
                false,
            ),
            ("shows no history", running(2, false, 7, "nonsense"), false),
            ("another cluster", running(2, false, 8, left), false),
            ("our own timeline", running(1, true, 7, ""), false),
            ("absurd", running(4_000_000_000, false, 7, left), false),
        ] {
            let proof = prove_by_peer(&own, &peer, at(NOW));
            assert_eq!(proof.is_some(), proves, "{what}");
        }
        let mut silent = running(2, false, 7, left);
        silent.at = at(NOW + 60);
        assert_eq!(prove_by_peer(&own, &silent, at(NOW)), None);
        let standby = view(Some(true), 1);
        assert_eq!(
            prove_by_peer(&standby, &running(2, false, 7, left), at(NOW)),
            None
        );

        let claim = redis_claim(&own, &running(2, false, 7, left)).unwrap_or_default();
        assert!(claim.contains("db2 knows of timeline 2"), "{claim}");
        for quiet in [running(1, true, 7, ""), running(2, false, 8, left)] {
            assert_eq!(redis_claim(&own, &quiet), None);
        }
    }

    #[test]
    fn a_peer_is_silent_only_after_it_was_asked_for_a_minute() {
        for (what, heard, failing, asked, silent) in [
            ("never asked", None, None, false, false),
            ("failed a moment ago", None, Some(NOW - 60), true, false),
            ("failed for long", None, Some(NOW - 61), true, true),
            ("heard", Some(NOW - 60), None, true, false),
            ("heard long ago", Some(NOW - 61), Some(NOW - 60), true, true),
        ] {
            let mut peer = Peer::new("db2:8009");
            peer.last_answer =
                heard.map(|second| (at(second), state("db2", View::default(), second)));
            peer.failing = failing.map(|second| (at(second), "refused".to_owned()));
            let found = (peer.was_asked(), peer.silent(at(NOW)));
            assert_eq!(found, (asked, silent), "{what}");
        }
    }

    #[test]
    fn redis_speaks_for_a_peer_that_does_not_answer() {
        let mut silent = Peer::new("10.0.2.31:8009");
        let told = state("db2", view(Some(true), 1), NOW - 10);
        // One that answers needs no Redis.
        silent.read_in_redis(&told, at(NOW));
        assert_eq!(silent.last_answer, None);
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
