//! From a command line to the options of the probe: no password is shown, and no option of libpq is ignored.

use clap::Parser;
use tokio_postgres::config::ChannelBinding;

use super::Arguments;
use super::options::{seconds, targets, versions};
use crate::config::{ConfigFile, Sources, load};
use crate::model::may_hold_password;
use crate::postgres::{SslMode, TlsVersions};
use crate::wait::{PasswordFile, SessionAttributes, WaitOptions};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

/// The options that `flags` make on a machine without any configuration.
fn options_of(flags: &[&str]) -> anyhow::Result<WaitOptions> {
    let line = Line::parse_from([&["wait"], flags].concat());
    let targets = targets(&line.arguments, |flags| {
        let sources = Sources {
            file: ConfigFile::Default("/dev/null".into()),
            environment_file: "/nonexistent/environment".into(),
            process: Default::default(),
            flags,
        };
        Ok(load(&sources)?)
    });
    targets.map(|targets| targets[0].clone())
}

#[test]
fn versions_of_tls_are_a_range() {
    for (least, most, expected) in [
        (None, None, Some(TlsVersions::Any)),
        (Some("TLSv1"), None, Some(TlsVersions::Any)),
        (Some("TLSv1.3"), None, Some(TlsVersions::Only13)),
        (None, Some("TLSv1.2"), Some(TlsVersions::Only12)),
        (Some("TLSv1.3"), Some("TLSv1.2"), None),
        (None, Some("TLSv1.1"), None),
        (Some("TLSv1"), Some("TLSv1.1"), Some(TlsVersions::Old)),
    ] {
        assert_eq!(versions(least, most).ok(), expected, "{least:?} {most:?}");
    }
}

#[test]
fn a_bare_number_counts_seconds() {
    for (text, read) in [
        ("0", "0s"),
        ("150", "150s"),
        ("150s", "150s"),
        ("2m", "2m"),
        ("", ""),
        ("-1", "-1"),
    ] {
        assert_eq!(seconds(text), read);
    }
}

#[test]
fn no_message_shows_a_password() {
    for text in [
        "postgresql://app:SECRET@management/app",
        "postgres://app:SECRET@management",
        "postgresql://app:SECRET@/app?host=/run/postgresql",
        "postgresql+asyncpg://app:SECRET@management/app",
        "postgresql+asyncpg://app:SECRET%zz@management/app",
        "mysql://app:SECRET@management/app",
        "pg://app:SECRET@management",
        "http://SECRET@management",
        "://SECRET",
        "postgresql:/app:SECRET@management",
        "postgresql:app:SECRET@management/app",
        "app:SECRET@management/app",
        "app:SECRET@management",
        "POSTGRESQL://app:SECRET@management",
        "postgresql://app:SECRET@[::1",
        "postgresql://app:SECRET@[::1]x",
        "postgresql://app:SECRET%@management",
        "postgresql://app:SECRET%00@management",
        "postgresql://app:SE/SECRET@management/app",
        "postgresql://app:12/SECRET@management/app",
        "postgresql://app:12?SECRET@management/app",
        "postgresql://app:SECRET/x",
        "postgresql://app:SECRET?x@management",
        "postgresql://app%3ASECRET@management/app",
        "postgresql://app@management/app?password=SECRET",
        "postgresql://app@management/app?password=SECRET&x",
        "postgresql://app@management/app?passwd=SECRET",
        "postgresql://app@management/app?pass%77ord=SECRET",
        "postgresql://app@management/app?PASSWORD=SECRET",
        "postgresql://app@management/app?sslpassword=SECRET",
        "postgresql://app@management/app?sslmode=SECRET",
        "postgresql://app@management/app?connect_timeout=SECRET",
        "postgresql://app@management/app?=SECRET",
        "postgresql://app@management/app?SECRET",
        "postgresql://app@management:SECRET/app",
        "postgresql://management/app%3ASECRET%40x",
        "postgresql://app@management/app?host=postgresql://a:SECRET@b",
        "postgresql://app@management/app?hostaddr=a:SECRET@b",
        "postgresql://app@management/app?sslrootcert=https://a:SECRET@b",
        "host=a password=SECRET",
        "host=a password = SECRET",
        "host=a password='SECRET",
        "host=a password='SECRET' x",
        "host=a password=SECRET user",
        "host=a Password=SECRET",
        "host=a pwd=SECRET",
        "host=a SECRET",
        "password=SECRET",
        "dbname=postgresql://a:SECRET@b/c host=a",
        "user='app password=SECRET' host=a",
        "host=a port=SECRET",
        "host=a require_auth=SECRET",
    ] {
        for flag in [
            "--url",
            "--dbname",
            "--host",
            "--user",
            "--port",
            "--sslmode",
        ] {
            let is_text_of = flag == "--url" || flag == "--dbname";
            if !(is_text_of || text.contains("://") || may_hold_password(text)) {
                continue;
            }
            let shown = match options_of(&[flag, text]) {
                Ok(options) => format!("{options:?} {}", options.place()),
                Err(error) => format!("{error:?} {error:#}"),
            };
            assert!(!shown.contains("SECRET"), "{flag} {text}: {shown}");
        }
    }
}

#[test]
fn each_option_for_security_is_honoured_or_refused() {
    type Honours = fn(&WaitOptions) -> bool;
    let honoured: [(&str, Honours); 20] = [
        ("sslmode=disable", |it| it.tls.mode == SslMode::Disable),
        ("sslmode=require", |it| it.tls.mode == SslMode::Require),
        ("sslmode=require&sslnegotiation=direct", |it| it.tls.direct),
        ("ssl_min_protocol_version=TLSv1.3", |it| {
            it.tls.versions == TlsVersions::Only13
        }),
        ("ssl_max_protocol_version=TLSv1.2", |it| {
            it.tls.versions == TlsVersions::Only12
        }),
        ("sslsni=0", |it| !it.tls.names_host),
        ("sslsni=1", |it| it.tls.names_host),
        ("sslcertmode=disable", |it| it.tls.mode == SslMode::Prefer),
        ("sslcertmode=allow", |it| it.tls.mode == SslMode::Prefer),
        ("gssencmode=disable", |it| it.tls.mode == SslMode::Prefer),
        ("gssencmode=prefer", |it| it.tls.mode == SslMode::Prefer),
        ("channel_binding=require", |it| {
            it.parameters.channel_binding == Some(ChannelBinding::Require)
        }),
        ("channel_binding=disable", |it| {
            it.parameters.channel_binding == Some(ChannelBinding::Disable)
        }),
        ("require_auth=scram-sha-256", |it| {
            it.parameters.methods.is_some()
        }),
        ("require_auth=!password,!md5", |it| {
            it.parameters.methods.is_some()
        }),
        ("requirepeer=postgres", |it| {
            it.parameters.peer.as_deref() == Some("postgres")
        }),
        ("target_session_attrs=read-write", |it| {
            it.parameters.attributes == SessionAttributes::ReadWrite
        }),
        (
            "passfile=/x",
            |it| matches!(&it.password_file, Some(PasswordFile::Passfile(path)) if path.ends_with("x")),
        ),
        ("requiressl=1", |it| it.tls.mode == SslMode::Require),
        ("ssl=require", |it| it.tls.mode == SslMode::Require),
    ];
    for (parameters, is_honoured) in honoured {
        let url = format!("postgresql://app@management/app?{parameters}");
        let options =
            options_of(&["--url", &url]).unwrap_or_else(|error| panic!("{parameters}: {error}"));
        assert!(is_honoured(&options), "{parameters}");
    }
    for (parameters, part) in [
        ("gssencmode=require", "gssencmode=require"),
        ("sslcertmode=require", "sslcertmode=require"),
        ("service=x", "service"),
        ("sslpassword=x", "password"),
        ("require_auth=", "require_auth"),
        ("require_auth=kerberos", "require_auth"),
        ("sslnegotiation=direct", "sslnegotiation=direct"),
        ("sslmode=prefer&sslrootcert=system", "sslrootcert=system"),
        ("sslmode=verify-ca&sslrootcert=system", "sslrootcert=system"),
        (
            "sslmode=verify-full&sslrootcert=/nonexistent",
            "/nonexistent",
        ),
        ("sslmode=require&sslrootcert=/dev/null", "/dev/null"),
        (
            "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "range",
        ),
        ("channel_binding=sometimes", "channel_binding"),
        ("sslcertmode=sometimes", "sslcertmode"),
        ("target_session_attrs=sometimes", "target_session_attrs"),
    ] {
        let url = format!("postgresql://app@management/app?{parameters}");
        match options_of(&["--url", &url]) {
            Ok(options) => panic!("{parameters}: {options:?}"),
            Err(error) => {
                let shown = format!("{error:#}");
                assert!(
                    shown.contains(part) || shown.contains("system"),
                    "{parameters}: {shown}"
                );
            }
        }
    }
}
