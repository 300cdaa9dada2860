//! Every setting, once: what is not in this table does not exist.
//!
//! An entry is a field of the typed configuration. Its first doc line also describes it for users, and what follows it is
//! for readers of the code. After `=` stand the kind, the default (or, with `Unset`, an example), and the names that give
//! the value in `/etc/environment` and in the process's own environment, best first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::AgeRecipient;
use super::faults::Faults;
use super::key::{Key, Preset, SettingsSection};
use super::kind::ValueKind;
use super::receivers::{Endpoint, Notify};
use super::table::{Values, settings};

/// `archive.settings.NAME` is the one free table; [`super::program_settings`] says what it may hold.
pub(super) const SETTINGS: &str = "archive.settings.";

const COMPRESSIONS: &[&str] = &["lz4", "zstd", "lzma", "brotli", "none"];

const SERVER_SIDE_ENCRYPTIONS: &[&str] = &["AES256", "aws:kms"];

const LEVELS: &[&str] = &["start", "check", "full"];

const SSLMODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

settings! {
    /// The cluster: the same on both nodes.
    cluster: Cluster {
        /// The cluster's name in the bucket, in Redis and in alerts; one bucket may hold many clusters.
        name: String = Name, Default("main");
        /// The AWS account in the buckets' names; stands for {account} in archive.repository.
        account: Option<String> = Name, Unset("123456789012"), also ["AWS_ACCOUNT_ID"];
        /// The addresses of xdb's daemons on all database nodes; this node may be among them. Without them, lag in seconds is unknown.
        ///
        /// Each as `host:port`.
        peers: Vec<String> = Hosts, Unset("10.0.2.30, 10.0.2.31");
    }

    /// This node.
    node: Node {
        /// This node's name; unset, the kernel's host name.
        hostname: String = Text, KernelHostName("db1"), also ["HOSTNAME"];
        /// Where xdb keeps this node's state.
        state_directory: PathBuf = Path, Default("/var/lib/xdb");
    }

    /// This node's own server, never the proxy before it.
    postgres: Postgres {
        // Deliberately not seeded by PGHOST and PGPORT: in /etc/environment they name HAProxy on the
        // management node, and a backup must talk to the server on its own node.
        /// This node's own server: the directory of its socket, a host name or an address.
        host: String = Text, Default("/var/run/postgresql");
        /// Its port: PostgreSQL's own, neither PgBouncer's nor HAProxy's.
        port: u16 = Port, Default("5432");
        /// The role that xdb logs in as.
        user: String = Text, Default("postgres");
        /// Its password; unset where the socket asks for none.
        password: Option<SecretString> = Secret, Unset("secret"), also ["PGPASSWORD"];
        /// The database that xdb connects to.
        database: String = Text, Default("postgres");
        /// The server's data directory (PGDATA).
        data_directory: PathBuf = Path, Default("/var/lib/postgresql/17/main");
        /// Where postgres, pg_ctl and pg_checksums of the server's major version are.
        bin_directory: PathBuf = Path, Default("/usr/lib/postgresql/17/bin");
        /// How long connecting may take, login included.
        connect_timeout: Duration = Duration, Default("5s");
        /// As libpq's, for sessions of xdb, of pg_dump and of the archive program over TCP.
        sslmode: String = Choice(SSLMODES), Default("prefer");
        /// PEM certificates to verify the server with, or "system", which needs sslmode verify-full; unset, ~/.postgresql/root.crt where it exists.
        sslrootcert: Option<PathBuf> = PathOrSystem, Unset("/etc/xdb/postgres-ca.pem");
    }

    /// This node's own PgBouncer, asked through its console.
    pgbouncer: PgBouncer {
        /// This node's own PgBouncer: the directory of its socket, a host name or an address.
        host: String = Text, Default("/var/run/postgresql");
        /// Its port.
        port: u16 = Port, Default("6432");
        /// The user that xdb logs in as on its console; over the socket, pgbouncer needs no password where both run as one user.
        ///
        /// One of PgBouncer's `admin_users` or `stats_users`, or `pgbouncer` over the socket.
        user: String = Text, Default("pgbouncer");
        /// The password for the console; unset where it asks for none.
        password: Option<SecretString> = Secret, Unset("secret");
    }

    /// HAProxy on the management node, whose routes are compared with the roles of the nodes.
    haproxy: Haproxy {
        /// HAProxy's page of statistics; unset, its routes are not compared.
        stats_url: Option<String> = Url, Unset("http://10.0.2.20:8404/");
        /// The backend that leads to the primary.
        primary_backend: String = Text, Default("primary");
        /// The backend that leads to the replica.
        replica_backend: String = Text, Default("replica");
    }

    /// Where backups are kept.
    s3: S3 {
        /// The AWS region of the buckets.
        region: Option<String> = Text, Unset("us-east-1"), also ["AWS_REGION", "AWS_DEFAULT_REGION"];
        /// Where S3 answers; unset, AWS's own address in the region.
        endpoint: Option<String> = Url, Unset("https://s3.us-east-1.amazonaws.com"),
            also ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        /// Whether the bucket goes into the path and not into the host name; most servers but AWS want it.
        force_path_style: bool = Switch, Default("false"), also ["AWS_S3_FORCE_PATH_STYLE"];
        /// The access key, together with its secret; unset, the instance's role.
        ///
        /// Set exactly when `secret_access_key` is; `None` leaves it to the AWS chain.
        access_key_id: Option<String> = Text, Unset("AKIAIOSFODNN7EXAMPLE"), also ["AWS_ACCESS_KEY_ID"];
        /// The secret of the access key.
        secret_access_key: Option<SecretString> = Secret, Unset("secret"), also ["AWS_SECRET_ACCESS_KEY"];
        /// The session token of a temporary access key.
        session_token: Option<SecretString> = Secret, Unset("secret"), also ["AWS_SESSION_TOKEN"];
        /// PEM certificates to verify the S3 server with; unset, the system's.
        ca_cert_file: Option<PathBuf> = Path, Unset("/etc/xdb/s3-ca.pem");
        /// How S3 encrypts each object that is written: AES256 (SSE-S3) or aws:kms (SSE-KMS); unset, as the bucket's default says. The program walrus cannot ask for it.
        server_side_encryption: Option<String> = Choice(SERVER_SIDE_ENCRYPTIONS), Unset("aws:kms");
        /// The id or the ARN of the KMS key; set exactly where s3.server_side_encryption is aws:kms.
        kms_key_id: Option<String> = Text, Unset("arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    }

    /// WAL archiving and base backups.
    archive: Archive {
        /// The WAL-G program, wal-g or walrus: a name on PATH or in a usual directory, or a whole path.
        program: String = Text, Default("wal-g");
        /// Where WAL and base backups go; {account}, {cluster} and {major} (PostgreSQL's version) are filled in.
        ///
        /// The prefix is not empty, may end in a slash, and lies outside of `xdb/`.
        repository: String = Repository, Default("s3://walg-{account}/{cluster}/pg{major}");
        /// How WAL and base backups are compressed: lz4, zstd, lzma, brotli or none.
        compression: String = Choice(COMPRESSIONS), Default("lz4");
        /// The upload of one WAL segment fails after this time without progress. Without the daemon, this is the limit of the whole upload.
        push_timeout: Duration = Duration, Default("2m");
        /// The most WAL segments that the daemon uploads at once. It uses fewer where S3 answers fast or memory is short (32 MiB each, at most an eighth of what is free).
        upload_concurrency: u32 = Count, Default("32");
        /// How long fetching one WAL segment may take.
        fetch_timeout: Duration = Duration, Default("2m");
        /// How long one base backup may take.
        backup_timeout: Duration = Duration, Default("6h");
        /// A commit that is older than this and not in the bucket raises the warning archive-rpo.
        rpo_objective: Duration = Duration, Default("5m");
        /// From this age on archive-rpo is critical; unset, three times archive.rpo_objective.
        rpo_critical: Duration = Duration, Unset("15m");
        /// The primary's daemon calls pg_switch_wal() when a commit waits for half of archive.rpo_objective in a segment that is not full.
        switch_wal: bool = Switch, Default("true");
        /// How many delta backups may follow a full one; 0 makes every backup full.
        delta_max_steps: u32 = Count, Default("0");

        rest {
            /// Further environment for the WAL-G program, by name; some of it is secret.
            settings: BTreeMap<String, SecretString>
        }
    }

    /// What is kept of the base backups and the WAL, and of the dumps; `xdb prune --dry-run` and `xdb dump prune --dry-run`
    /// show its effect.
    #[derive(Copy)]
    retention: Retention {
        /// Every moment of the last N days stays restorable. Unset, nothing is ever deleted; with 0, retention.fulls alone decides.
        window_days: Option<u32> = Count, Unset("35");
        /// How many full backups, and full dumps, are kept whatever their age, with everything that is newer.
        fulls: u32 = Count, Default("2");
        /// How many days keep their last full backup, and dump. The backup is marked permanent and restores to its own end only.
        daily: u32 = Count, Default("0");
        /// How many weeks keep theirs; a week begins on Monday (UTC).
        weekly: u32 = Count, Default("0");
        /// How many months keep theirs.
        monthly: u32 = Count, Default("0");
        /// How many years keep theirs.
        yearly: u32 = Count, Default("0");
    }

    /// Dumps of each database, beside the base backups.
    dump: Dump {
        /// Where dumps go, with the roles' password hashes; filled in like archive.repository.
        repository: String = Repository, Default("s3://pgdump-{account}/{cluster}");
        /// How long one dump of all databases may take.
        timeout: Duration = Duration, Default("6h");
        /// How long a dump waits for a table that is locked exclusively before it releases its other locks and tries again, until dump.timeout.
        lock_timeout: Duration = Duration, Default("1m");
        /// Tables of more MiB than this are not counted for the manifest, which then has the planner's estimate.
        ///
        /// Counting reads a table once more than pg_dump does.
        count_up_to_mib: u32 = Count, Default("16384");
        /// How many bytes a dump sends to S3 each second; unset, without a limit.
        bandwidth_limit: Option<u32> = Count, Unset("50000000");
        /// The most WAL (in MiB) that a standby may have received and not replayed while it is dumped. Above it the dump is cancelled.
        max_lag_mib: u32 = Count, Default("1024");
        /// After how many recovery conflicts the dump of a database is taken from the primary instead of the standby.
        max_conflicts: u32 = Count, Default("3");
        /// The age recipients (X25519) that dumps are encrypted to, between commas; the identity of each one reads them. Unset, dumps are not encrypted.
        age_recipients: Vec<AgeRecipient> = AgeRecipients, Unset("age17avhl6fpa23dsf55qtnt7rds7vu367nd7kdt7n92k2r2am5fey4s7sjzdt");
        /// A file with the age identity that decrypts dumps, on the nodes that test or restore them; not readable by every user.
        age_identity_file: Option<PathBuf> = Path, Unset("/etc/xdb/age-identity.txt");
    }

    /// Restores that prove the backups.
    restore_test: RestoreTest {
        /// Where restore tests and dump tests restore to; it needs room for the whole cluster.
        directory: PathBuf = Path, Default("/var/lib/xdb/restore-test");
        /// How long one restore test or dump test may take.
        timeout: Duration = Duration, Default("6h");
        /// Restore tests run on the primary instead of the replica, for a cluster that has none.
        on_primary: bool = Switch, Default("false");
        /// The most WAL (in MiB) that this standby may have received and not replayed. Above it a restore test does not start, and a running one stops.
        max_lag_mib: u32 = Count, Default("1024");
        /// How many MiB a restore test fetches from S3 each second; unset, without a limit. With a limit, its RTO is not compared with the objective.
        network_limit_mib: Option<u32> = Count, Unset("50");
        /// A restore test that takes longer, or a forecast that is longer, raises a warning.
        rto_objective: Option<Duration> = Duration, Unset("1h");
        /// A restore test whose RPO is longer raises a warning.
        rpo_objective: Option<Duration> = Duration, Unset("5m");
        /// How much of the restored data is checked: start, check (every file and page) or full (every row, and the assertions).
        level: String = Choice(LEVELS), Default("full");
        /// A directory of *.sql files, each with one query on the restored data; it may be missing.
        assertions: PathBuf = Path, Default("/etc/xdb/restore-checks");
    }

    /// The way to the database as an application takes it, for xdb wait.
    wait: Wait {
        /// The host that applications connect to.
        host: String = Text, Default("management"), also ["PGHOST"];
        // Not seeded by PGPORT: one that is malformed would stop every verb, archiving too.
        /// Its port that leads to the primary.
        port: u16 = Port, Default("5432");
        /// Its port that leads to the replica.
        replica_port: u16 = Port, Default("5433");
        /// The role that xdb wait logs in as.
        user: String = Text, Default("postgres"), also ["PGUSER"];
        /// The database that it logs in to.
        database: String = Text, Default("postgres"), also ["PGDATABASE"];
        /// A file with nothing but its password; unset, postgres.password (PGPASSWORD), then PGPASSFILE or ~/.pgpass.
        password_file: Option<PathBuf> = Path, Unset("/run/credentials/app.service/database");
        /// As libpq's: disable, allow, prefer, require, verify-ca or verify-full.
        sslmode: String = Choice(SSLMODES), Default("prefer");
        /// PEM certificates to verify the server with, or "system", which needs sslmode verify-full; unset, ~/.postgresql/root.crt. Where there are some, every sslmode checks the server's.
        sslrootcert: Option<PathBuf> = PathOrSystem, Unset("/etc/xdb/postgres-ca.pem");
        /// How long xdb wait waits in all; 0s makes one attempt.
        timeout: Duration = DurationOrZero, Default("150s");
        /// How long one attempt may take, the query included; PgBouncer may queue a client for minutes.
        attempt_timeout: Duration = Duration, Default("5s");
        /// How long the same refusal must last to be final; at boot a role or a password may not be there yet.
        fail_fast_after: Duration = DurationOrZero, Default("30s");
    }

    /// When an alert that still stands is reported once more.
    #[derive(Copy)]
    alerts: Alerts {
        /// A critical alert is reported again after this time, until it is acknowledged, silenced or over; 0s is never.
        remind_critical: Duration = DurationOrZero, Default("4h");
        /// The same for a warning, and for what cannot be checked.
        remind_warning: Duration = DurationOrZero, Default("24h");
    }

    /// URLs that are called after each success of a job, for a dead man's switch outside of this network. Each is a secret.
    heartbeat: Heartbeat {
        /// Called after each base backup that succeeded; a file that holds the URL keeps it out of xdb.toml.
        base_backup: Option<Endpoint> = Endpoint, Unset("/etc/xdb/heartbeat-base-backup.url");
        /// The same for dumps.
        dump: Option<Endpoint> = Endpoint, Unset("/etc/xdb/heartbeat-dump.url");
        /// The same for restore tests that passed.
        restore_test: Option<Endpoint> = Endpoint, Unset("/etc/xdb/heartbeat-restore-test.url");
        /// The same for dump tests that passed.
        dump_test: Option<Endpoint> = Endpoint, Unset("/etc/xdb/heartbeat-dump-test.url");
        /// The same for pruning.
        prune: Option<Endpoint> = Endpoint, Unset("/etc/xdb/heartbeat-prune.url");
        /// The same for pruning dumps.
        dump_prune: Option<Endpoint> = Endpoint, Unset("/etc/xdb/heartbeat-dump-prune.url");
    }

    /// Where the dashboards read alerts and the state of the nodes.
    ///
    /// What it holds can be lost at any time.
    redis: Redis {
        /// The Redis on the management node, rediss:// with TLS; a number after a slash picks one of its databases.
        url: String = RedisUrl, Default("redis://management:6379");
        /// The user that xdb logs in to Redis as; unset, Redis's default user.
        user: Option<String> = Text, Unset("xdb");
        /// Its password; unset where Redis asks for none.
        password: Option<SecretString> = Secret, Unset("secret"), also ["REDIS_PASSWORD"];
        /// PEM certificates to verify a Redis with TLS; unset, the system's.
        ca_cert_file: Option<PathBuf> = Path, Unset("/etc/xdb/redis-ca.pem");
        /// How long connecting to Redis may take, and one answer.
        timeout: Duration = Duration, Default("5s");
    }

    /// What the daemon serves; nothing there changes anything.
    http: Http {
        /// Where the daemon answers /primary, /replica and /healthz.
        listen: String = Listen, Default("0.0.0.0:8009");
    }

    /// When the daemon does what; a role's work moves with the role.
    schedule: Schedule {
        /// When the primary takes a base backup: a cron pattern in UTC, or the time between two.
        base_backup: String = Schedule, Default("0 1 * * *");
        /// When the replica dumps every database.
        dump: String = Schedule, Default("0 2 * * *");
        /// When the replica tests the newest backup.
        restore_test: String = Schedule, Default("0 4 * * *");
        /// When the replica restores the newest dump, and compares it with its manifest.
        dump_test: String = Schedule, Default("0 5 * * *");
        /// When the primary deletes the base backups and WAL that retention does not keep.
        prune: String = Schedule, Default("0 6 * * *");
        /// When the replica deletes the dumps that retention does not keep.
        dump_prune: String = Schedule, Default("30 6 * * *");
        /// When each node runs its checks.
        checks: String = Schedule, Default("15s");
    }
}

impl Key {
    /// The key of this dotted name.
    pub(super) fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }
}

/// In the order of the table.
pub(super) fn section_names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|section| section.name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::key::environment_name;
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
