//! The names of xdb's keys; one Redis may serve many clusters.

/// The keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// `cluster` is the configuration's name: lowercase letters, digits and dashes.
    pub fn new(cluster: &str) -> Self {
        Self {
            prefix: format!("xdb:{cluster}:"),
        }
    }

    /// A node's live state; its presence is health.
    pub fn node(&self, hostname: &str) -> String {
        format!("{}node:{hostname}", self.prefix)
    }

    /// A job's last success; its absence is an alert.
    pub fn job(&self, job: &str) -> String {
        format!("{}job:{job}", self.prefix)
    }

    /// Hash: the alerts as they stand.
    pub fn active(&self) -> String {
        format!("{}alerts:active", self.prefix)
    }

    /// Stream: every event, in order, once.
    pub fn events(&self) -> String {
        format!("{}alerts:events", self.prefix)
    }

    /// Channel: the same events as they happen.
    pub fn channel(&self) -> String {
        format!("{}alerts", self.prefix)
    }

    /// Hash: silences, maintenance and acknowledgements, by id.
    pub fn silences(&self) -> String {
        format!("{}silences", self.prefix)
    }

    /// The number of the last event that `hostname` delivered.
    pub fn delivered(&self, hostname: &str) -> String {
        format!("{}alerts:delivered:{hostname}", self.prefix)
    }
}
