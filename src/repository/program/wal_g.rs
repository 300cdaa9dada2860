//! `wal-g` 3.x.

use std::ffi::OsString;
use std::path::Path;

use super::ProgramSettings;

pub(super) fn backup_push(data_directory: &Path, full: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["backup-push".into(), data_directory.into()];
    if full {
        arguments.push("--full".into());
    }
    arguments
}

/// It links to the tablespaces of this list, in place of the backup's own; what stands below a link that is not there it writes
/// to directories. The prefix is where links would be made: wal-g wants one named.
pub(super) const IN_PLACE: (&str, &str) = (
    "--restore-spec",
    r#"{"base_prefix": "/", "tablespaces": []}"#,
);

/// Its whole log, on standard output. Before 3.0.5 it does not know the first, and all is on standard error.
pub(super) fn deletion_settings() -> Vec<(&'static str, &'static str)> {
    vec![
        ("WALG_LOG_DESTINATION", "/dev/stdout"),
        ("WALG_LOG_LEVEL", "NORMAL"),
    ]
}

/// A line of its log: before 3.0.9 in other words.
pub(super) fn listed_for_deletion(line: &str) -> Option<&str> {
    let wordings = [
        ("Object marked for deletion: ", " storage="),
        ("\twill be deleted: ", ", from storage: "),
    ];
    wordings.into_iter().find_map(|(before, storage)| {
        let (_, named) = line.split_once(before)?;
        Some(
            named
                .rsplit_once(storage)
                .map_or(named, |(object, _)| object),
        )
    })
}

pub(super) fn own_settings(settings: &ProgramSettings) -> Vec<(&'static str, String)> {
    // Without it, pg_backup_stop waits for ever while archiving is broken (wal-g#50).
    // xdb itself watches the archiver meanwhile, and gives up sooner.
    let timeout = settings.archive.push_timeout * 10;
    let mut own = vec![
        (
            "WALG_STOP_BACKUP_TIMEOUT",
            format!("{}s", timeout.as_secs()),
        ),
        // As walrus names its sessions itself.
        ("PGAPPNAME", "wal-g".to_owned()),
    ];
    if let Some(path) = &settings.s3.ca_cert_file {
        own.push(("WALG_S3_CA_CERT_FILE", path.display().to_string()));
    }
    own.extend(server_side_encryption(settings));
    own
}

/// None where `archive.settings` says it.
fn server_side_encryption(settings: &ProgramSettings) -> Vec<(&'static str, String)> {
    let mut named = settings.archive.settings.keys();
    if named.any(|name| name.contains("S3_SSE")) {
        return Vec::new();
    }
    let own = [
        ("WALG_S3_SSE", &settings.s3.server_side_encryption),
        ("WALG_S3_SSE_KMS_ID", &settings.s3.kms_key_id),
    ];
    let set = own
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)));
    set.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{self, ConfigFile, Sources};

    fn settings(text: &str) -> ProgramSettings {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources {
            file: ConfigFile::Named(file.path().to_owned()),
            environment_file: PathBuf::from("/nowhere"),
            process: Default::default(),
            flags: Vec::new(),
        };
        let config = config::load(&sources).unwrap().config;
        ProgramSettings::from(&config.repository_settings())
    }

    #[test]
    fn wal_g_asks_for_the_same_encryption_as_xdb_unless_its_own_settings_name_one() {
        let kms = "[s3]\nserver_side_encryption = 'aws:kms'\nkms_key_id = 'k'\n";
        let own = |text: &str| server_side_encryption(&settings(text));
        assert_eq!(own(""), []);
        let method = |text: &str| ("WALG_S3_SSE", text.to_owned());
        let sse_s3 = own("[s3]\nserver_side_encryption = 'AES256'\n");
        assert_eq!(sse_s3, [method("AES256")]);
        let key = ("WALG_S3_SSE_KMS_ID", "k".to_owned());
        assert_eq!(own(kms), [method("aws:kms"), key]);
        for name in ["WALG_S3_SSE", "S3_SSE_C"] {
            let named = format!("{kms}[archive.settings]\n{name} = 'x'\n");
            assert_eq!(own(&named), [], "{name}");
        }
    }
}
