//! What people decided about alerts: silences, maintenance of a node, acknowledgements. Their JSON's version is 1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AlertKey, Scope, Severity};

const VERSION: u32 = 1;

/// One decision. Nothing of it ever changes but `ended`, which is set once: so two copies merge without a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub v: u32,
    pub id: String,
    #[serde(flatten)]
    pub of: Silenced,
    /// The worst severity that it covers. A worse one is reported all the same.
    pub severity: Severity,
    pub author: String,
    pub comment: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// `None` while it is in force.
    pub ended: Option<Ended>,
}

/// What a decision is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Silenced {
    /// Alerts by [`AlertPattern`].
    Silence { pattern: String },
    /// Alerts of the node, and those of other nodes whose object is the node.
    Maintenance { node: String },
    /// One alert, from its beginning to its end. Only reminders stop.
    Acknowledgement { alert: String, since: Timestamp },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Timestamp,
    pub by: String,
}

impl Silence {
    pub const VERSION: u32 = VERSION;

    /// Bytes of one as JSON: a longer one is not read, because every holder of Redis's password may write any.
    pub const LARGEST: usize = 8 * 1024;

    /// `None` when another version of xdb wrote it, or another program.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json)
            .ok()
            .filter(|silence: &Self| silence.v == VERSION)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a silence has text keys only")
    }

    /// Whether it is in force at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.expires_at
    }

    /// Whether the alert `key` is hidden by it at `severity`.
    pub fn hides(&self, key: &AlertKey, severity: Severity) -> bool {
        severity <= self.severity && self.is_about(key)
    }

    /// Whether the alert `key`, which began at `since`, is acknowledged by it at `severity`.
    ///
    /// By microseconds: the state store keeps no more.
    pub fn acknowledges(&self, key: &AlertKey, began: Timestamp, severity: Severity) -> bool {
        match &self.of {
            Silenced::Acknowledgement { alert, since } => {
                severity <= self.severity
                    && *alert == key.to_string()
                    && since.as_microsecond() == began.as_microsecond()
            }
            _ => false,
        }
    }

    /// Whether it can hide the alert `key` at some severity.
    pub fn is_about(&self, key: &AlertKey) -> bool {
        match &self.of {
            Silenced::Silence { pattern } => AlertPattern::parse(pattern).matches(key),
            Silenced::Maintenance { node } => {
                key.scope == Scope::Node(node.clone()) || key.object == *node
            }
            Silenced::Acknowledgement { .. } => false,
        }
    }

    /// Of two copies the one to keep: an end is final, and of two ends the earlier one counts.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (&self.ended, &other.ended) {
            (None, Some(_)) => other,
            (Some(own), Some(its)) if (its.at, &its.by) < (own.at, &own.by) => other,
            _ => self,
        }
    }
}

/// `check/node/object` with `*` for any text in a part; parts that are left out match anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertPattern<'a>([&'a str; 3]);

impl<'a> AlertPattern<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.splitn(3, '/');
        Self([(); 3].map(|()| parts.next().unwrap_or("*")))
    }

    pub fn matches(&self, key: &AlertKey) -> bool {
        let node = key.scope.to_string();
        let of = [key.check.as_str(), &node, &key.object];
        let mut parts = self.0.iter().zip(of);
        parts.all(|(pattern, text)| matches(pattern.as_bytes(), text.as_bytes()))
    }
}

/// Steps back to the last `*` only: the time is bounded by the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((of, from)) = star else { return false };
                star = Some((of, from + 1));
                (at, read) = (of + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn silence(of: Silenced, severity: Severity) -> Silence {
        Silence {
            v: VERSION,
            id: "a1".to_owned(),
            of,
            severity,
            author: "eve".to_owned(),
            comment: "a disk is being replaced".to_owned(),
            created_at: at(0),
            expires_at: at(100),
            ended: None,
        }
    }

    #[test]
    fn a_pattern_matches_by_its_parts() {
        for (pattern, key, matches) in [
            ("disk/db1/", "disk/db1/", true),
            ("disk/db1/", "disk/db1//var", false),
            ("disk/db1", "disk/db1//var", true),
            ("disk", "disk/db2/x", true),
            ("disk", "disk-forecast/db2/x", false),
            ("disk*/*/x", "disk-forecast/db2/x", true),
            ("*", "a/cluster/", true),
            ("*/db1", "a/cluster/", false),
            ("*g*p/db1", "lag-gap/db1/", true),
            ("*g*p/db1", "lag-gap-no/db1/", false),
            ("disk/db1//v*r", "disk/db1//var", true),
            ("", "disk/db1/", false),
        ] {
            let key = AlertKey::parse(key).unwrap();
            let found = AlertPattern::parse(pattern).matches(&key);
            assert_eq!(found, matches, "{pattern} {key}");
        }
    }

    #[test]
    fn a_silence_covers_no_worse_severity_and_maintenance_only_its_node() {
        use Severity::{Critical, Unknown, Warning};
        let of = || Silenced::Silence {
            pattern: "disk/db1".to_owned(),
        };
        let key = AlertKey::parse("disk/db1/").unwrap();
        for (covers, severity, hidden) in [
            (Warning, Warning, true),
            (Warning, Unknown, true),
            (Warning, Critical, false),
            (Unknown, Warning, false),
            (Critical, Critical, true),
        ] {
            assert_eq!(silence(of(), covers).hides(&key, severity), hidden);
        }
        let node = Silenced::Maintenance {
            node: "db2".to_owned(),
        };
        let maintenance = silence(node, Critical);
        for (key, hidden) in [
            ("postgresql-up/db2/", true),
            ("replication-lag/db1/db2", true),
            ("node/cluster/db2", true),
            ("node/cluster/db1", false),
            ("postgresql-up/db1/", false),
            ("recoverability/cluster/", false),
        ] {
            let key = AlertKey::parse(key).unwrap();
            assert_eq!(maintenance.hides(&key, Critical), hidden, "{key}");
        }
    }

    #[test]
    fn an_acknowledgement_is_of_one_alert_until_it_ends_or_worsens() {
        let of = Silenced::Acknowledgement {
            alert: "disk/db1/".to_owned(),
            since: "2026-05-13T10:14:29.123456789Z".parse().unwrap(),
        };
        let acknowledged = silence(of, Severity::Warning);
        let key = AlertKey::parse("disk/db1/").unwrap();
        let began = "2026-05-13T10:14:29.123456Z".parse().unwrap();
        assert!(acknowledged.acknowledges(&key, began, Severity::Warning));
        assert!(!acknowledged.acknowledges(&key, began, Severity::Critical));
        assert!(!acknowledged.acknowledges(&key, at(5), Severity::Warning));
        assert!(!acknowledged.hides(&key, Severity::Warning));
    }

    #[test]
    fn copies_merge_alike_in_either_order() {
        let of = Silenced::Maintenance {
            node: "db2".to_owned(),
        };
        let live = silence(of, Severity::Critical);
        let ended = |second, by: &str| Silence {
            ended: Some(Ended {
                at: at(second),
                by: by.to_owned(),
            }),
            ..live.clone()
        };
        let copies = [
            live.clone(),
            ended(5, "adam"),
            ended(3, "eve"),
            ended(3, "zoe"),
        ];
        for one in &copies {
            for other in &copies {
                let merged = one.clone().merge(other.clone());
                assert_eq!(merged, other.clone().merge(one.clone()));
                assert_eq!(merged.ended.is_some(), *one != live || *other != live);
            }
        }
        assert!(live.is_live(at(99)) && !live.is_live(at(100)) && !copies[1].is_live(at(1)));
        let json = live.to_json();
        assert!(
            json.starts_with(r#"{"v":1,"id":"a1","kind":"maintenance","node":"db2","severity":"critical","author":"eve""#),
            "{json}"
        );
        assert_eq!(Silence::parse(&json), Some(live));
        assert_eq!(Silence::parse(&json.replace("\"v\":1", "\"v\":2")), None);
    }
}
