//! The configuration as the other rooms see it: plain typed values, valid as they stand.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::faults::Faults;
use super::kind::Value;

/// One node's whole configuration; its `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    pub cluster: Cluster,
    pub node: Node,
    pub postgres: Postgres,
    pub pgbouncer: PgBouncer,
    pub s3: S3,
    pub archive: Archive,
    pub retention: Retention,
    pub dump: Dump,
    pub restore_test: RestoreTest,
    pub wait: Wait,
    pub redis: Redis,
    pub http: Http,
    pub schedule: Schedule,
    /// Empty but in a daemon that serves with wrong values.
    pub faults: Faults,
}

#[derive(Debug, Clone)]
pub struct Cluster {
    /// Lowercase letters, digits and inner dashes.
    pub name: String,
    /// The AWS account; `None` when nothing names it.
    pub account: Option<String>,
    /// Each as `host:port`; empty where nothing names them.
    pub peers: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub hostname: String,
    pub state_directory: PathBuf,
}

/// This node's own server, never the proxy before it.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<SecretString>,
    pub database: String,
    pub data_directory: PathBuf,
    pub bin_directory: PathBuf,
    /// For the whole of connecting, login included.
    pub connect_timeout: Duration,
    /// libpq's.
    pub sslmode: String,
    /// The word `system`, or a file; `None` is libpq's own in the home directory.
    pub sslrootcert: Option<PathBuf>,
}

/// This node's own PgBouncer, asked through its console.
#[derive(Debug, Clone)]
pub struct PgBouncer {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    pub port: u16,
    /// One of PgBouncer's `admin_users` or `stats_users`, or `pgbouncer` over the socket.
    pub user: String,
    pub password: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct S3 {
    pub region: Option<String>,
    /// `http://` or `https://`; `None` is AWS's own.
    pub endpoint: Option<String>,
    pub force_path_style: bool,
    /// Set exactly when `secret_access_key` is; `None` leaves it to the AWS chain.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<SecretString>,
    /// Belongs to the key pair; `None` without one.
    pub session_token: Option<SecretString>,
    /// PEM; `None` trusts what the system trusts.
    pub ca_cert_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Archive {
    /// A program's name on PATH, or a path.
    pub program: String,
    /// `s3://bucket/prefix`, in which `{account}`, `{cluster}` and `{major}` wait to be filled in.
    ///
    /// The prefix is not empty, may end in a slash, and lies outside of `xdb/`.
    pub repository: String,
    /// As WAL-G spells it: `lz4`, `zstd`, `lzma`, `brotli` or `none`.
    pub compression: String,
    pub push_timeout: Duration,
    /// Segments that the daemon stores side by side.
    pub upload_concurrency: u32,
    pub fetch_timeout: Duration,
    pub backup_timeout: Duration,
    /// From this age of the oldest commit that the bucket does not hold on, it is a warning.
    pub rpo_objective: Duration,
    pub rpo_critical: Duration,
    /// The daemon may end a segment early.
    pub switch_wal: bool,
    /// Zero makes every backup full.
    pub delta_max_steps: u32,
    /// Further environment for the WAL-G program, by name; some of it is secret.
    pub settings: BTreeMap<String, SecretString>,
}

/// What is kept of the base backups and the WAL.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Days; `None` where nothing is to be deleted.
    pub window_days: Option<u32>,
    /// Full backups.
    pub fulls: u32,
    /// Days, weeks, months and years of which the last full backup is kept on.
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

#[derive(Debug, Clone)]
pub struct Dump {
    /// A template like [`Archive::repository`].
    pub repository: String,
    /// For one dump set: every database, and the globals.
    pub timeout: Duration,
    /// For each table.
    pub lock_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct RestoreTest {
    pub directory: PathBuf,
    pub timeout: Duration,
    pub on_primary: bool,
    /// MiB.
    pub max_lag_mib: u32,
    /// MiB a second.
    pub network_limit_mib: Option<u32>,
    pub rto_objective: Option<Duration>,
    pub rpo_objective: Option<Duration>,
    /// `start`, `check` or `full`.
    pub level: String,
    /// Need not be there.
    pub assertions: PathBuf,
}

/// The way to the database as an application takes it.
#[derive(Debug, Clone)]
pub struct Wait {
    pub host: String,
    /// Leads to the primary.
    pub port: u16,
    pub replica_port: u16,
    pub user: String,
    pub database: String,
    pub password_file: Option<PathBuf>,
    /// One of libpq's six.
    pub sslmode: String,
    /// PEM.
    pub sslrootcert: Option<PathBuf>,
    /// Zero makes one attempt.
    pub timeout: Duration,
    /// Of one attempt, the query included.
    pub attempt_timeout: Duration,
    /// How long the same refusal must last to be final.
    pub fail_fast_after: Duration,
}

/// The management node's Redis: what it holds can be lost at any time.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://host`, `rediss://host` with TLS, with a port and a database's number or without.
    pub url: String,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// PEM certificates; `None`, those of the system.
    pub ca_cert_file: Option<PathBuf>,
    /// For connecting, login included, and for each answer.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Http {
    /// An address and a port.
    pub listen: String,
}

/// When the daemon does what: cron patterns or durations, as text.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub base_backup: String,
    pub dump: String,
    pub restore_test: String,
    pub dump_test: String,
    pub prune: String,
    pub checks: String,
}

/// Parsed values by dotted name, of every key that is set or has a default.
pub(super) struct Values(pub BTreeMap<&'static str, Value>);

impl Config {
    /// The key table guarantees that what is asked for here is there and of its kind; a test loads
    /// the configuration both empty and full.
    pub(super) fn new(values: &Values, settings: BTreeMap<String, SecretString>) -> Self {
        Self {
            cluster: Cluster {
                name: values.text("cluster.name"),
                account: values.text_if_set("cluster.account"),
                peers: values.hosts_if_set("cluster.peers"),
            },
            node: Node {
                hostname: values.text("node.hostname"),
                state_directory: values.path("node.state_directory"),
            },
            postgres: Postgres {
                host: values.text("postgres.host"),
                port: values.port("postgres.port"),
                user: values.text("postgres.user"),
                password: values.secret_if_set("postgres.password"),
                database: values.text("postgres.database"),
                data_directory: values.path("postgres.data_directory"),
                bin_directory: values.path("postgres.bin_directory"),
                connect_timeout: values.duration("postgres.connect_timeout"),
                sslmode: values.text("postgres.sslmode"),
                sslrootcert: values.path_if_set("postgres.sslrootcert"),
            },
            pgbouncer: PgBouncer {
                host: values.text("pgbouncer.host"),
                port: values.port("pgbouncer.port"),
                user: values.text("pgbouncer.user"),
                password: values.secret_if_set("pgbouncer.password"),
            },
            s3: S3 {
                region: values.text_if_set("s3.region"),
                endpoint: values.text_if_set("s3.endpoint"),
                force_path_style: values.switch("s3.force_path_style"),
                access_key_id: values.text_if_set("s3.access_key_id"),
                secret_access_key: values.secret_if_set("s3.secret_access_key"),
                session_token: values.secret_if_set("s3.session_token"),
                ca_cert_file: values.path_if_set("s3.ca_cert_file"),
            },
            archive: Archive {
                program: values.text("archive.program"),
                repository: values.text("archive.repository"),
                compression: values.text("archive.compression"),
                push_timeout: values.duration("archive.push_timeout"),
                upload_concurrency: values.count("archive.upload_concurrency"),
                fetch_timeout: values.duration("archive.fetch_timeout"),
                backup_timeout: values.duration("archive.backup_timeout"),
                rpo_objective: values.duration("archive.rpo_objective"),
                rpo_critical: values
                    .duration_if_set("archive.rpo_critical")
                    .unwrap_or_else(|| values.duration("archive.rpo_objective").saturating_mul(3)),
                switch_wal: values.switch("archive.switch_wal"),
                delta_max_steps: values.count("archive.delta_max_steps"),
                settings,
            },
            retention: Retention {
                window_days: values.count_if_set("retention.window_days"),
                fulls: values.count("retention.fulls"),
                daily: values.count("retention.daily"),
                weekly: values.count("retention.weekly"),
                monthly: values.count("retention.monthly"),
                yearly: values.count("retention.yearly"),
            },
            dump: Dump {
                repository: values.text("dump.repository"),
                timeout: values.duration("dump.timeout"),
                lock_timeout: values.duration("dump.lock_timeout"),
            },
            restore_test: RestoreTest {
                directory: values.path("restore_test.directory"),
                timeout: values.duration("restore_test.timeout"),
                on_primary: values.switch("restore_test.on_primary"),
                max_lag_mib: values.count("restore_test.max_lag_mib"),
                network_limit_mib: values.count_if_set("restore_test.network_limit_mib"),
                rto_objective: values.duration_if_set("restore_test.rto_objective"),
                rpo_objective: values.duration_if_set("restore_test.rpo_objective"),
                level: values.text("restore_test.level"),
                assertions: values.path("restore_test.assertions"),
            },
            wait: Wait {
                host: values.text("wait.host"),
                port: values.port("wait.port"),
                replica_port: values.port("wait.replica_port"),
                user: values.text("wait.user"),
                database: values.text("wait.database"),
                password_file: values.path_if_set("wait.password_file"),
                sslmode: values.text("wait.sslmode"),
                sslrootcert: values.path_if_set("wait.sslrootcert"),
                timeout: values.duration("wait.timeout"),
                attempt_timeout: values.duration("wait.attempt_timeout"),
                fail_fast_after: values.duration("wait.fail_fast_after"),
            },
            redis: Redis {
                url: values.text("redis.url"),
                user: values.text_if_set("redis.user"),
                password: values.secret_if_set("redis.password"),
                ca_cert_file: values.path_if_set("redis.ca_cert_file"),
                timeout: values.duration("redis.timeout"),
            },
            http: Http {
                listen: values.text("http.listen"),
            },
            schedule: Schedule {
                base_backup: values.text("schedule.base_backup"),
                dump: values.text("schedule.dump"),
                restore_test: values.text("schedule.restore_test"),
                dump_test: values.text("schedule.dump_test"),
                prune: values.text("schedule.prune"),
                checks: values.text("schedule.checks"),
            },
            faults: Faults::default(),
        }
    }
}

impl Values {
    fn text(&self, key: &str) -> String {
        self.text_if_set(key)
            .unwrap_or_else(|| not_in_table(key, "text with a default"))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.path_if_set(key)
            .unwrap_or_else(|| not_in_table(key, "a path with a default"))
    }

    fn text_if_set(&self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            Value::Text(text) => Some(text.clone()),
            _ => not_in_table(key, "kept as text"),
        }
    }

    /// The port of a host without one is xdb's own.
    fn hosts_if_set(&self, key: &str) -> Vec<String> {
        let text = self.text_if_set(key).unwrap_or_default();
        let hosts = text
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty());
        hosts
            .map(|host| match host.rsplit_once(':') {
                Some((_, port)) if !port.ends_with(']') => host.to_owned(),
                _ => format!("{host}:8009"),
            })
            .collect()
    }

    fn path_if_set(&self, key: &str) -> Option<PathBuf> {
        match self.0.get(key)? {
            Value::Path(path) => Some(path.clone()),
            _ => not_in_table(key, "a path"),
        }
    }

    fn secret_if_set(&self, key: &str) -> Option<SecretString> {
        match self.0.get(key)? {
            Value::Secret(secret) => Some(secret.clone()),
            _ => not_in_table(key, "a secret"),
        }
    }

    fn port(&self, key: &str) -> u16 {
        match self.0.get(key) {
            Some(Value::Port(port)) => *port,
            _ => not_in_table(key, "a port with a default"),
        }
    }

    fn count(&self, key: &str) -> u32 {
        self.count_if_set(key)
            .unwrap_or_else(|| not_in_table(key, "a count with a default"))
    }

    fn count_if_set(&self, key: &str) -> Option<u32> {
        match self.0.get(key)? {
            Value::Count(count) => Some(*count),
            _ => not_in_table(key, "a count"),
        }
    }

    fn duration(&self, key: &str) -> Duration {
        self.duration_if_set(key)
            .unwrap_or_else(|| not_in_table(key, "a duration with a default"))
    }

    fn duration_if_set(&self, key: &str) -> Option<Duration> {
        match self.0.get(key)? {
            Value::Duration(duration) => Some(*duration),
            _ => not_in_table(key, "a duration"),
        }
    }

    fn switch(&self, key: &str) -> bool {
        match self.0.get(key) {
            Some(Value::Switch(switch)) => *switch,
            _ => not_in_table(key, "a switch with a default"),
        }
    }
}

fn not_in_table(key: &str, what: &str) -> ! {
    unreachable!("the key table says otherwise than {key} being {what}")
}
