//! The environment of a WAL-G program: all of its settings, and nothing from elsewhere.

use std::path::Path;

use secrecy::ExposeSecret;
use tokio::process::Command;

use super::{Program, ProgramSettings};
use crate::model::{ArchiveFile, SegmentSize};
use crate::postgres;
use crate::process;
use crate::repository::RepositoryError;
use crate::storage::Location;

/// The size of WAL segments in MiB, by which both programs reckon names and LSNs; 16 where nothing tells it.
pub(crate) const SEGMENT_SIZE: &str = "WALG_PG_WAL_SIZE";

impl ProgramSettings {
    /// Whether the program encrypts what it stores: then xdb cannot read it, and what does not unpack is no damage.
    pub fn encrypts(&self) -> bool {
        const KEYS: [&str; 4] = ["WALG_LIBSODIUM_", "WALG_PGP_", "WALG_GPG_", "WALG_CSE_"];
        let mut names = self.archive.settings.keys();
        names.any(|name| KEYS.iter().any(|key| name.starts_with(key)))
    }

    /// Prepares the program to work on the repository at `location` for the server in `data_directory`.
    ///
    /// A caller that knows the size of the segments better than the files there calls [`set_segment_size`], too.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn command(
        &self,
        location: &Location,
        data_directory: &Path,
    ) -> Result<(Program, Command), RepositoryError> {
        let (program, path) = self.find()?;
        let mut command = process::command(path);
        add_ambient_aws(&mut command);
        for (name, value) in &self.archive.settings {
            command.env(name, value.expose_secret());
        }
        if let Some(size) = segment_size_in(&data_directory.join("pg_wal")) {
            set_segment_size(&mut command, size);
        }
        let (archive, s3, server) = (&self.archive, &self.s3, &self.postgres);
        command
            .env("WALG_S3_PREFIX", location.to_string())
            .env("WALG_COMPRESSION_METHOD", &archive.compression)
            .env("WALG_DELTA_MAX_STEPS", archive.delta_max_steps.to_string())
            // Both programs replace a stored segment by other content unless told not to.
            .env("WALG_PREVENT_WAL_OVERWRITE", "true")
            .envs(program.own_settings(self))
            .env("AWS_S3_FORCE_PATH_STYLE", s3.force_path_style.to_string())
            .env("PGDATA", data_directory)
            .env("PGHOST", &server.host)
            .env("PGPORT", server.port.to_string())
            .env("PGUSER", &server.user)
            .env("PGDATABASE", &server.database)
            // walrus reads none.
            .env("PGOPTIONS", postgres::program_options());
        let plain = [
            ("AWS_REGION", &s3.region),
            ("AWS_ENDPOINT", &s3.endpoint),
            ("AWS_ACCESS_KEY_ID", &s3.access_key_id),
        ];
        for (name, value) in plain
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        {
            command.env(name, value);
        }
        // The programs' own default is the same.
        if server.sslmode != "prefer" {
            command.env("PGSSLMODE", &server.sslmode);
        }
        if let Some(roots) = &server.sslrootcert {
            command.env("PGSSLROOTCERT", roots);
        }
        let secret = [
            ("AWS_SECRET_ACCESS_KEY", &s3.secret_access_key),
            ("AWS_SESSION_TOKEN", &s3.session_token),
        ];
        for (name, value) in secret
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        {
            command.env(name, value.expose_secret());
        }
        Ok((program, command))
    }
}

/// Passes on what the usual AWS credential chain reads: profile, container role, metadata service.
///
/// Keys themselves come from the configuration, which has read their environment names too.
pub(crate) fn add_ambient_aws(command: &mut Command) {
    let keys = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ];
    let ambient = std::env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| name.starts_with("AWS_") && !keys.contains(&name))
    });
    command.envs(ambient);
}

/// Tells the program how large the WAL segments are.
pub(crate) fn set_segment_size(command: &mut Command, size: SegmentSize) {
    command.env(SEGMENT_SIZE, size.mebibytes().to_string());
}

/// The size of the segments in the directory `pg_wal`, which are files of that size; `None` while there is none.
pub(crate) fn segment_size_in(pg_wal: &Path) -> Option<SegmentSize> {
    let mut files = std::fs::read_dir(pg_wal).ok()?.flatten();
    files.find_map(|file| {
        let name = file.file_name();
        let is_segment = ArchiveFile::of(name.to_str()?) == Some(ArchiveFile::Segment);
        // Staged segments are links.
        let bytes = is_segment.then(|| std::fs::metadata(file.path()))?.ok()?;
        SegmentSize::new(bytes.len()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_segments_is_that_of_a_whole_one() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path();
        assert_eq!(segment_size_in(&wal.join("none")), None);
        for (name, bytes) in [
            ("00000002.history", 1 << 20),
            ("RECOVERYXLOG", 1 << 20),
            // Cut by hand.
            ("000000010000000000000001", 100),
        ] {
            std::fs::write(wal.join(name), vec![0; bytes]).unwrap();
            assert_eq!(segment_size_in(wal), None, "{name}");
        }
        std::fs::write(wal.join("000000010000000000000002"), vec![0; 1 << 20]).unwrap();
        assert_eq!(segment_size_in(wal).map(SegmentSize::bytes), Some(1 << 20));
    }
}
