//! `xdb check list`: every check with its origin, role and thresholds.

use super::check_output::Listed;
use super::output::{say, table};
use crate::checks::Definition;

pub(super) fn print(definitions: &[Definition], json: bool) -> anyhow::Result<()> {
    if json {
        let listed: Vec<Listed> = definitions.iter().map(Listed::from).collect();
        return Ok(say(serde_json::to_string_pretty(&listed)?)?);
    }
    let rows = definitions.iter().map(|definition| {
        let (warning, critical) = definition.thresholds();
        vec![
            definition.name.clone(),
            definition.role.to_string(),
            warning,
            critical,
            definition.held(),
            definition.origin(),
            definition.title.clone(),
        ]
    });
    let header = [
        "CHECK", "ROLE", "WARNING", "CRITICAL", "FOR", "ORIGIN", "TITLE",
    ];
    Ok(say(table(&header, &[], rows).trim_fmt())?)
}
