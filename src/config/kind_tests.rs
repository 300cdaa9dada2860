//! The values of each kind of setting, good and wrong.

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

/// What was parsed, as text.
fn shown(kind: Kind, text: &str) -> Option<String> {
    Some(match kind.parse(text)? {
        Value::Text(text) => text,
        Value::Path(path) => path.display().to_string(),
        Value::Port(port) => port.to_string(),
        Value::Count(count) => count.to_string(),
        Value::Duration(duration) => format!("{duration:?}"),
        Value::Switch(switch) => switch.to_string(),
        Value::Secret(secret) => secret.expose_secret().to_owned(),
        Value::Endpoint(Endpoint::Url(url)) => url.expose_secret().to_owned(),
        Value::Endpoint(Endpoint::File(path)) => path.display().to_string(),
    })
}

#[test]
fn what_a_kind_takes_is_kept() {
    let choices = Kind::Choice(&["lz4", "none"]);
    for (kind, text, value) in [
        (Kind::Text, "a b", "a b"),
        (Kind::Name, "main-2", "main-2"),
        (Kind::Name, "123456789012", "123456789012"),
        (Kind::Path, "/a b/", "/a b/"),
        (Kind::Endpoint, "/etc/xdb/x.url", "/etc/xdb/x.url"),
        (
            Kind::Endpoint,
            "https://hc-ping.example/a?b=1",
            "https://hc-ping.example/a?b=1",
        ),
        (Kind::Port, "1", "1"),
        (Kind::Port, "65535", "65535"),
        (Kind::Count, "0", "0"),
        (Kind::Duration, "90s", "90s"),
        (Kind::Duration, "5m", "300s"),
        (Kind::DurationOrZero, "0s", "0ns"),
        (Kind::DurationOrZero, "2m", "120s"),
        (Kind::Duration, "1h 30m", "5400s"),
        (Kind::Duration, "2 hours", "7200s"),
        (Kind::Switch, "true", "true"),
        (Kind::Switch, "False", "false"),
        (Kind::Switch, "1", "true"),
        (choices, "none", "none"),
        (Kind::Secret, " p#$ ", " p#$ "),
        (Kind::Url, "http://10.0.0.1:9000", "http://10.0.0.1:9000"),
        (Kind::Url, "https://[::1]:9000/s3", "https://[::1]:9000/s3"),
        (Kind::RedisUrl, "redis://management", "redis://management"),
        (
            Kind::RedisUrl,
            "redis://10.0.2.20:6379/1",
            "redis://10.0.2.20:6379/1",
        ),
        (Kind::RedisUrl, "redis://[::1]:6379", "redis://[::1]:6379"),
        (Kind::RedisUrl, "redis://[::1]", "redis://[::1]"),
        (Kind::RedisUrl, "rediss://a:6380/2", "rediss://a:6380/2"),
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
        (Kind::Text, &["", " a", "a\t", "a\nb", "a\0"][..]),
        (Kind::Name, &["", "Main", "a_b", "a/b", "-a", "a-", "é"]),
        (Kind::Path, &["", "a", "./a", "~/a", "/a\n"]),
        (
            Kind::Port,
            &["", "0", "65536", "+1", "-1", "1 ", "0x10", "99999999999"],
        ),
        (Kind::Count, &["", "-1", "1.5", "4294967296"]),
        (
            Kind::Duration,
            &["", "5", "0s", "-5m", "5 moons", "1d", "1mo"],
        ),
        (Kind::Switch, &["", "yes", "on", "2"]),
        (Kind::Choice(&["lz4"]), &["", "LZ4", "lz"]),
        (Kind::Secret, &["", "a\r"]),
        (
            Kind::Url,
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
            Kind::RedisUrl,
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
        assert_eq!(Kind::Schedule.parse(text).is_some(), good, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_kind_panic(text in any::<String>()) {
        let choices = Kind::Choice(&["lz4"]);
        for kind in [
            Kind::Text, Kind::Name, Kind::Path, Kind::Port, Kind::Count, Kind::Duration,
            Kind::Switch, choices, Kind::Secret, Kind::Url, Kind::RedisUrl, Kind::Repository,
            Kind::Listen, Kind::Schedule,
        ] {
            kind.parse(&text);
        }
    }
}
