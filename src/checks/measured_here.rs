//! Takes the numbers that xdb measures itself and whose limits a file sets.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Instant;

use jiff::Timestamp;
use tokio::time::timeout;

use super::certificate::CertificateFile;
use super::definition::BuiltInMeasure;
use super::round::Round;
use super::sample::{STATEMENT, Sampler};
use super::server::ask;
use super::trace::Answer;
use super::values::Sampled;
use super::{SampleError, anomaly, certificate, clock, disk};
use crate::model::Run;
use crate::process;
use crate::store::{Reader, StoreError};

/// Runs of one job that are looked through for those of one kind.
const RUNS: u32 = 60;

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
                let files = self.certificate_files(round).await?;
                certificate::left(&files, Timestamp::now())
            }
            BuiltInMeasure::Anomaly { job } => anomaly::factors(&self.last_runs(job).await?),
            BuiltInMeasure::ClockSkew => match &round.peers {
                Some(peers) => clock::skews(peers),
                None => return Ok(None),
            },
        }))
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

    /// The files that PostgreSQL, PgBouncer and xdb itself use at the moment.
    async fn certificate_files(&self, round: &Round) -> Result<Vec<CertificateFile>, SampleError> {
        let config = &self.loaded.config;
        let mut files = Vec::new();
        let mut file = |of: &str, path: PathBuf, is_authorities| {
            files.push(CertificateFile {
                of: of.to_owned(),
                path,
                is_authorities,
            });
        };
        let data = &config.postgres.data_directory;
        for (name, path) in self.postgres_files(round).await? {
            file(
                &format!("PostgreSQL {name}"),
                data.join(path),
                name == "ssl_ca_file",
            );
        }
        let own = [
            ("postgres.sslrootcert", &config.postgres.sslrootcert),
            ("s3.ca_cert_file", &config.s3.ca_cert_file),
            ("redis.ca_cert_file", &config.redis.ca_cert_file),
        ];
        for (name, path) in own {
            // "system" is no file.
            if let Some(path) = path.as_ref().filter(|path| path.is_absolute()) {
                file(name, path.clone(), true);
            }
        }
        files.extend(self.pgbouncer_certificates(round).await?);
        Ok(files)
    }

    /// While PgBouncer is down, the files that it named before count.
    ///
    /// # Errors
    /// When it has named none yet.
    async fn pgbouncer_certificates(
        &self,
        round: &Round,
    ) -> Result<Vec<CertificateFile>, SampleError> {
        let answer = round.show(&self.loaded.config.pgbouncer, "CONFIG").await;
        let mut known = self
            .pgbouncer_certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (answer, &*known) {
            (Ok(answer), _) => {
                let files = pgbouncer_files(&answer);
                *known = Some(files.clone());
                Ok(files)
            }
            (Err(_), Some(files)) => Ok(files.clone()),
            (Err(error), None) => Err(error),
        }
    }

    async fn postgres_files(&self, round: &Round) -> Result<Vec<(String, PathBuf)>, SampleError> {
        const QUERY: &str = "
            SELECT name, setting FROM pg_catalog.pg_settings
             WHERE name IN ('ssl_cert_file', 'ssl_ca_file') AND setting <> ''
               AND pg_catalog.current_setting('ssl') = 'on'";
        self.server_facts(round).await?;
        let client = self.postgres.get().await?;
        let answer = ask(&client, QUERY).await?;
        let file = |row: &Vec<Option<String>>| {
            let name = answer.cell(row, "name")?.to_owned();
            Some((name, Path::new(answer.cell(row, "setting")?).to_owned()))
        };
        Ok(answer.rows.iter().filter_map(file).collect())
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
