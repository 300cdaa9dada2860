//! Live state: keys that expire unless they are written again.

use std::time::Duration;

use ::redis::{Cmd, cmd};

use super::{Keys, Redis, RedisError};

/// Bytes of a node's state, and nodes, that are read: every holder of the password may write any.
const LARGEST: usize = 1024 * 1024;
const MOST_NODES: usize = 1000;

/// Three heartbeats of 30 s.
const NODE_TTL: Duration = Duration::from_secs(90);

impl Redis {
    /// Shows this node's state for the next 90 s.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub async fn publish_node(
        &self,
        keys: &Keys,
        hostname: &str,
        json: &str,
    ) -> Result<(), RedisError> {
        let command = set(&keys.node(hostname), json, NODE_TTL);
        self.ask("write the node's state", &command).await
    }

    /// Publishes a job's last success for `ttl`. One that is not this node's `own` never replaces what is there.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub async fn publish_job(
        &self,
        keys: &Keys,
        job: &str,
        json: &str,
        ttl: Duration,
        own: bool,
    ) -> Result<(), RedisError> {
        let mut command = set(&keys.job(job), json, ttl);
        if !own {
            command.arg("NX");
        }
        self.ask("write a job's state", &command).await
    }

    /// The nodes that live, this one included: host name and JSON, by host name.
    ///
    /// # Errors
    /// When Redis does not answer or refuses.
    pub async fn nodes(&self, keys: &Keys) -> Result<Vec<(String, String)>, RedisError> {
        const WHAT: &str = "read the nodes' states";
        let prefix = keys.node("");
        let (mut cursor, mut found) = (0_u64, Vec::new());
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*"));
            scan.arg("COUNT").arg(1000);
            let (next, page): (u64, Vec<String>) = self.ask(WHAT, &scan).await?;
            found.extend(page);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // A scan may name a key twice.
        found.sort();
        found.dedup();
        found.truncate(MOST_NODES);
        let mut nodes = Vec::new();
        for key in found {
            let mut get = cmd("GETRANGE");
            get.arg(&key).arg(0).arg(LARGEST);
            let state: Vec<u8> = match self.ask(WHAT, &get).await {
                Ok(state) => state,
                // No node wrote that.
                Err(RedisError::WrongType { .. }) => continue,
                Err(error) => return Err(error),
            };
            // One can have vanished in between.
            if let Ok(state) = String::from_utf8(state)
                && !state.is_empty()
            {
                let hostname = key.strip_prefix(&prefix).unwrap_or(&key);
                nodes.push((hostname.to_owned(), state));
            }
        }
        Ok(nodes)
    }
}

fn set(key: &str, value: &str, ttl: Duration) -> Cmd {
    let mut command = cmd("SET");
    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2);
    command.arg(key).arg(value).arg("PX").arg(millis);
    command
}
