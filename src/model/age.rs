//! How long ago something was.

use std::time::Duration;

use jiff::Timestamp;

/// Zero for what another node's clock puts into the future.
pub fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

/// As "8 s ago", "3 min ago", "5 h ago" or "2 days ago": one number is enough to judge an age by.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let secs = age(at, now).as_secs();
    match secs {
        0..120 => format!("{secs} s ago"),
        120..7200 => format!("{} min ago", secs / 60),
        7200..172_800 => format!("{} h ago", secs / 3600),
        _ => format!("{} days ago", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (secs, expected) in [
            (-5, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7199, "119 min ago"),
            (7200, "2 h ago"),
            (172_800, "2 days ago"),
        ] {
            let at = Timestamp::from_second(1_000_000 - secs).unwrap();
            assert_eq!(ago(at, now), expected);
        }
    }
}
