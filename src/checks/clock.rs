//! By how much the clocks of the nodes differ. Pure.

use super::values::Sampled;
use crate::cluster::Peer;

/// Seconds between this node's clock and that of each peer that answers it: what it said, against when that was heard.
pub(super) fn skews(peers: &[Peer]) -> Vec<Sampled> {
    let skew = |peer: &Peer| {
        // In Redis its words may be half a minute old.
        let (heard_at, state) = peer
            .last_answer
            .as_ref()
            .filter(|_| peer.failing.is_none())?;
        let ahead = state.at.duration_since(*heard_at).as_secs_f64();
        let word = if ahead > 0.0 { "ahead" } else { "behind" };
        Some(Sampled {
            object: Some(peer.name().to_owned()),
            number: Ok(ahead.abs()),
            detail: Some(format!(
                "the clock of {} is {word} of this node's",
                peer.name()
            )),
        })
    };
    peers.iter().filter_map(skew).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cluster::{NodeState, View};

    #[test]
    fn a_peer_that_answers_is_compared_with_when_it_was_heard() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let state =
            |said_at| NodeState::new("db2", "db2:8009", View::default(), Vec::new(), at(said_at));
        let mut peer = Peer::new("db2:8009");
        assert!(skews(std::slice::from_ref(&peer)).is_empty());
        for (said_at, heard_at, expected, word) in
            [(107, 100, 7.0, "ahead"), (97, 100, 3.0, "behind")]
        {
            peer.answered(state(said_at), at(heard_at));
            let values = skews(std::slice::from_ref(&peer));
            assert_eq!(values[0].number, Ok(expected));
            assert!(
                values[0].detail.as_ref().unwrap().contains(word),
                "{values:?}"
            );
        }
        peer.failed("refused".to_owned(), at(101));
        assert!(skews(&[peer]).is_empty());
    }
}
