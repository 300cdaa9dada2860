//! Text that people write for a time and that PostgreSQL's `recovery_target_time` does not take: never a restore point's name.

use jiff::Timestamp;

/// Words that stand for a time alone.
const ALONE: [&str; 12] = [
    "now",
    "today",
    "yesterday",
    "tomorrow",
    "midnight",
    "noon",
    "epoch",
    "infinity",
    "-infinity",
    "allballs",
    "ago",
    "current_timestamp",
];

/// Words that make a time of the words around them, in full or as their first letters.
const AMONG: [&str; 36] = [
    "ago",
    "last",
    "past",
    "since",
    "am",
    "pm",
    "utc",
    "gmt",
    "second",
    "seconds",
    "sec",
    "secs",
    "minute",
    "minutes",
    "min",
    "mins",
    "hour",
    "hours",
    "hr",
    "hrs",
    "day",
    "days",
    "week",
    "weeks",
    "month",
    "months",
    "year",
    "years",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "o'clock",
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Units of a duration such as `90m`.
const UNITS: [&str; 25] = [
    "", "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes", "h",
    "hr", "hrs", "hour", "hours", "d", "day", "days", "w", "week", "weeks", "ms", "month",
    "months",
];

/// Whether a person who writes `text` means a time.
pub(crate) fn is_time_like(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    if ALONE.contains(&text.as_str()) || has_clock(&text) || is_compact(&text) {
        return true;
    }
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return false;
    }
    if let [word] = words.as_slice() {
        return is_amount(word) || is_date(word) || is_iso_duration(word);
    }
    let is_month = |word: &str| {
        let letters = word.get(..3).is_some_and(|begin| MONTHS.contains(&begin));
        letters && word.len() <= 9 && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let among = |word: &&str| AMONG.contains(word) || ALONE.contains(word);
    words.iter().any(among)
        || digits && words.iter().any(|word| is_month(word))
        || words.iter().all(|word| is_amount(word) || is_date(word))
        || is_date(words[0])
}

/// `10:42`, anywhere.
fn has_clock(text: &str) -> bool {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let windows = text.as_bytes().windows(4);
    let clock =
        |window: &[u8]| digit(&window[0]) && window[1] == b':' && window[2..].iter().all(digit);
    windows.into_iter().any(clock)
}

/// `20261121T104200Z`, `20261121`.
fn is_compact(text: &str) -> bool {
    let begin = text.len().min(8);
    let is_date = begin == 8 && text.as_bytes()[..8].iter().all(u8::is_ascii_digit);
    is_date && matches!(text.as_bytes().get(8), None | Some(b't' | b' ' | b'z'))
}

/// `-1h`, `90`, `1795713562.5`, `@1795713562`, `10min`.
fn is_amount(word: &str) -> bool {
    let unsigned = word.trim_start_matches(['-', '+', '@', '~']);
    let number = unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    number.len() < unsigned.len() && UNITS.contains(&number)
}

/// `21.11.2026`, `11/21/2026`, `2026/11/21`, `2026-11-21`, `21-nov-2026`.
fn is_date(word: &str) -> bool {
    ['.', '/', '-'].into_iter().any(|separator| {
        let parts: Vec<&str> = word.trim_end_matches('.').split(separator).collect();
        let number =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let month = |part: &str| number(part) || MONTHS.contains(&part);
        matches!(parts.as_slice(), [first, second, third]
            if number(first) && month(second) && number(third)
                && [first, second, third].iter().any(|part| part.len() == 4 || part.len() == 2))
    })
}

/// `PT1H30M`, `-P1D`.
fn is_iso_duration(word: &str) -> bool {
    let Some(rest) = word.trim_start_matches(['-', '+']).strip_prefix('p') else {
        return false;
    };
    let rest: Vec<char> = rest.chars().collect();
    rest.iter().any(char::is_ascii_digit)
        && rest.last().is_some_and(char::is_ascii_alphabetic)
        && rest
            .iter()
            .all(|c| c.is_ascii_digit() || "ymwdths.".contains(*c))
}

/// How the moment that `text` means is written; a command where only `date` knows.
pub(crate) fn written(text: &str) -> String {
    let text = text.trim();
    let seconds = text.trim_start_matches('@');
    let is_epoch = seconds.len() >= 9 && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let at = is_epoch.then(|| seconds.parse().ok()).flatten();
    let at = at.and_then(|seconds: i64| match seconds.to_string().len() {
        12..=14 => Timestamp::from_millisecond(seconds).ok(),
        _ => Timestamp::from_second(seconds).ok(),
    });
    if let Some(at) = at {
        return format!("write the seconds as a time: '{}'", at.strftime("%F %TZ"));
    }
    let text = text.replace('\'', "");
    format!(
        "write date, time and zone: '2026-11-21 10:42:00+01' or 2026-11-21T09:42:00Z; \
         --until \"$(date -u -d '{text}' '+%F %TZ')\" where `date` understands it. A restore point of that name is name:{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_for_a_time_is_no_name() {
        for text in [
            "10 minutes ago",
            "an hour ago",
            "yesterday",
            "Yesterday",
            "now",
            "-1h",
            "+30min",
            "90m",
            "1 hour",
            "1795713562",
            "@1795713562",
            "1795713562.25",
            "Fri Nov 27 10:42:00 UTC 2026",
            "Fri, 27 Nov 2026 10:42:00 +0100",
            "Fr 27. Nov 10:42:00 CET 2026",
            "27 Nov 2026",
            "Nov 27 2026",
            "last friday",
            "10:42",
            "T10:42Z",
            "20261121T104200Z",
            "20261121",
            "11/21/2026",
            "2026/11/21",
            "21.11.2026",
            "21-nov-2026",
            "PT1H",
            "-P1D",
            "10 am",
        ] {
            assert!(is_time_like(text), "{text}");
        }
        for name in [
            "before_the_upgrade",
            "2026-11-21-before",
            "v1/2",
            "it's",
            "before 17.12",
            "after_1",
            "release-2026.11",
            "nowhere",
            "daily",
            "may",
            "pre-release",
            "v1.2.3",
            "port",
            "p1",
        ] {
            assert!(!is_time_like(name), "{name}");
        }
    }

    #[test]
    fn the_hint_writes_epoch_seconds_out_and_leaves_the_rest_to_date() {
        assert_eq!(
            written("1795713562"),
            "write the seconds as a time: '2026-11-26 17:19:22Z'"
        );
        assert!(written("@1795713562").contains("2026-11-26"));
        assert!(written("10 minutes ago").contains("date -u -d '10 minutes ago'"));
    }
}
