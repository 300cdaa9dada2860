//! What consumers read: the JSON of alerts and of their events. Its version is 1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{AlertKey, AlertMarks, AlertState, Notice, Scope, Severity, Told};

const VERSION: u32 = 1;

/// An alert as it stands: a value of the hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub v: u32,
    pub check: String,
    /// A host name, or `cluster`.
    pub node: String,
    /// Empty when the check has one object only.
    pub object: String,
    pub severity: Severity,
    /// Since when it has not been well.
    pub since: Timestamp,
    pub reason: String,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub runbook: Option<String>,
    /// The node that says so.
    pub reporter: String,
    /// No event was published of it: it has been hidden from the start.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// The severity of its last event, where that is another one: it has changed while the alert was hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Severity>,
    #[serde(flatten)]
    pub marks: AlertMarks,
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Raised,
    Escalated,
    Lowered,
    /// It has stood for so long since the last event that consumers should hear of it again.
    Reminded,
    Acknowledged,
    /// A person silenced it. It is raised again when the silence ends.
    Silenced,
    Resolved,
    /// A person tries whether events arrive; no alert stands.
    Test,
}

impl EventKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Escalated => "escalated",
            Self::Lowered => "lowered",
            Self::Reminded => "reminded",
            Self::Acknowledged => "acknowledged",
            Self::Silenced => "silenced",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// What happened to an alert: an entry of the stream, and a message of the channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub kind: EventKind,
    pub at: Timestamp,
    /// The severity of the event before, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Severity>,
    #[serde(flatten)]
    pub alert: Alert,
}

impl Alert {
    pub fn new(key: &AlertKey, state: &AlertState, reporter: &str) -> Self {
        Self {
            v: VERSION,
            check: key.check.clone(),
            node: key.scope.to_string(),
            object: key.object.clone(),
            severity: state.severity,
            since: state.since,
            reason: state.reason.clone(),
            value: state.value,
            threshold: state.threshold,
            runbook: state.runbook.clone(),
            reporter: reporter.to_owned(),
            hidden: state.notice.told.is_none(),
            told: state.told_before(),
            marks: state.notice.marks.clone(),
        }
    }

    /// `None` when another version of xdb wrote it.
    pub(super) fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json)
            .ok()
            .filter(|alert: &Self| alert.v == VERSION)
    }

    pub fn key(&self) -> AlertKey {
        AlertKey {
            check: self.check.clone(),
            scope: Scope::parse(&self.node),
            object: self.object.clone(),
        }
    }

    /// The raised alert that was shown like this.
    pub(super) fn state(&self) -> AlertState {
        AlertState {
            severity: self.severity,
            since: self.since,
            raised_at: Some(self.since),
            reason: self.reason.clone(),
            value: self.value,
            threshold: self.threshold,
            runbook: self.runbook.clone(),
            notice: Notice {
                told: (!self.hidden).then_some(Told {
                    severity: self.told.unwrap_or(self.severity),
                    at: None,
                    quiet: self.marks.silenced.is_some(),
                }),
                inhibited_at: None,
                marks: self.marks.clone(),
            },
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an alert has text keys only")
    }
}

impl Event {
    /// Names the event, the same on each attempt to deliver it. Hexadecimal.
    pub fn id(&self, cluster: &str) -> String {
        let (key, kind, at) = (self.alert.key(), self.kind.word(), self.at);
        let name = format!("{cluster} {} {key} {kind} {at}", self.alert.reporter);
        let digest = Sha256::digest(name.as_bytes());
        hex::encode(&digest[..16])
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event has text keys only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_what_consumers_were_promised() {
        let key = AlertKey::parse("replication-lag/cluster/db2").unwrap();
        let state = AlertState {
            severity: Severity::Critical,
            since: "2026-05-13T10:14:29Z".parse().unwrap(),
            raised_at: Some("2026-05-13T10:15:29Z".parse().unwrap()),
            reason: "db2 is 90.5 s behind".to_owned(),
            value: Some(90.5),
            threshold: Some(60.0),
            runbook: None,
            notice: Notice::known(Severity::Critical, None),
        };
        let event = Event {
            kind: EventKind::Raised,
            at: "2026-05-13T10:15:29Z".parse().unwrap(),
            from: None,
            alert: Alert::new(&key, &state, "db1"),
        };
        assert_eq!(
            event.to_json(),
            r#"{"kind":"raised","at":"2026-05-13T10:15:29Z","v":1,"check":"replication-lag","node":"cluster","object":"db2","severity":"critical","since":"2026-05-13T10:14:29Z","reason":"db2 is 90.5 s behind","value":90.5,"threshold":60.0,"runbook":null,"reporter":"db1"}"#
        );
        assert_eq!(
            serde_json::from_str::<Event>(&event.to_json()).unwrap(),
            event
        );
        assert_eq!(Alert::parse(&event.alert.to_json()).unwrap().key(), key);
        assert_eq!(
            Alert::parse(&event.alert.to_json().replace("\"v\":1", "\"v\":2")),
            None
        );
    }
}
