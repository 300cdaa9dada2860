//! Rows that were tried with psql 17: what it takes and what it refuses.

use super::{ConnectionString, parse_connection_string, parse_hosts};

fn parsed(text: &str) -> ConnectionString {
    parse_connection_string(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_connection_string_gives_its_parts() {
    for (text, parts) in [
        ("postgresql://", ""),
        ("postgres://management", "host=management"),
        ("postgresql://:5433", "port=5433"),
        ("postgresql://app@", "user=app"),
        ("postgresql://app:@management", "user=app host=management"),
        ("postgresql:///shop", "dbname=shop"),
        ("postgresql://management/", "host=management"),
        (
            "postgresql://management?user=app",
            "host=management user=app",
        ),
        (
            "postgresql://management/shop?",
            "host=management dbname=shop",
        ),
        (
            "postgresql://a%40b@[::1]/d%20b",
            "user=a@b host=::1 dbname=d b",
        ),
        (
            "postgresql://app@/shop?host=/run/postgresql",
            "user=app dbname=shop host=/run/postgresql",
        ),
        (
            "postgresql://%2Frun%2Fpostgresql/shop",
            "host=/run/postgresql dbname=shop",
        ),
        ("postgresql:///shop?host=a&host=b", "dbname=shop host=b"),
        (
            "postgresql://a/shop?user=a+b",
            "host=a dbname=shop user=a+b",
        ),
        (
            "postgresql://one:1,two:2/shop",
            "host=one,two port=1,2 dbname=shop",
        ),
        ("postgresql://one,two:2", "host=one,two port=,2"),
        (
            "postgresql://[::1],[::2]:5/x",
            "host=::1,::2 port=,5 dbname=x",
        ),
        (
            "postgresql://a/b/c?sslmode=require",
            "host=a dbname=b/c sslmode=require",
        ),
        ("postgresql://a/?ssl=true", "host=a sslmode=require"),
        (
            "postgresql+asyncpg://app@a:5433/shop?ssl=require",
            "host=a port=5433 sslmode=require",
        ),
        (
            "postgresql://a/?gssencmode=disable&keepalives_idle=30&keepalives=1&tcp_user_timeout=5",
            "host=a",
        ),
        (
            "postgresql://a/?sslcert=/c&sslkey=/k&hostaddr=127.0.0.1",
            "host=a sslcert=/c sslkey=/k hostaddr=127.0.0.1",
        ),
        ("postgresql://a/?user=&ssl_min_protocol_version=", "host=a"),
        ("host=a dbname=shop", "host=a dbname=shop"),
        ("  host = a   port= 5433 ", "host=a port=5433"),
        ("host='a' dbname='d b'", "host=a dbname=d b"),
        (r"dbname='it\'s' user=a\ b", "dbname=it's user=a b"),
        (r"dbname=a\\b", r"dbname=a\b"),
        ("user='' host=a", "host=a"),
        ("host=a requiressl=1", "host=a sslmode=require"),
        (
            "host=a,b port=1,2 target_session_attrs=read-write",
            "host=a,b port=1,2 target_session_attrs=read-write",
        ),
        ("host=a options='-c geqo=off'", "host=a options=-c"),
        ("dbname='a'user=b", "dbname=a user=b"),
        ("host=a application_name=http://b", "host=a"),
    ] {
        let found = parsed(text);
        for part in parts.split(' ').filter(|part| part.contains('=')) {
            let (keyword, value) = part.split_once('=').unwrap();
            let found = found.get(keyword).unwrap_or_default();
            // The value may continue behind an escaped blank.
            assert!(
                found == value || found.starts_with(&format!("{value} ")),
                "{text}: {part}: {found}"
            );
        }
        for keyword in ["host", "port", "user", "dbname", "sslmode"] {
            let expected = parts.contains(&format!("{keyword}="));
            assert_eq!(
                found.get(keyword).is_some(),
                expected || text.contains("+asyncpg"),
                "{text}: {keyword}"
            );
        }
    }
}

#[test]
fn what_libpq_refuses_is_refused_and_a_password_never_shown() {
    for text in [
        "",
        "management:5432",
        "mysql://management",
        "postgresql://app:hush@management/shop",
        "postgresql://app@management/shop?password=hush",
        "host=a password=hush",
        "host=a sslpassword=hush",
        "http://app:hush@management",
        "postgresql://one/?sslmod=hush",
        "postgresql://one/?sslmode",
        "postgresql://one/?user=a=hush",
        "postgresql://one/?=hush",
        "postgresql://one/%zz",
        "postgresql://one/%00",
        "postgresql://[::1",
        "postgresql://[]/hush",
        "postgresql://[::1]hush",
        "host=a hush",
        "host='hush",
        "=hush",
        "host=a bogus=hush",
        "host=a sslmode=hush",
        "host=a target_session_attrs=hush",
        "host=a sslnegotiation=hush",
        "host=a connect_timeout=hush",
        "host=a keepalives=hush",
        "host=a gssencmode=hush",
        "host=a ssl_min_protocol_version=hush",
        "host=a Host=hush",
        "host=a sslmode=",
        "host=a require_auth=",
    ] {
        let error = parse_connection_string(text).expect_err(text);
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[test]
fn hosts_addresses_and_ports_are_paired_as_libpq_does() {
    for (names, addresses, ports, expected) in [
        (None, None, None, Some("/var/run/postgresql:5432")),
        (Some("a"), None, Some("1"), Some("a:1")),
        (Some("a,b"), None, Some("1"), Some("a:1 b:1")),
        (Some("a,b"), None, Some("1,2"), Some("a:1 b:2")),
        (Some("a,b"), None, Some(",2"), Some("a:5432 b:2")),
        (Some("a,b"), None, Some("1,2,3"), None),
        (Some("a"), None, Some("1,2"), None),
        (
            Some("a,"),
            None,
            Some("1"),
            Some("a:1 /var/run/postgresql:1"),
        ),
        (None, Some("::1,::2"), Some("1"), Some("::1:1 ::2:1")),
        (Some("a,b"), Some("::1"), Some("1"), None),
        (Some("a"), None, Some("0"), None),
        (Some("a"), None, Some("65536"), None),
        (Some("a"), None, Some(" 5 "), Some("a:5")),
    ] {
        let hosts = parse_hosts(names, addresses, ports);
        let shown = hosts.ok().map(|hosts| {
            let shown = hosts
                .iter()
                .map(|host| format!("{}:{}", host.shown(), host.port));
            shown.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(
            shown.as_deref(),
            expected,
            "{names:?} {addresses:?} {ports:?}"
        );
    }
}
