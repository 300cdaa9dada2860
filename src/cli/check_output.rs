//! How findings and checks are printed.

use serde::Serialize;

use super::output::{say, table};
use crate::checks::Definition;
use crate::model::Finding;

/// Prints the findings as a table.
pub(super) fn print(findings: &[Finding]) -> std::io::Result<()> {
    let rows = findings.iter().map(|finding| {
        vec![
            finding.check.clone(),
            finding.object.clone(),
            finding.verdict.word().to_owned(),
            finding.verdict.reason().unwrap_or_default().to_owned(),
        ]
    });
    if findings.is_empty() {
        return Ok(());
    }
    let header = ["CHECK", "OBJECT", "VERDICT", "REASON"];
    say(table(&header, &[], rows).trim_fmt())
}

/// The same with values and the limits that they were judged by.
pub(super) fn print_with_values(findings: &[Finding]) -> std::io::Result<()> {
    let number = |number: Option<f64>| number.map_or_else(String::new, rounded);
    let rows = findings.iter().map(|finding| {
        vec![
            finding.object.clone(),
            number(finding.value),
            number(finding.threshold),
            finding.verdict.word().to_owned(),
            finding.verdict.reason().unwrap_or_default().to_owned(),
        ]
    });
    let header = ["OBJECT", "VALUE", "LIMIT", "VERDICT", "REASON"];
    say(table(&header, &[], rows).trim_fmt())
}

/// With four digits after the point at most.
pub(super) fn rounded(number: f64) -> String {
    format!("{}", (number * 10_000.0).round() / 10_000.0)
}

/// A check as JSON.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    pub name: &'a str,
    pub title: &'a str,
    /// `packaged`, or the operator's file.
    pub origin: String,
    pub kind: &'a str,
    pub role: String,
    pub unit: Option<&'a str>,
    pub warning: Option<f64>,
    pub critical: Option<f64>,
    /// `above` or `below`.
    pub worse: Option<&'static str>,
    pub recover: Option<f64>,
    pub for_secs: f64,
    pub interval_secs: f64,
    pub runbook: Option<&'a str>,
}

impl<'a> From<&'a Definition> for Listed<'a> {
    fn from(definition: &'a Definition) -> Self {
        let limits = definition.kind.limits();
        Self {
            name: &definition.name,
            title: &definition.title,
            origin: definition.origin(),
            kind: definition.kind.word(),
            role: definition.role.to_string(),
            unit: limits.map(|(_, unit)| unit).filter(|unit| !unit.is_empty()),
            warning: limits.and_then(|(limits, _)| limits.warning),
            critical: limits.and_then(|(limits, _)| limits.critical),
            worse: limits.map(|(limits, _)| limits.worse.word()),
            recover: limits.map(|(limits, _)| limits.recover),
            for_secs: definition.hold.as_secs_f64(),
            interval_secs: definition.interval.as_secs_f64(),
            runbook: definition.runbook.as_deref(),
        }
    }
}
