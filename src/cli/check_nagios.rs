//! `xdb check --nagios`: one line and an exit code as the Nagios plugin guidelines want them.

use std::fmt::Write as _;

use super::check_output::rounded;
use super::exit::Exit;
use super::output::say;
use crate::checks::{Definition, Worse};
use crate::model::{Finding, Verdict};

/// The codes of a plugin: their numbers count here, not their names.
const OK: Exit = Exit::Good;
const WARNING: Exit = Exit::Bad;
const CRITICAL: Exit = Exit::Usage;
const UNKNOWN: Exit = Exit::Refused;

/// Prints that the plugin itself could not look.
pub(super) fn unknown(reason: &str) -> anyhow::Result<Exit> {
    say(format_args!("XDB UNKNOWN - {}", one_line(reason)))?;
    Ok(UNKNOWN)
}

/// Prints the worst first. `wrong` are files of checks that cannot be read.
pub(super) fn print(
    made: &[&Definition],
    findings: &[Finding],
    left_out: &[String],
    wrong: &[String],
) -> anyhow::Result<Exit> {
    let (line, exit) = output(made, findings, left_out, wrong);
    say(line)?;
    Ok(exit)
}

fn output(
    made: &[&Definition],
    findings: &[Finding],
    left_out: &[String],
    wrong: &[String],
) -> (String, Exit) {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Ok => 0,
        Verdict::Unknown(_) => 1,
        Verdict::Warning(_) => 2,
        Verdict::Critical(_) => 3,
    };
    let mut bad: Vec<&Finding> = findings
        .iter()
        .filter(|it| it.verdict != Verdict::Ok)
        .collect();
    bad.sort_by_key(|finding| std::cmp::Reverse(rank(&finding.verdict)));
    let worst = bad.first().map_or(0, |finding| rank(&finding.verdict));
    let worst = if wrong.is_empty() {
        worst
    } else {
        worst.max(1)
    };
    let (word, exit) = match worst {
        0 => ("OK", OK),
        1 => ("UNKNOWN", UNKNOWN),
        2 => ("WARNING", WARNING),
        _ => ("CRITICAL", CRITICAL),
    };
    // A server that is down is one reason for many checks.
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for finding in bad {
        let reason = finding.verdict.reason().unwrap_or_default();
        let name = name(finding, " ");
        match reasons.iter_mut().find(|(same, _)| *same == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let told = reasons
        .iter()
        .map(|(reason, names)| format!("{} {reason}", names.join(", ")));
    let told: Vec<String> = told.chain(wrong.iter().cloned()).collect();
    let told = match told.as_slice() {
        [] if findings.is_empty() => left_out.join("; "),
        [] => match made {
            [one] => format!("{} is ok", one.name),
            made => format!("{} checks are ok", made.len()),
        },
        told => told.join("; "),
    };
    let mut line = format!("XDB {word} - {}", one_line(&told));
    let data: Vec<String> = findings
        .iter()
        .filter_map(|it| performance(made, it))
        .collect();
    if !data.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(line, " | {}", data.join(" "));
    }
    (line, exit)
}

fn name(finding: &Finding, separator: &str) -> String {
    match finding.object.is_empty() {
        true => finding.check.clone(),
        false => format!("{}{separator}{}", finding.check, finding.object),
    }
}

/// As `'replication-slot-wal db2'=3.5%;50;80`; `None` without a value.
fn performance(made: &[&Definition], finding: &Finding) -> Option<String> {
    let value = finding.value.filter(|value| value.is_finite())?;
    let definition = made.iter().find(|one| one.name == finding.check)?;
    let (limits, unit) = definition.kind.limits()?;
    let unit = match unit {
        "s" | "B" | "%" => unit,
        _ => "",
    };
    // `10:` alerts below 10; `10` alerts above it.
    let limit = |limit: Option<f64>| match (limit, limits.worse) {
        (None, _) => String::new(),
        (Some(limit), Worse::Above) => limit.to_string(),
        (Some(limit), Worse::Below) => format!("{limit}:"),
    };
    let label: String = one_line(&name(finding, " "))
        .chars()
        .map(|one| if matches!(one, '\'' | '=') { '_' } else { one })
        .collect();
    let (warning, critical) = (limit(limits.warning), limit(limits.critical));
    Some(format!(
        "'{label}'={}{unit};{warning};{critical}",
        rounded(value)
    ))
}

/// A bar begins the performance data, and a line's end the rest.
fn one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace('|', "/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks;
    use crate::model::Scope;

    #[test]
    fn the_worst_comes_first_and_the_numbers_with_their_limits_last() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let text = format!("title = 't'\nkind = 'sql'\nquery = 'x'\n{text}");
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("used.toml", "unit = '%'\nwarning = 80\ncritical = 95");
        write(
            "left.toml",
            "unit = 'clients'\ncritical = 5\nworse = 'below'",
        );
        let loaded = checks::load(directory.path());
        let made: Vec<_> = loaded.definitions.iter().collect();
        let finding = |check: &str, object: &str, verdict, value| Finding {
            value,
            ..Finding::new(check, Scope::Cluster, object, verdict)
        };
        let ok = [
            finding("used", "a'b", Verdict::Ok, Some(12.5)),
            finding("left", "", Verdict::Ok, Some(9.0)),
            finding("archiver", "", Verdict::Ok, None),
        ];
        let (line, exit) = output(&made, &ok, &[], &[]);
        assert!(
            line.ends_with(" checks are ok | 'used a_b'=12.5%;80;95 'left'=9;;5:"),
            "{line}"
        );
        assert!(line.starts_with("XDB OK - "));
        assert_eq!(exit as u8, 0);

        let verdict = |verdict: fn(String) -> Verdict, reason: &str| verdict(reason.to_owned());
        let bad = [
            finding("used", "", verdict(Verdict::Unknown, "a|b\nc"), None),
            finding("left", "x", verdict(Verdict::Warning, "few"), None),
        ];
        let (line, exit) = output(&made, &bad, &[], &[]);
        assert_eq!(line, "XDB WARNING - left x few; used a/b c");
        assert_eq!(exit as u8, 1);
        let (line, exit) = output(&made, &bad[..1], &[], &[]);
        assert_eq!((line.as_str(), exit as u8), ("XDB UNKNOWN - used a/b c", 3));
        let critical = [finding(
            "left",
            "",
            verdict(Verdict::Critical, "none"),
            Some(0.0),
        )];
        let (line, exit) = output(&made, &critical, &[], &[]);
        assert_eq!(line, "XDB CRITICAL - left none | 'left'=0;;5:");
        assert_eq!(exit as u8, 2);

        // A broken file is no well-being.
        let (line, exit) = output(&made, &ok[2..], &[], &["x.toml:1: wrong".to_owned()]);
        assert_eq!(
            (line.as_str(), exit as u8),
            ("XDB UNKNOWN - x.toml:1: wrong", 3)
        );
        let elsewhere = ["lag runs on the replica only".to_owned()];
        let (line, exit) = output(&made, &[], &elsewhere, &[]);
        assert_eq!(
            (line.as_str(), exit as u8),
            ("XDB OK - lag runs on the replica only", 0)
        );
    }
}
