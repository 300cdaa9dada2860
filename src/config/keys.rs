//! Every key of the configuration, in one flat table: what is not here does not exist.
//!
//! Names in `xdb.toml`, `XDB_…` names, defaults, seeds and hints follow from it mechanically.

use super::kind::Kind;

/// `archive.settings.NAME` is the one free table; [`super::settings`] says what it may hold.
pub(super) const SETTINGS: &str = "archive.settings.";

/// One key.
pub(super) struct Key {
    /// Section, dot, name.
    pub name: &'static str,
    pub kind: Kind,
    pub preset: Preset,
    /// Names that give the value in `/etc/environment` and in the process's own environment, best first.
    pub seeds: &'static [&'static str],
    /// One line, as `packaging/xdb.toml` shows it.
    pub about: &'static str,
}

/// What holds when nothing sets the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Text(&'static str),
    /// What the kernel calls this machine; the text is an example.
    KernelHostName(&'static str),
    /// Nothing; the text is an example.
    Unset(&'static str),
}

use Preset::{KernelHostName, Text, Unset};

const COMPRESSIONS: &[&str] = &["lz4", "zstd", "lzma", "brotli", "none"];

const SSLMODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "cluster.name",
        kind: Kind::Name,
        preset: Text("main"),
        seeds: &[],
        about: "The cluster's name in the bucket, in Redis and in alerts; one bucket may hold many clusters.",
    },
    Key {
        name: "cluster.account",
        kind: Kind::Name,
        preset: Unset("123456789012"),
        seeds: &["AWS_ACCOUNT_ID"],
        about: "The AWS account in the buckets' names; stands for {account} in archive.repository.",
    },
    Key {
        name: "node.hostname",
        kind: Kind::Text,
        preset: KernelHostName("db1"),
        seeds: &["HOSTNAME"],
        about: "This node's name; unset, the kernel's host name.",
    },
    Key {
        name: "node.state_directory",
        kind: Kind::Path,
        preset: Text("/var/lib/xdb"),
        seeds: &[],
        about: "Where xdb keeps what this node must remember.",
    },
    // Deliberately not seeded by PGHOST and PGPORT: in /etc/environment they name HAProxy on the
    // management node, and a backup must talk to the server on its own node.
    Key {
        name: "postgres.host",
        kind: Kind::Text,
        preset: Text("/var/run/postgresql"),
        seeds: &[],
        about: "This node's own server: the directory of its socket, a host name or an address.",
    },
    Key {
        name: "postgres.port",
        kind: Kind::Port,
        preset: Text("5432"),
        seeds: &[],
        about: "Its port: PostgreSQL's own, neither PgBouncer's nor HAProxy's.",
    },
    Key {
        name: "postgres.user",
        kind: Kind::Text,
        preset: Text("postgres"),
        seeds: &[],
        about: "The role that xdb logs in as.",
    },
    Key {
        name: "postgres.password",
        kind: Kind::Secret,
        preset: Unset("secret"),
        seeds: &["PGPASSWORD"],
        about: "Its password; unset where the socket asks for none.",
    },
    Key {
        name: "postgres.database",
        kind: Kind::Text,
        preset: Text("postgres"),
        seeds: &[],
        about: "The database that xdb connects to.",
    },
    Key {
        name: "postgres.data_directory",
        kind: Kind::Path,
        preset: Text("/var/lib/postgresql/17/main"),
        seeds: &[],
        about: "The server's data directory (PGDATA).",
    },
    Key {
        name: "postgres.bin_directory",
        kind: Kind::Path,
        preset: Text("/usr/lib/postgresql/17/bin"),
        seeds: &[],
        about: "Where postgres, pg_ctl and pg_amcheck of the server's major version are.",
    },
    Key {
        name: "postgres.connect_timeout",
        kind: Kind::Duration,
        preset: Text("5s"),
        seeds: &[],
        about: "How long connecting may take, login included.",
    },
    Key {
        name: "pgbouncer.host",
        kind: Kind::Text,
        preset: Text("/var/run/postgresql"),
        seeds: &[],
        about: "This node's own PgBouncer: the directory of its socket, a host name or an address.",
    },
    Key {
        name: "pgbouncer.port",
        kind: Kind::Port,
        preset: Text("6432"),
        seeds: &[],
        about: "Its port.",
    },
    Key {
        name: "pgbouncer.user",
        kind: Kind::Text,
        preset: Text("pgbouncer"),
        seeds: &[],
        about: "Who xdb is on its console; over the socket pgbouncer needs no password where both run as one user.",
    },
    Key {
        name: "pgbouncer.password",
        kind: Kind::Secret,
        preset: Unset("secret"),
        seeds: &[],
        about: "The password for the console; unset where it asks for none.",
    },
    Key {
        name: "s3.region",
        kind: Kind::Text,
        preset: Unset("us-east-1"),
        seeds: &["AWS_REGION", "AWS_DEFAULT_REGION"],
        about: "The AWS region of the buckets.",
    },
    Key {
        name: "s3.endpoint",
        kind: Kind::Url,
        preset: Unset("https://s3.us-east-1.amazonaws.com"),
        seeds: &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
        about: "Where S3 answers; unset, AWS's own address in the region.",
    },
    Key {
        name: "s3.force_path_style",
        kind: Kind::Switch,
        preset: Text("false"),
        seeds: &["AWS_S3_FORCE_PATH_STYLE"],
        about: "Whether the bucket goes into the path and not into the host name; most servers but AWS want it.",
    },
    Key {
        name: "s3.access_key_id",
        kind: Kind::Text,
        preset: Unset("AKIAIOSFODNN7EXAMPLE"),
        seeds: &["AWS_ACCESS_KEY_ID"],
        about: "The access key, together with its secret; unset, the instance's role.",
    },
    Key {
        name: "s3.secret_access_key",
        kind: Kind::Secret,
        preset: Unset("secret"),
        seeds: &["AWS_SECRET_ACCESS_KEY"],
        about: "The secret of the access key.",
    },
    Key {
        name: "s3.session_token",
        kind: Kind::Secret,
        preset: Unset("secret"),
        seeds: &["AWS_SESSION_TOKEN"],
        about: "The session token of a temporary access key.",
    },
    Key {
        name: "s3.ca_cert_file",
        kind: Kind::Path,
        preset: Unset("/etc/xdb/s3-ca.pem"),
        seeds: &[],
        about: "PEM certificates that the S3 server is trusted by; unset, the system's.",
    },
    Key {
        name: "archive.program",
        kind: Kind::Text,
        preset: Text("wal-g"),
        seeds: &[],
        about: "The WAL-G program, wal-g or walrus: a name on PATH or a path.",
    },
    Key {
        name: "archive.repository",
        kind: Kind::Repository,
        preset: Text("s3://walg-{account}/{cluster}/pg{major}"),
        seeds: &[],
        about: "Where WAL and base backups go; {account}, {cluster} and {major} (PostgreSQL's version) are filled in.",
    },
    Key {
        name: "archive.compression",
        kind: Kind::Choice(COMPRESSIONS),
        preset: Text("lz4"),
        seeds: &[],
        about: "How WAL and base backups are compressed: lz4, zstd, lzma, brotli or none.",
    },
    Key {
        name: "archive.push_timeout",
        kind: Kind::Duration,
        preset: Text("2m"),
        seeds: &[],
        about: "How long storing one WAL segment may take.",
    },
    Key {
        name: "archive.fetch_timeout",
        kind: Kind::Duration,
        preset: Text("2m"),
        seeds: &[],
        about: "How long fetching one WAL segment may take.",
    },
    Key {
        name: "archive.backup_timeout",
        kind: Kind::Duration,
        preset: Text("6h"),
        seeds: &[],
        about: "How long one base backup may take.",
    },
    Key {
        name: "archive.delta_max_steps",
        kind: Kind::Count,
        preset: Text("0"),
        seeds: &[],
        about: "How many delta backups may follow a full one; 0 makes every backup full.",
    },
    Key {
        name: "dump.repository",
        kind: Kind::Repository,
        preset: Text("s3://pgdump-{account}/{cluster}"),
        seeds: &[],
        about: "Where dumps go, with the roles' password hashes; filled in like archive.repository.",
    },
    Key {
        name: "dump.timeout",
        kind: Kind::Duration,
        preset: Text("6h"),
        seeds: &[],
        about: "How long one dump of all databases may take.",
    },
    Key {
        name: "dump.lock_timeout",
        kind: Kind::Duration,
        preset: Text("1m"),
        seeds: &[],
        about: "How long a dump waits for a table that is locked exclusively before it fails.",
    },
    Key {
        name: "restore_test.directory",
        kind: Kind::Path,
        preset: Text("/var/lib/xdb/restore-test"),
        seeds: &[],
        about: "Where restore tests restore to; it needs room for the whole cluster.",
    },
    Key {
        name: "restore_test.timeout",
        kind: Kind::Duration,
        preset: Text("6h"),
        seeds: &[],
        about: "How long one restore test may take.",
    },
    Key {
        name: "wait.host",
        kind: Kind::Text,
        preset: Text("management"),
        seeds: &["PGHOST"],
        about: "The host that applications connect to.",
    },
    Key {
        // Not seeded by PGPORT: one that is malformed would stop every verb, archiving too.
        name: "wait.port",
        kind: Kind::Port,
        preset: Text("5432"),
        seeds: &[],
        about: "Its port that leads to the primary.",
    },
    Key {
        name: "wait.replica_port",
        kind: Kind::Port,
        preset: Text("5433"),
        seeds: &[],
        about: "Its port that leads to the replica.",
    },
    Key {
        name: "wait.user",
        kind: Kind::Text,
        preset: Text("postgres"),
        seeds: &["PGUSER"],
        about: "The role that xdb wait logs in as.",
    },
    Key {
        name: "wait.database",
        kind: Kind::Text,
        preset: Text("postgres"),
        seeds: &["PGDATABASE"],
        about: "The database that it logs in to.",
    },
    Key {
        name: "wait.password_file",
        kind: Kind::Path,
        preset: Unset("/run/credentials/app.service/database"),
        seeds: &[],
        about: "A file with nothing but its password; unset, postgres.password (PGPASSWORD), then PGPASSFILE or ~/.pgpass.",
    },
    Key {
        name: "wait.sslmode",
        kind: Kind::Choice(SSLMODES),
        preset: Text("prefer"),
        seeds: &[],
        about: "As libpq's: disable, allow, prefer, require, verify-ca or verify-full.",
    },
    Key {
        name: "wait.sslrootcert",
        kind: Kind::Path,
        preset: Unset("/etc/xdb/postgres-ca.pem"),
        seeds: &[],
        about: "PEM certificates that the server is trusted by; verify-ca and verify-full need it, and require checks it when it is set.",
    },
    Key {
        name: "wait.timeout",
        kind: Kind::DurationOrZero,
        preset: Text("150s"),
        seeds: &[],
        about: "How long xdb wait waits in all; 0s makes one attempt.",
    },
    Key {
        name: "wait.attempt_timeout",
        kind: Kind::Duration,
        preset: Text("5s"),
        seeds: &[],
        about: "How long one attempt may take, the query included; PgBouncer may queue a client for minutes.",
    },
    Key {
        name: "wait.fail_fast_after",
        kind: Kind::DurationOrZero,
        preset: Text("30s"),
        seeds: &[],
        about: "How long the same refusal must last to be final; at boot a role or a password may not be there yet.",
    },
    Key {
        name: "redis.url",
        kind: Kind::RedisUrl,
        preset: Text("redis://management:6379"),
        seeds: &[],
        about: "The Redis on the management node; a number after a slash picks one of its databases.",
    },
    Key {
        name: "redis.user",
        kind: Kind::Text,
        preset: Unset("xdb"),
        seeds: &[],
        about: "The user that xdb logs in to Redis as; unset, Redis's default user.",
    },
    Key {
        name: "redis.password",
        kind: Kind::Secret,
        preset: Unset("secret"),
        seeds: &["REDIS_PASSWORD"],
        about: "Its password; unset where Redis asks for none.",
    },
    Key {
        name: "redis.timeout",
        kind: Kind::Duration,
        preset: Text("5s"),
        seeds: &[],
        about: "How long connecting to Redis may take, and one answer.",
    },
    Key {
        name: "http.listen",
        kind: Kind::Listen,
        preset: Text("0.0.0.0:8009"),
        seeds: &[],
        about: "Where the daemon answers /primary, /replica and /healthz.",
    },
    Key {
        name: "schedule.base_backup",
        kind: Kind::Schedule,
        preset: Text("0 1 * * *"),
        seeds: &[],
        about: "When the primary takes a base backup: a cron pattern in UTC, or the time between two.",
    },
    Key {
        name: "schedule.dump",
        kind: Kind::Schedule,
        preset: Text("0 2 * * *"),
        seeds: &[],
        about: "When the replica dumps every database.",
    },
    Key {
        name: "schedule.restore_test",
        kind: Kind::Schedule,
        preset: Text("0 4 * * *"),
        seeds: &[],
        about: "When the replica tests the newest backup.",
    },
    Key {
        name: "schedule.checks",
        kind: Kind::Schedule,
        preset: Text("15s"),
        seeds: &[],
        about: "When each node looks at what is watched.",
    },
];

impl Key {
    /// The key of this dotted name.
    pub(super) fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    pub(super) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name inside its section.
    pub(super) fn leaf(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(_, leaf)| leaf)
    }

    /// The default, or else an example.
    pub(super) fn example(&self) -> &'static str {
        match self.preset {
            Text(text) | KernelHostName(text) | Unset(text) => text,
        }
    }
}

/// The `XDB_…` name of the dotted name `key`.
pub(super) fn environment_name(key: &str) -> String {
    format!("XDB_{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_and_example_is_a_value_of_its_kind() {
        for key in KEYS {
            assert!(key.kind.parse(key.example()).is_some(), "{}", key.name);
        }
    }

    #[test]
    fn no_two_keys_share_an_environment_name_or_a_seed() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| environment_name(key.name)).collect();
        assert_eq!(names.len(), KEYS.len());
        assert!(
            names.contains("XDB_POSTGRES_PORT") && names.contains("XDB_RESTORE_TEST_DIRECTORY")
        );
        let seeds: Vec<_> = KEYS.iter().flat_map(|key| key.seeds).collect();
        assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), seeds.len());
    }

    #[test]
    fn a_backup_is_never_led_away_from_its_own_node_by_a_seed() {
        let seeded = |name| !Key::named(name).unwrap().seeds.is_empty();
        assert!(!seeded("postgres.host") && !seeded("postgres.port"));
    }
}
