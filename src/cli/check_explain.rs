//! `xdb check NAME --explain`: what the check asks, what it is answered, and how that is judged.

use serde::Serialize;

use super::check_output::{self, Listed};
use super::output::{say, table};
use crate::checks::{Asked, Definition, Kind};
use crate::model::Finding;

/// Rows of one answer that are shown.
const SHOWN: usize = 50;

#[derive(Serialize)]
struct Explained<'a> {
    check: Option<Listed<'a>>,
    asked: Vec<Question<'a>>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct Question<'a> {
    of: &'a str,
    question: &'a str,
    columns: &'a [String],
    rows: &'a [Vec<Option<String>>],
    error: Option<&'a str>,
}

impl<'a> From<&'a Asked> for Question<'a> {
    fn from(asked: &'a Asked) -> Self {
        let answer = asked.answer.as_ref().ok();
        Self {
            of: &asked.of,
            question: &asked.question,
            columns: answer.map_or(&[], |answer| &answer.columns),
            rows: answer.map_or(&[], |answer| &answer.rows),
            error: asked.answer.as_ref().err().map(String::as_str),
        }
    }
}

pub(super) fn print(
    definition: Option<&Definition>,
    asked: &[Asked],
    findings: &[Finding],
    json: bool,
) -> anyhow::Result<()> {
    if json {
        let explained = Explained {
            check: definition.map(Listed::from),
            asked: asked.iter().map(Question::from).collect(),
            findings,
        };
        return Ok(say(serde_json::to_string_pretty(&explained)?)?);
    }
    if let Some(definition) = definition {
        let (warning, critical) = definition.thresholds();
        say(format_args!("{}: {}", definition.name, definition.title))?;
        say(format_args!(
            "kind {}, role {}, warning {warning}, critical {critical}, for {}, every {}, from {}",
            definition.kind.word(),
            definition.role,
            definition.held(),
            definition.every(),
            definition.origin()
        ))?;
        if let Some(runbook) = &definition.runbook {
            say(format_args!(
                "runbook {runbook} (xdb runbook {})",
                definition.name
            ))?;
        }
        let is_asked = matches!(definition.kind, Kind::Sql(_) | Kind::PgBouncer(_));
        if asked.is_empty() && !is_asked {
            say("\nxdb measures this itself: there is no query.")?;
        }
    }
    for asked in asked {
        say(format_args!("\n{}:\n{}", asked.of, asked.question.trim()))?;
        match &asked.answer {
            Err(reason) => say(format_args!("\nno answer: {reason}"))?,
            Ok(answer) if answer.rows.is_empty() => say("\n(no rows)")?,
            Ok(answer) => {
                let header: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
                let rows = answer.rows.iter().take(SHOWN).map(|row| {
                    let cell = |cell: &Option<String>| cell.clone().unwrap_or("NULL".to_owned());
                    row.iter().map(cell).collect()
                });
                say(format_args!("\n{}", table(&header, &[], rows).trim_fmt()))?;
                if let Some(more) = answer
                    .rows
                    .len()
                    .checked_sub(SHOWN)
                    .filter(|more| *more > 0)
                {
                    say(format_args!("… and {more} more rows"))?;
                }
            }
        }
    }
    say("")?;
    Ok(check_output::print_with_values(findings)?)
}
