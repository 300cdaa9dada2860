//! Which nodes the cluster has, so that a maintenance of a misspelt one is refused.

use std::collections::BTreeSet;

use super::{Known, VerbContext};
use crate::cli::exit::{Exit, complain};
use crate::cluster;
use crate::log;
use crate::model::Scope;

impl VerbContext<'_> {
    /// `None` where `name` is a node of the cluster.
    pub(super) async fn refuse_unknown_node(&self, name: &str, known: &Known) -> Option<Exit> {
        let (nodes, unread) = self.nodes(known).await;
        if nodes.contains(name) {
            return None;
        }
        let nodes: Vec<String> = nodes.into_iter().collect();
        let mut hint = format!("known nodes: {}", nodes.join(", "));
        if let Some(reason) = unread {
            hint = format!(
                "{hint}\nRedis cannot be read, so a node that does not answer may be missing here: {reason}\n\
                 `xdb alerts silence '*/{name}'` silences its alerts without this check"
            );
        }
        complain(
            &format!("refused: no node of the cluster is named {name}"),
            Some(&hint),
        );
        Some(Exit::Refused)
    }

    /// By the configuration, Redis, the peers that answer and the alerts that stand; and why Redis could not be asked.
    async fn nodes(&self, known: &Known) -> (BTreeSet<String>, Option<String>) {
        let mut nodes = BTreeSet::from([self.hostname.to_owned()]);
        let unread = match self.published.nodes().await {
            Ok(published) => {
                nodes.extend(published);
                None
            }
            Err(error) => Some(log::chain(&error)),
        };
        for address in self.peers {
            let host = address.rsplit_once(':').map_or(&**address, |it| it.0);
            nodes.insert(match cluster::ask_state(address).await {
                Ok(state) => state.hostname,
                Err(_) => host.to_owned(),
            });
        }
        for key in known.alerts.iter().map(crate::alerts::Alert::key) {
            // A silent peer is the object of that check.
            if key.check == "node" {
                nodes.insert(key.object);
            }
            if let Scope::Node(node) = key.scope {
                nodes.insert(node);
            }
        }
        (nodes, unread)
    }
}
