//! Where a recovery is to stop: a moment, a position in the WAL or a restore point. Pure.

use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, civil::DateTime};

use super::time_like::{is_time_like, written};
use crate::model::Lsn;

/// What `--until` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Until {
    /// All that was committed up to then, that moment included.
    Time(Timestamp),
    /// All that was written before it.
    Lsn(Lsn),
    /// Up to the restore point that `pg_create_restore_point` wrote.
    Name(String),
}

/// Whether `text` says that it names a restore point, or means a time or an LSN.
pub(crate) fn is_explicit(text: &str, until: &Until) -> bool {
    !matches!(until, Until::Name(_)) || text.trim().starts_with(NAME)
}

/// Why a text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UntilError {
    #[error("--until: {0} has no time zone")]
    NoZone(String),
    #[error("--until: {0} is no time")]
    NoTime(String),
    #[error("--until: {0} has a second 60")]
    LeapSecond(String),
    #[error("--until: {0:?} is a time that xdb does not read")]
    TimeLike(String),
    #[error("--until: {0} is no LSN")]
    NoLsn(String),
    #[error("--until: {0:?} is no name of a restore point")]
    NoName(String),
}

impl UntilError {
    /// How to write it.
    pub(crate) fn hint(&self) -> String {
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
            Self::TimeLike(text) => written(text),
            Self::NoLsn(_) => "write it as PostgreSQL does: 0/3000028".to_owned(),
            Self::NoName(_) => {
                "write a time with its zone, an LSN, or name: and the name that pg_create_restore_point was given, of at most 63 bytes"
                    .to_owned()
            }
        }
    }
}

/// What precedes the name of a restore point, whatever that looks like.
const NAME: &str = "name:";

/// `NAMEDATALEN` and its kin: PostgreSQL refuses longer names of restore points.
const LONGEST_NAME: usize = 63;

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Self, UntilError> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix(NAME) {
            return restore_point(name);
        }
        if is_like_date(text) {
            return time(text).map(Self::Time);
        }
        if is_time_like(text) {
            // As mail and `date -R` write it; its zone is an offset.
            let mail = jiff::fmt::rfc2822::parse(text);
            return mail
                .map(|at| Self::Time(at.timestamp()))
                .ok()
                .filter(|_| !has_second_60(text))
                .ok_or(())
                .or_else(|_| time(text).map(Self::Time))
                .map_err(|error| match error {
                    UntilError::NoTime(text) => UntilError::TimeLike(text),
                    error => error,
                });
        }
        if is_like_lsn(text) {
            let lsn = text.parse();
            return lsn
                .map(Self::Lsn)
                .map_err(|_| UntilError::NoLsn(text.to_owned()));
        }
        restore_point(text)
    }
}

fn restore_point(name: &str) -> Result<Until, UntilError> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
        return Err(UntilError::NoName(name.to_owned()));
    }
    Ok(Until::Name(name.to_owned()))
}

fn is_like_lsn(text: &str) -> bool {
    let high = text.split_once('/').map(|(high, _)| high);
    high.is_some_and(|high| !high.is_empty() && high.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A restore point may be named after a day: `2026-11-21-before-the-upgrade` is no time.
fn is_like_date(text: &str) -> bool {
    let digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let dash = |at: usize| text.as_bytes().get(at) == Some(&b'-');
    let is_date = [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(digit) && dash(4) && dash(7);
    let after_date = text.as_bytes().get(10);
    is_date && matches!(after_date, None | Some(b' ' | b'T' | b't'))
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
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let windows = text.as_bytes().windows(6);
    let mut clocks =
        windows.filter(|part| part[0] == b':' && digits(&part[1..3]) && &part[3..] == b":60");
    // Without colons: after the date and its separator; what follows the seconds is a fraction or the zone.
    let after_date = text.get(8..).and_then(|rest| {
        rest.split_once(['T', 't', ' '])
            .map(|(_, time)| time.bytes())
    });
    let time: Vec<u8> = after_date
        .into_iter()
        .flatten()
        .take_while(u8::is_ascii_digit)
        .collect();
    clocks.next().is_some() || time.get(4..6) == Some(b"60")
}

/// PostgreSQL's settings for a target; the values are not quoted.
pub(crate) type TargetSettings = [(&'static str, String); 2];

/// Stops right behind the record that begins at `lsn`.
pub(crate) fn behind_record(lsn: Lsn) -> TargetSettings {
    [
        ("recovery_target_lsn", lsn.to_string()),
        ("recovery_target_inclusive", "on".to_owned()),
    ]
}

impl Until {
    /// PostgreSQL's settings for it; the values are not quoted.
    ///
    /// A commit at the very moment counts. A record at the very LSN does not: what `pg_current_wal_lsn()` gave holds all
    /// that was done before, and what `pg_waldump` shows of an unwanted commit holds all but that.
    pub(crate) fn settings(&self) -> TargetSettings {
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
        for text in [
            "2026-11-21 25:00:00Z",
            "2026-02-30 10:00:00Z",
            "2026-11-21 10:42 Berlin",
        ] {
            assert_eq!(
                text.parse::<Until>(),
                Err(UntilError::NoTime(text.to_owned()))
            );
        }
    }

    #[test]
    fn what_looks_like_a_time_is_one_or_is_refused() {
        for text in ["10:42", "10 minutes ago", "yesterday", "-1h", "1795713562"] {
            let refused = UntilError::TimeLike(text.to_owned());
            assert_eq!(text.parse::<Until>(), Err(refused), "{text}");
        }
        let expected = Until::Time("2026-11-21T09:42:00Z".parse().unwrap());
        for text in ["Sat, 21 Nov 2026 10:42:00 +0100", "20261121T094200Z"] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        }
        // A name that is said to be one is one.
        for name in ["yesterday", "10 minutes ago", "0/3000028"] {
            let until = Until::Name(name.to_owned());
            assert_eq!(format!("name:{name}").parse(), Ok(until));
        }
        assert!("name:".parse::<Until>().is_err());
    }

    #[test]
    fn a_second_60_is_refused_however_it_is_written() {
        for text in [
            "2026-11-21T09:42:60Z",
            "2026-11-21 09:42:60.5+00",
            "2026-11-21 10:42:60+01:00",
            "2026-11-21 09:42:60 UTC",
            "2026-11-21T094260Z",
            "20261121T094260Z",
            "Sat, 21 Nov 2026 10:42:60 +0100",
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
