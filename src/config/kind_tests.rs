//! The values of each kind of setting, good and wrong.

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

const ONE: &str = "age17avhl6fpa23dsf55qtnt7rds7vu367nd7kdt7n92k2r2am5fey4s7sjzdt";
const OTHER: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

/// What was parsed, as text.
fn shown(kind: ValueKind, text: &str) -> Option<String> {
    Some(match kind.parse(text)? {
        SettingValue::Text(text) => text,
        SettingValue::Path(path) => path.display().to_string(),
        SettingValue::Port(port) => port.to_string(),
        SettingValue::Count(count) => count.to_string(),
        SettingValue::Duration(duration) => format!("{duration:?}"),
        SettingValue::Switch(switch) => switch.to_string(),
        SettingValue::Secret(secret) => secret.expose_secret().to_owned(),
        SettingValue::AgeRecipients(all) => format!("{all:?}"),
        SettingValue::Endpoint(Endpoint::Url(url)) => url.expose_secret().to_owned(),
        SettingValue::Endpoint(Endpoint::File(path)) => path.display().to_string(),
    })
}

#[test]
fn what_a_kind_takes_is_kept() {
    let choices = ValueKind::Choice(&["lz4", "none"]);
    for (kind, text, value) in [
        (ValueKind::Text, "a b", "a b"),
        (ValueKind::Name, "main-2", "main-2"),
        (ValueKind::Name, "123456789012", "123456789012"),
        (ValueKind::Path, "/a b/", "/a b/"),
        (ValueKind::Endpoint, "/etc/xdb/x.url", "/etc/xdb/x.url"),
        (
            ValueKind::Endpoint,
            "https://hc-ping.example/a?b=1",
            "https://hc-ping.example/a?b=1",
        ),
        (ValueKind::Port, "1", "1"),
        (ValueKind::Port, "65535", "65535"),
        (ValueKind::Count, "0", "0"),
        (ValueKind::Duration, "90s", "90s"),
        (ValueKind::Duration, "5m", "300s"),
        (ValueKind::DurationOrZero, "0s", "0ns"),
        (ValueKind::DurationOrZero, "2m", "120s"),
        (ValueKind::Duration, "1h 30m", "5400s"),
        (ValueKind::Duration, "2 hours", "7200s"),
        (ValueKind::Switch, "true", "true"),
        (ValueKind::Switch, "False", "false"),
        (ValueKind::Switch, "1", "true"),
        (choices, "none", "none"),
        (ValueKind::Secret, " p#$ ", " p#$ "),
        (
            ValueKind::Url,
            "http://10.0.0.1:9000",
            "http://10.0.0.1:9000",
        ),
        (
            ValueKind::Url,
            "https://[::1]:9000/s3",
            "https://[::1]:9000/s3",
        ),
        (
            ValueKind::RedisUrl,
            "redis://management",
            "redis://management",
        ),
        (
            ValueKind::RedisUrl,
            "redis://10.0.2.20:6379/1",
            "redis://10.0.2.20:6379/1",
        ),
        (
            ValueKind::RedisUrl,
            "redis://[::1]:6379",
            "redis://[::1]:6379",
        ),
        (ValueKind::RedisUrl, "redis://[::1]", "redis://[::1]"),
        (
            ValueKind::RedisUrl,
            "rediss://a:6380/2",
            "rediss://a:6380/2",
        ),
        (
            ValueKind::AgeRecipients,
            &format!("{ONE}, {OTHER}"),
            &format!("[{ONE}, {OTHER}]"),
        ),
        (ValueKind::AgeRecipients, ONE, &format!("[{ONE}]")),
    ] {
        assert_eq!(
            shown(kind, text).as_deref(),
            Some(value),
            "{kind:?} {text:?}"
        );
    }
}

#[test]
fn what_a_kind_does_not_take_is_refused() {
    for (kind, texts) in [
        (ValueKind::Text, &["", " a", "a\t", "a\nb", "a\0"][..]),
        (
            ValueKind::Name,
            &["", "Main", "a_b", "a/b", "-a", "a-", "é"],
        ),
        (ValueKind::Path, &["", "a", "./a", "~/a", "/a\n"]),
        (
            ValueKind::Port,
            &["", "0", "65536", "+1", "-1", "1 ", "0x10", "99999999999"],
        ),
        (ValueKind::Count, &["", "-1", "1.5", "4294967296"]),
        (
            ValueKind::Duration,
            &["", "5", "0s", "-5m", "5 moons", "1d", "1mo"],
        ),
        (ValueKind::Switch, &["", "yes", "on", "2"]),
        (ValueKind::Choice(&["lz4"]), &["", "LZ4", "lz"]),
        (ValueKind::Secret, &["", "a\r"]),
        (
            ValueKind::Url,
            &[
                "",
                "s3.example.com",
                "ftp://a",
                "http://",
                "http:///a",
                "https://u:p@a",
                "http://a b",
            ],
        ),
        (
            ValueKind::AgeRecipients,
            &[
                "",
                "age1abc",
                &ONE[1..],
                &format!("{ONE},"),
                &format!("{ONE} {OTHER}"),
                &ONE.replace('7', "8"),
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN",
            ],
        ),
        (
            ValueKind::RedisUrl,
            &[
                "",
                "management:6379",
                "http://management",
                "redis://",
                "redis:///0",
                "redis://a:0",
                "rediss://",
                "redisss://a",
                "redis://a:b",
                "redis://a/",
                "redis://a/x",
                "redis://:p@a",
                "redis://a?x=1",
                "redis://::1",
            ],
        ),
    ] {
        for text in texts {
            assert_eq!(shown(kind, text), None, "{kind:?} {text:?}");
        }
    }
}

#[test]
fn a_repository_is_a_bucket_and_a_prefix_that_is_not_xdbs_own() {
    for good in [
        "s3://b/p",
        "s3://walg-{account}/{cluster}/pg{major}",
        "s3://b/p/q/",
        "s3://b/xdb2",
    ] {
        assert!(is_repository(good), "{good}");
    }
    for bad in [
        "",
        "b/p",
        "s3://",
        "s3://b",
        "s3://b/",
        "s3:///p",
        "s3://b//p",
        "s3://b/p//",
        "s3://B/p",
        "s3://b/{host}",
        "s3://b/{major",
        "s3://b/p q",
        "s3://b/../p",
        "s3://b/xdb",
        "s3://b/xdb/main",
        "https://b/p",
    ] {
        assert!(!is_repository(bad), "{bad}");
    }
}

#[test]
fn a_schedule_comes_at_some_time() {
    for (text, good) in [
        ("0 1 * * *", true),
        ("5m", true),
        ("0 0 29 2 *", true),
        ("0 0 30 2 *", false),
        ("0 0 31 4,6,9,11 *", false),
        ("whenever", false),
    ] {
        assert_eq!(ValueKind::Schedule.parse(text).is_some(), good, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_kind_panic(text in any::<String>()) {
        let choices = ValueKind::Choice(&["lz4"]);
        for kind in [
            ValueKind::Text, ValueKind::Name, ValueKind::Path, ValueKind::Port, ValueKind::Count, ValueKind::Duration,
            ValueKind::Switch, choices, ValueKind::Secret, ValueKind::Url, ValueKind::RedisUrl, ValueKind::Repository,
            ValueKind::Listen, ValueKind::Schedule,
        ] {
            kind.parse(&text);
        }
    }
}
