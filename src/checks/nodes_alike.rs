//! Whether the nodes are alike: settings, versions, timeline. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::round::Nodes;
use super::values::Sampled;
use crate::cluster::{NodeState, Peer, ServerSettings};

/// Differences that are named; the others are counted only.
const NAMED: usize = 6;

/// How many settings of each peer differ from this node's.
pub(super) fn settings(nodes: &Nodes) -> Vec<Sampled> {
    differences(nodes, |server| &server.settings, true)
}

/// How many programs of each peer have another version. One that is unknown on a node is not compared.
pub(super) fn versions(nodes: &Nodes) -> Vec<Sampled> {
    differences(nodes, |server| &server.versions, false)
}

/// Compares what `part` chooses; a name that one node lacks differs if `missing_differs`.
fn differences(
    nodes: &Nodes,
    part: impl Fn(&ServerSettings) -> &BTreeMap<String, String>,
    missing_differs: bool,
) -> Vec<Sampled> {
    let Some(own) = &nodes.server else {
        return Vec::new();
    };
    let own = part(own);
    let compare = |peer: &Peer| {
        let (_, state) = peer.last_answer.as_ref()?;
        let theirs = part(state.server.as_ref()?);
        let mut names: Vec<&String> = own.keys().chain(theirs.keys()).collect();
        names.sort();
        names.dedup();
        let differs = |name: &&String| match (own.get(*name), theirs.get(*name)) {
            (Some(own), Some(theirs)) => own != theirs,
            _ => missing_differs,
        };
        let different: Vec<&String> = names.into_iter().filter(differs).collect();
        let shown = |of: &BTreeMap<String, String>, name: &str| match of.get(name) {
            Some(value) if value.is_empty() => "empty".to_owned(),
            Some(value) => value.clone(),
            None => "default".to_owned(),
        };
        let named = different.iter().take(NAMED).map(|name| {
            let (theirs, own) = (shown(theirs, name), shown(own, name));
            format!("{name} is {theirs}, here {own}")
        });
        let mut detail: Vec<String> = named.collect();
        if let Some(more) = different.len().checked_sub(NAMED).filter(|more| *more > 0) {
            detail.push(format!("and {more} more"));
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a server has some hundred settings"
        )]
        let number = different.len() as f64;
        Some(Sampled {
            object: Some(peer.name().to_owned()),
            number: Ok(number),
            detail: Some(format!("on {}: {}", peer.name(), detail.join("; "))),
        })
    };
    nodes.peers.iter().filter_map(compare).collect()
}

/// 1 where this node's server is on another timeline than the primary that answers; nothing where none does.
pub(super) fn timeline(nodes: &Nodes, now: Timestamp) -> Vec<Sampled> {
    let Some(own) = nodes.sample else {
        return Vec::new();
    };
    let leads = |state: &&NodeState| {
        let sample = state.view.sample;
        sample.is_some_and(|sample| !sample.in_recovery) && state.view.superseded_by.is_none()
    };
    let live = nodes.peers.iter().filter_map(|peer| peer.live(now));
    let value = |state: &NodeState| {
        let theirs = state.view.sample?.timeline;
        Some(Sampled {
            object: None,
            number: Ok(if own.timeline == theirs { 0.0 } else { 1.0 }),
            detail: Some(format!(
                "this replica is on timeline {}, and the primary {} on timeline {theirs}",
                own.timeline, state.hostname
            )),
        })
    };
    live.filter(leads).filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{NOW, at, view};

    fn server(pairs: &[(&str, &str)]) -> ServerSettings {
        let pairs = pairs.iter();
        let map: BTreeMap<String, String> = pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        ServerSettings {
            versions: map.clone(),
            settings: map,
        }
    }

    fn nodes(own: &[(&str, &str)], theirs: Option<&[(&str, &str)]>) -> Nodes {
        let mut peer = Peer::new("db2:8009");
        let state = NodeState::new("db2", "db2:8009", view(false, 2), Vec::new(), at(NOW));
        let state = NodeState {
            server: theirs.map(server),
            ..state
        };
        peer.answered(state, at(NOW));
        Nodes {
            peers: vec![peer],
            sample: view(true, 1).sample,
            server: Some(server(own)),
        }
    }

    #[test]
    fn each_difference_is_counted_and_named_with_both_values() {
        let own = [("max_connections", "100"), ("work_mem", "4096 kB")];
        let alike = nodes(&own, Some(&own));
        assert_eq!(settings(&alike)[0].number, Ok(0.0));
        assert_eq!(versions(&alike)[0].number, Ok(0.0));
        let other = nodes(&own, Some(&[("max_connections", "50"), ("jit", "off")]));
        let found = &settings(&other)[0];
        assert_eq!(found.object.as_deref(), Some("db2"));
        assert_eq!(found.number, Ok(3.0));
        assert_eq!(
            found.detail.as_deref(),
            Some(
                "on db2: jit is off, here default; max_connections is 50, here 100; work_mem is default, here 4096 kB"
            )
        );
        // A program that could not be asked has no version to differ.
        assert_eq!(versions(&other)[0].number, Ok(1.0));
        // A daemon of an earlier release reports none.
        assert_eq!(settings(&nodes(&own, None)), []);
    }

    #[test]
    fn a_replica_on_another_timeline_than_its_primary_is_named() {
        let mut both = nodes(&[], None);
        let found = timeline(&both, at(NOW));
        assert_eq!(found[0].number, Ok(1.0));
        let detail = found[0].detail.as_deref().unwrap();
        assert!(
            detail.contains("on timeline 1, and the primary db2 on timeline 2"),
            "{detail}"
        );
        both.sample = view(true, 2).sample;
        assert_eq!(timeline(&both, at(NOW))[0].number, Ok(0.0));
        both.peers.clear();
        assert_eq!(timeline(&both, at(NOW)), []);
    }
}
