//! What a run of a job leaves to be found again: in the history of its node, and in the bucket for the other nodes.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Lsn, Timeline};

/// Tagged by the name of the job: `{"job":"dump","detail":{"set":"20261121T020000.000Z-db2",…}}`.
///
/// A field that an older xdb did not write, or that a run did not learn, is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", content = "detail", rename_all = "kebab-case")]
pub enum JobDetail {
    BaseBackup(#[serde(deserialize_with = "or_default")] BaseBackupDetail),
    Dump(#[serde(deserialize_with = "or_default")] DumpDetail),
    RestoreTest(Box<TestReport>),
    DumpTest(#[serde(deserialize_with = "or_default")] DumpTestDetail),
    Prune(#[serde(deserialize_with = "or_default")] PruneDetail),
    DumpPrune(#[serde(deserialize_with = "or_default")] PruneDetail),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseBackupDetail {
    pub backup: Option<String>,
    pub compressed_bytes: Option<u64>,
    pub system_identifier: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DumpDetail {
    pub set: Option<String>,
    pub bytes: Option<u64>,
    pub system_identifier: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DumpTestDetail {
    pub set: Option<String>,
    pub bytes: Option<u64>,
    pub secs: Option<f64>,
    pub system_identifier: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PruneDetail {
    /// Names of base backups, or of dump sets.
    pub deleted: Option<Vec<String>>,
    pub deleted_bytes: Option<u64>,
    pub system_identifier: Option<u64>,
}

/// A run that left nothing wrote null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl JobDetail {
    /// The cluster whose server it is about.
    pub fn system_identifier(&self) -> Option<u64> {
        match self {
            Self::BaseBackup(detail) => detail.system_identifier,
            Self::Dump(detail) => detail.system_identifier,
            Self::RestoreTest(report) => report.fields.system_identifier,
            Self::DumpTest(detail) => detail.system_identifier,
            Self::Prune(detail) | Self::DumpPrune(detail) => detail.system_identifier,
        }
    }

    /// What the other nodes are told: the result, and not the whole report.
    pub fn summary(&self) -> Self {
        match self {
            Self::RestoreTest(report) => Self::RestoreTest(Box::new(report.summary())),
            other => other.clone(),
        }
    }
}

/// The report of a restore test, as any node and any version of xdb wrote it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct TestReport {
    pub fields: TestFields,
    /// The whole report, for printing only.
    json: Value,
}

/// The fields of a report that are read back.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct TestFields {
    pub passed: bool,
    pub conclusion: Option<String>,
    /// Why it did not pass.
    pub reason: Option<String>,
    pub backup: Option<String>,
    pub level: Option<String>,
    /// `None` where it recovered to the end of the archive.
    pub until: Option<String>,
    pub system_identifier: Option<u64>,
    pub timeline: Option<Timeline>,
    pub recovered_lsn: Option<Lsn>,
    pub recovered_to: Option<Timestamp>,
    pub rto_secs: Option<f64>,
    pub rpo_secs: Option<f64>,
    pub wal_segments: Option<u64>,
    pub wal_stored_bytes: Option<u64>,
    pub damaged_wal: Option<String>,
    pub conditions: Option<TestConditions>,
    pub steps: Option<Vec<TestStep>>,
    pub verifications: Option<Vec<TestVerification>>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct TestConditions {
    pub throttled: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct TestStep {
    pub name: String,
    pub secs: Option<f64>,
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct TestVerification {
    pub name: String,
    pub verdict: String,
}

impl TryFrom<Value> for TestReport {
    type Error = serde_json::Error;

    fn try_from(json: Value) -> Result<Self, Self::Error> {
        let fields: Option<TestFields> = Deserialize::deserialize(&json)?;
        let fields = fields.unwrap_or_default();
        Ok(Self { fields, json })
    }
}

impl From<TestReport> for Value {
    fn from(report: TestReport) -> Self {
        report.json
    }
}

impl TestReport {
    /// Of the report that a restore test made.
    pub fn of(report: &impl Serialize) -> Self {
        let json = serde_json::to_value(report).expect("a report can be written as JSON");
        json.try_into()
            .expect("a report is read back as it was written")
    }

    fn summary(&self) -> Self {
        const TOLD: [&str; 6] = [
            "backup",
            "recovered_to",
            "rto_secs",
            "rpo_secs",
            "steps",
            "system_identifier",
        ];
        let told = TOLD.map(|key| (key.to_owned(), self.json[key].clone()));
        let json = Value::Object(told.into_iter().collect());
        json.try_into().expect("these fields were read before")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_of_older_versions_are_read_and_null_is_one_without_fields() {
        for (written, read) in [
            (
                json!({"job": "base-backup", "detail": {"backup": "base_1", "kind": "full", "compressed_bytes": 9}}),
                JobDetail::BaseBackup(BaseBackupDetail {
                    backup: Some("base_1".to_owned()),
                    compressed_bytes: Some(9),
                    system_identifier: None,
                }),
            ),
            (
                json!({"job": "prune", "detail": {"deleted": null, "gone": ["base_2"], "system_identifier": u64::MAX}}),
                JobDetail::Prune(PruneDetail {
                    system_identifier: Some(u64::MAX),
                    ..PruneDetail::default()
                }),
            ),
            (
                json!({"job": "prune", "detail": null}),
                JobDetail::Prune(PruneDetail::default()),
            ),
            (
                json!({"job": "restore-test", "detail": null}),
                JobDetail::RestoreTest(Box::default()),
            ),
        ] {
            let found: JobDetail = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(found, read, "{written}");
        }
    }

    #[test]
    fn other_nodes_are_told_the_result_and_not_the_whole_report() {
        let report = json!({
            "passed": true, "backup": "base_1", "rto_secs": 1.5, "rpo_secs": null, "timeline": 2,
            "recovered_lsn": "0/3000028", "steps": [{"name": "fetch", "secs": 1.0, "bytes": 7}],
            "verifications": [{"name": "wal", "verdict": "ok", "reason": null}],
            "system_identifier": 7, "not_read_here": [1]
        });
        let detail = json!({"job": "restore-test", "detail": report});
        let read: JobDetail = serde_json::from_value(detail.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), detail);
        assert_eq!(
            serde_json::to_value(read.summary()).unwrap()["detail"],
            json!({
                "backup": "base_1", "recovered_to": null, "rto_secs": 1.5, "rpo_secs": null,
                "steps": [{"name": "fetch", "secs": 1.0, "bytes": 7}], "system_identifier": 7
            })
        );
    }
}
