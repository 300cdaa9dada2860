//! Where a recovery is to stop: a moment, a position in the WAL or a restore point. Pure.

use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, civil::DateTime};

use crate::model::Lsn;

/// What `--until` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// All that was committed up to then, that moment included.
    Time(Timestamp),
    /// All that was written before it.
    Lsn(Lsn),
    /// Up to the restore point that `pg_create_restore_point` wrote.
    Name(String),
}

/// Why it is none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UntilError {
    #[error("--until: {0} has no time zone")]
    NoZone(String),
    #[error("--until: {0} is no time")]
    NoTime(String),
    #[error("--until: {0} has a second 60")]
    LeapSecond(String),
    #[error("--until: {0} is no LSN")]
    NoLsn(String),
    #[error("--until: {0:?} is no name of a restore point")]
    NoName(String),
}

impl UntilError {
    /// What to write instead.
    pub fn hint(&self) -> String {
        match self {
            Self::NoZone(text) => {
                format!("write '{text}Z' where that is UTC, else the offset: '{text}+01:00'")
            }
            Self::NoTime(_) => {
                "write date, time and zone: '2026-11-21 10:42:00+01', 2026-11-21T09:42:00Z".to_owned()
            }
            Self::LeapSecond(_) => {
                "PostgreSQL has no leap seconds: write 59.999999, or the next minute".to_owned()
            }
            Self::NoLsn(_) => "write it as PostgreSQL does: 0/3000028".to_owned(),
            Self::NoName(_) => {
                "write a time with its zone, an LSN, or the name that pg_create_restore_point was given, of at most 63 bytes"
                    .to_owned()
            }
        }
    }
}

/// `NAMEDATALEN` and its kin: PostgreSQL refuses longer names of restore points.
const LONGEST_NAME: usize = 63;

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Self, UntilError> {
        let text = text.trim();
        if is_like_lsn(text) {
            let lsn = text.parse();
            return lsn
                .map(Self::Lsn)
                .map_err(|_| UntilError::NoLsn(text.to_owned()));
        }
        if is_like_time(text) {
            return time(text).map(Self::Time);
        }
        if text.is_empty() || text.len() > LONGEST_NAME || text.contains(char::is_control) {
            return Err(UntilError::NoName(text.to_owned()));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

fn is_like_lsn(text: &str) -> bool {
    let high = text.split_once('/').map(|(high, _)| high);
    high.is_some_and(|high| !high.is_empty() && high.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A restore point may be named after a day: `2026-11-21-before-the-upgrade` is no time.
fn is_like_time(text: &str) -> bool {
    let digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let dash = |at: usize| text.as_bytes().get(at) == Some(&b'-');
    let is_date = [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(digit) && dash(4) && dash(7);
    let after_date = text.as_bytes().get(10);
    is_date && matches!(after_date, None | Some(b' ' | b'T' | b't'))
        || digit(0) && text.contains(':')
}

fn time(text: &str) -> Result<Timestamp, UntilError> {
    // xdb itself prints times so.
    let utc = text.strip_suffix(" UTC").map(|civil| format!("{civil}Z"));
    if let Ok(at) = utc.as_deref().unwrap_or(text).parse() {
        // Read as 59: what was committed in the second before the given one would be lost.
        if has_second_60(text) {
            return Err(UntilError::LeapSecond(text.to_owned()));
        }
        return Ok(at);
    }
    Err(match text.parse::<DateTime>() {
        Ok(_) => UntilError::NoZone(text.to_owned()),
        Err(_) => UntilError::NoTime(text.to_owned()),
    })
}

/// Whether the time of day in `text`, with or without colons, ends in a second 60.
fn has_second_60(text: &str) -> bool {
    // After the date and its separator; what follows the seconds is a fraction or the zone.
    let digits = text.bytes().skip(11).filter(|byte| *byte != b':');
    let time: Vec<u8> = digits.take_while(u8::is_ascii_digit).collect();
    time.get(4..6) == Some(b"60")
}

impl Until {
    /// PostgreSQL's settings for it; the values are not quoted.
    ///
    /// A commit at the very moment counts. A record at the very LSN does not: what `pg_current_wal_lsn()` gave holds all
    /// that was done before, and what `pg_waldump` shows of an unwanted commit holds all but that.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        let (name, value, inclusive) = match self {
            Self::Time(at) => (
                "recovery_target_time",
                at.strftime("%F %T%.6f+00").to_string(),
                "on",
            ),
            Self::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string(), "off"),
            Self::Name(name) => ("recovery_target_name", name.clone(), "on"),
        };
        [
            (name, value),
            ("recovery_target_inclusive", inclusive.to_owned()),
        ]
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(at) => write!(f, "{}", at.strftime("%F %T%.f UTC")),
            Self::Lsn(lsn) => lsn.fmt(f),
            Self::Name(name) => write!(f, "the restore point {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_understood_as_people_and_postgresql_write_it() {
        let expected = Until::Time("2026-11-21T09:42:00Z".parse().unwrap());
        for text in [
            "2026-11-21T09:42:00Z",
            "2026-11-21T10:42:00+01:00",
            "2026-11-21 10:42:00+01",
            "2026-11-21 10:42:00.000000+01",
            "2026-11-21 10:42+01",
            "2026-11-21 09:42:00 UTC",
            " 2026-11-21 09:42:00Z ",
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        }
        assert_eq!(expected.to_string(), "2026-11-21 09:42:00 UTC");
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_what_to_write() {
        for text in ["2026-11-21 10:42:00", "2026-11-21T10:42", "2026-11-21"] {
            let error = text.parse::<Until>().unwrap_err();
            assert_eq!(error, UntilError::NoZone(text.to_owned()));
            assert!(error.hint().contains(&format!("'{text}+01:00'")));
        }
        for text in ["10:42", "2026-11-21 25:00:00Z", "2026-11-21 10:42 Berlin"] {
            assert_eq!(
                text.parse::<Until>(),
                Err(UntilError::NoTime(text.to_owned()))
            );
        }
    }

    #[test]
    fn a_second_60_is_refused_however_it_is_written() {
        for text in [
            "2026-11-21T09:42:60Z",
            "2026-11-21 09:42:60.5+00",
            "2026-11-21 10:42:60+01:00",
            "2026-11-21 09:42:60 UTC",
            "2026-11-21T094260Z",
            "2026-12-31T23:59:60Z",
        ] {
            assert!(text.parse::<Until>().is_err(), "{text}");
        }
        let error = "2026-11-21T09:42:60Z".parse::<Until>().unwrap_err();
        assert!(matches!(error, UntilError::LeapSecond(_)), "{error:?}");
        assert!(error.hint().contains("59.999999"));
        for text in [
            "2026-11-21T09:42:59.60Z",
            "2026-11-21 09:42:06+00",
            "2026-11-21T00:60:00Z",
        ] {
            let read = text.parse::<Until>();
            assert!(
                !matches!(read, Err(UntilError::LeapSecond(_))),
                "{text}: {read:?}"
            );
        }
    }

    #[test]
    fn an_lsn_and_a_name_are_told_from_a_time() {
        assert_eq!("0/3000028".parse(), Ok(Until::Lsn(Lsn(0x300_0028))));
        for text in ["0/", "0/xyz", "ABC/DEF/1"] {
            assert_eq!(
                text.parse::<Until>(),
                Err(UntilError::NoLsn(text.to_owned()))
            );
        }
        for name in ["before_the_upgrade", "2026-11-21-before", "v1/2", "it's"] {
            assert_eq!(name.parse(), Ok(Until::Name(name.to_owned())));
        }
        let long = "x".repeat(64);
        for name in ["", "a\nb", long.as_str()] {
            assert!(
                matches!(name.parse::<Until>(), Err(UntilError::NoName(_))),
                "{name:?}"
            );
        }
    }

    #[test]
    fn postgresql_is_told_the_moment_to_the_microsecond_and_in_utc() {
        let settings = |text: &str| text.parse::<Until>().unwrap().settings();
        assert_eq!(
            settings("2026-11-21 10:42:00.1234567+01"),
            [
                (
                    "recovery_target_time",
                    "2026-11-21 09:42:00.123456+00".to_owned()
                ),
                ("recovery_target_inclusive", "on".to_owned())
            ]
        );
        assert_eq!(
            settings("0/3000028"),
            [
                ("recovery_target_lsn", "0/3000028".to_owned()),
                ("recovery_target_inclusive", "off".to_owned())
            ]
        );
    }
}
