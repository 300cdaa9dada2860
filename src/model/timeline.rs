//! Timelines and their history files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Lsn, ParseError};

/// A PostgreSQL timeline ID, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The name of this timeline's history file in the archive.
    pub fn history_file(self) -> String {
        format!("{:08X}.history", self.0)
    }

    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// WAL up to `at` belongs to `timeline`, what follows to a descendant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineSwitch {
    pub timeline: Timeline,
    pub at: Lsn,
}

/// The ancestors of a timeline, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimelineHistory(pub Vec<TimelineSwitch>);

impl TimelineHistory {
    /// Where `timeline` ended on the way to this one; `None` when it is no ancestor.
    pub fn switched_from(&self, timeline: Timeline) -> Option<Lsn> {
        self.0
            .iter()
            .find(|switch| switch.timeline == timeline)
            .map(|switch| switch.at)
    }

    /// The timeline that this one left last.
    pub fn parent(&self) -> Option<TimelineSwitch> {
        self.0.last().copied()
    }
}

impl FromStr for TimelineHistory {
    type Err = ParseError;

    /// Reads a `.history` file: a line an ancestor, `timeline <tab> switch LSN <tab> reason`
    /// (PostgreSQL's `timeline.c`, `readTimeLineHistory`).
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut switches: Vec<TimelineSwitch> = Vec::new();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            let bad = || ParseError::new(line, "a line of a timeline history file");
            let mut fields = line.split_whitespace();
            let timeline = fields.next().and_then(|id| id.parse().ok()).map(Timeline);
            let at = fields.next().and_then(|lsn| lsn.parse().ok());
            let (Some(timeline), Some(at)) = (timeline, at) else {
                return Err(bad());
            };
            if switches
                .last()
                .is_some_and(|before| before.timeline >= timeline)
            {
                return Err(bad());
            }
            switches.push(TimelineSwitch { timeline, at });
        }
        Ok(Self(switches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_tells_the_ancestors_and_where_each_ended() {
        let history: TimelineHistory =
            "1\t0/70000A0\tno recovery target specified\n\n# a comment\n2\t0/9000000\tbefore 2026\n"
                .parse()
                .unwrap();
        assert_eq!(history.switched_from(Timeline(1)), Some(Lsn(0x0700_00A0)));
        assert_eq!(history.switched_from(Timeline(3)), None);
        assert_eq!(history.parent().map(|p| p.timeline), Some(Timeline(2)));
    }

    #[test]
    fn a_broken_history_file_is_refused() {
        for text in ["x\t0/1\n", "1\n", "2\t0/1\tr\n1\t0/2\tr\n"] {
            assert!(text.parse::<TimelineHistory>().is_err(), "{text:?}");
        }
    }
}
