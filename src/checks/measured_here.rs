//! Takes the numbers that xdb measures itself and whose limits a file sets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::time::timeout;

use super::certificate::CertificateFile;
use super::definition::BuiltInMeasure;
use super::round::{Nodes, Round};
use super::sample::{STATEMENT, Sampler};
use super::server::ask;
use super::trace::Answer;
use super::values::Sampled;
use super::{SampleError, anomaly, certificate, clock, disk, haproxy, nodes_alike};
use crate::cluster::ServerSettings;
use crate::log;
use crate::model::Run;
use crate::process;
use crate::store::{Reader, StoreError};

/// Runs of one job that are looked through for those of one kind.
const RUNS: u32 = 60;

/// What is set otherwise than by default, without what belongs to one node. A text may hold a secret: its hash is enough to
/// compare.
const SETTINGS: &str = "
    SELECT name, CASE WHEN vartype <> 'string' OR name IN ('TimeZone', 'log_timezone', 'shared_preload_libraries', 'DateStyle',
                               'default_text_search_config', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time')
                      THEN pg_catalog.concat_ws(' ', setting, unit)
                      ELSE 'set (md5 ' || pg_catalog.substr(pg_catalog.md5(setting), 1, 8) || ')' END AS value
      FROM pg_catalog.pg_settings
     WHERE setting IS DISTINCT FROM boot_val AND context <> 'internal'
       AND source NOT IN ('client', 'session', 'user', 'database', 'database user', 'override')
       AND name !~ '^(primary_|recovery_|restore_|archive_cleanup|ssl_|log_(directory|filename)|unix_socket_)'
       AND name NOT IN ('listen_addresses', 'port', 'cluster_name', 'external_pid_file', 'data_directory', 'config_file',
                        'hba_file', 'ident_file', 'synchronous_standby_names', 'hot_standby_feedback', 'promote_trigger_file')";

/// The C library orders text: another one after a failover finds indexes out of order.
const VERSIONS: &str = "
    SELECT 'PostgreSQL' AS name, pg_catalog.current_setting('server_version') AS value
    UNION ALL
    SELECT 'collations', pg_catalog.max(pg_catalog.pg_collation_actual_version(oid))
      FROM pg_catalog.pg_collation WHERE collprovider = 'c'";

impl Sampler {
    /// `None` where there is nothing to judge yet.
    pub(super) async fn measure(
        &self,
        source: &BuiltInMeasure,
        round: &Round,
    ) -> Result<Option<Vec<Sampled>>, SampleError> {
        Ok(Some(match source {
            BuiltInMeasure::Disk => disk::used(&self.volumes().await?),
            BuiltInMeasure::DiskForecast => {
                let volumes = self.volumes().await?;
                let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
                let values = growth.until_full(&volumes, Instant::now());
                return Ok((!values.is_empty()).then_some(values));
            }
            BuiltInMeasure::Certificate => {
                let (files, mut unknown) = self.certificate_files(round).await;
                unknown.extend(certificate::left(&files, Timestamp::now()));
                unknown
            }
            BuiltInMeasure::Anomaly { job } => anomaly::factors(&self.last_runs(job).await?),
            BuiltInMeasure::PgBouncerVersion => {
                let shown = round.show(&self.loaded.config.pgbouncer, "VERSION").await;
                let mut watch = self
                    .pgbouncer_version
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                match (&shown, &watch.current) {
                    (Ok(answer), _) => {
                        let version = answer.first("version").unwrap_or("of no known version");
                        watch.saw(version, Instant::now());
                    }
                    // While PgBouncer is down it keeps the version that it had.
                    (Err(_), Some(_)) => {}
                    (Err(_), None) => return shown.map(|_| None),
                }
                watch.value(Instant::now()).into_iter().collect()
            }
            of_nodes => {
                let Some(nodes) = &round.nodes else {
                    return Ok(None);
                };
                match of_nodes {
                    BuiltInMeasure::HaproxyRoutes => return self.haproxy_routes(nodes).await,
                    BuiltInMeasure::SettingsDrift => nodes_alike::settings(nodes),
                    BuiltInMeasure::VersionDrift => nodes_alike::versions(nodes),
                    BuiltInMeasure::Timeline => nodes_alike::timeline(nodes, Timestamp::now()),
                    _ => clock::skews(&nodes.peers),
                }
            }
        }))
    }

    /// The versions and the settings of this node's servers, for the other nodes to compare with theirs.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub(crate) async fn server_settings(&self) -> Result<ServerSettings, SampleError> {
        let client = self.postgres.get().await?;
        let pairs = |answer: &Answer| {
            let pair = |row: &Vec<Option<String>>| {
                let name = answer.cell(row, "name")?.to_owned();
                Some((name, answer.cell(row, "value")?.to_owned()))
            };
            answer.rows.iter().filter_map(pair).collect()
        };
        let settings = pairs(&ask(&client, SETTINGS).await?);
        let mut versions: BTreeMap<String, String> = pairs(&ask(&client, VERSIONS).await?);
        let xdb = env!("CARGO_PKG_VERSION").to_owned();
        versions.insert("xdb".to_owned(), xdb);
        let watch = self
            .pgbouncer_version
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = &watch.current {
            let version = version.trim_start_matches("PgBouncer ").to_owned();
            versions.insert("PgBouncer".to_owned(), version);
        }
        Ok(ServerSettings { versions, settings })
    }

    /// Without haproxy.stats_url nothing is compared.
    async fn haproxy_routes(&self, nodes: &Nodes) -> Result<Option<Vec<Sampled>>, SampleError> {
        let config = &self.loaded.config;
        let Some(stats_url) = &config.haproxy.stats_url else {
            return Ok(Some(Vec::new()));
        };
        let csv = haproxy::read(stats_url).await?;
        let seen_from = (config.node.hostname.as_str(), nodes);
        let now = Timestamp::now();
        haproxy::judge_routes(&csv, &config.haproxy, seen_from, now).map(Some)
    }

    async fn volumes(&self) -> Result<Vec<disk::Volume>, SampleError> {
        let config = &self.loaded.config;
        let data = &config.postgres.data_directory;
        let directories = [
            ("data", data.clone()),
            ("WAL", data.join("pg_wal")),
            ("scratch", config.restore_test.directory.clone()),
            ("state", config.node.state_directory.clone()),
        ];
        self.blocking(move || disk::read_volumes(&directories))
            .await
    }

    /// What this node knows of the job's runs; newest first.
    async fn last_runs(&self, job: &str) -> Result<Vec<Run>, SampleError> {
        let directory = self.loaded.config.node.state_directory.clone();
        let job = job.to_owned();
        let read = move || -> Result<Vec<Run>, StoreError> {
            let reader = Reader::open(&directory)?;
            let runs = reader.map(|it| it.reading().runs(Some(&job), RUNS));
            Ok(runs.transpose()?.unwrap_or_default())
        };
        Ok(self.blocking(read).await??)
    }

    /// On a thread of its own, one at a time: each look at a volume that hangs would leave another behind.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SampleError> {
        let secs = STATEMENT.as_secs();
        let late = |_| SampleError::Deadline { secs };
        let turn = timeout(STATEMENT, self.history.clone().lock_owned()).await;
        let turn = turn.map_err(late)?;
        let work = move || {
            let _turn = turn;
            work()
        };
        timeout(STATEMENT, process::on_a_thread(work))
            .await
            .map_err(late)
    }

    /// The files that PostgreSQL, PgBouncer and xdb itself use at the moment, and which of them could not say theirs.
    async fn certificate_files(&self, round: &Round) -> (Vec<CertificateFile>, Vec<Sampled>) {
        let config = &self.loaded.config;
        let (mut files, mut unknown) = (Vec::new(), Vec::new());
        let pgbouncer = round.show(&config.pgbouncer, "CONFIG").await;
        let pgbouncer = pgbouncer.map(|answer| pgbouncer_files(&answer));
        let known = &self.known_certificates;
        for (of, asked) in [
            ("PostgreSQL", self.postgres_files(round).await),
            ("PgBouncer", pgbouncer),
        ] {
            match known_files(known, of, asked) {
                Ok(of_server) => files.extend(of_server),
                Err(error) => unknown.push(Sampled {
                    object: Some(of.to_owned()),
                    number: Err(log::chain(&error)),
                    detail: None,
                }),
            }
        }
        let own = [
            ("postgres.sslrootcert", &config.postgres.sslrootcert),
            ("s3.ca_cert_file", &config.s3.ca_cert_file),
            ("redis.ca_cert_file", &config.redis.ca_cert_file),
        ];
        for (name, path) in own {
            // "system" is no file.
            if let Some(path) = path.as_ref().filter(|path| path.is_absolute()) {
                files.push(CertificateFile {
                    of: name.to_owned(),
                    path: path.clone(),
                    is_authorities: true,
                });
            }
        }
        (files, unknown)
    }

    async fn postgres_files(&self, round: &Round) -> Result<Vec<CertificateFile>, SampleError> {
        const QUERY: &str = "
            SELECT name, setting FROM pg_catalog.pg_settings
             WHERE name IN ('ssl_cert_file', 'ssl_ca_file') AND setting <> ''
               AND pg_catalog.current_setting('ssl') = 'on'";
        self.server_facts(round).await?;
        let client = self.postgres.get().await?;
        let answer = ask(&client, QUERY).await?;
        let data = &self.loaded.config.postgres.data_directory;
        let file = |row: &Vec<Option<String>>| {
            let name = answer.cell(row, "name")?;
            Some(CertificateFile {
                of: format!("PostgreSQL {name}"),
                path: data.join(answer.cell(row, "setting")?),
                is_authorities: name == "ssl_ca_file",
            })
        };
        Ok(answer.rows.iter().filter_map(file).collect())
    }
}

/// While a server is down, the files that it named before count.
///
/// # Errors
/// When it has named none yet.
fn known_files(
    known: &StdMutex<BTreeMap<&'static str, Vec<CertificateFile>>>,
    of: &'static str,
    asked: Result<Vec<CertificateFile>, SampleError>,
) -> Result<Vec<CertificateFile>, SampleError> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    match asked {
        Ok(files) => {
            known.insert(of, files.clone());
            Ok(files)
        }
        Err(error) => known.get(of).cloned().ok_or(error),
    }
}

/// Those that `SHOW CONFIG` names, where TLS is on.
fn pgbouncer_files(config: &Answer) -> Vec<CertificateFile> {
    let setting = |wanted: &str| {
        let mut rows = config.rows.iter();
        let row = rows.find(|row| config.cell(row, "key") == Some(wanted))?;
        config.cell(row, "value").filter(|value| !value.is_empty())
    };
    let mut files = Vec::new();
    for side in ["client", "server"] {
        let mode = setting(&format!("{side}_tls_sslmode"));
        if mode.is_none_or(|mode| mode == "disable") {
            continue;
        }
        for kind in ["cert_file", "ca_file"] {
            let name = format!("{side}_tls_{kind}");
            if let Some(path) = setting(&name) {
                files.push(CertificateFile {
                    of: format!("PgBouncer {name}"),
                    path: PathBuf::from(path),
                    is_authorities: kind == "ca_file",
                });
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_hides_its_own_files_only_and_none_that_it_has_named() {
        let known = StdMutex::default();
        let files = vec![CertificateFile {
            of: "PostgreSQL ssl_cert_file".to_owned(),
            path: PathBuf::from("/server.crt"),
            is_authorities: false,
        }];
        let down = || Err(SampleError::NoValue);
        assert!(known_files(&known, "PostgreSQL", down()).is_err());
        let asked = known_files(&known, "PostgreSQL", Ok(files.clone()));
        assert_eq!(asked.unwrap(), files);
        assert_eq!(known_files(&known, "PostgreSQL", down()).unwrap(), files);
        assert!(known_files(&known, "PgBouncer", down()).is_err());
    }
}
