//! `archive.settings`: further settings that go to the WAL-G program as they are.
//!
//! A setting that xdb sets itself is refused here, so that no two places can disagree.

use super::error::Problem;
use super::keys::SETTINGS;
use super::source::SettingSource;

/// Settings of WAL-G that begin with neither `WALG_` nor `S3_`.
const OTHERS: &[&str] = &[
    "TOTAL_BG_UPLOADED_LIMIT",
    "UPLOAD_CONCURRENCY",
    "PG_READY_RENAME",
];

/// Variables that xdb sets itself, and what to do instead.
const OWN: &[(&str, &str)] = &[
    ("WALG_S3_PREFIX", "set archive.repository"),
    ("WALG_STORAGE_PREFIX", "set archive.repository"),
    // Another kind of storage would win over S3, or take the backups elsewhere unseen.
    (
        "WALG_FILE_PREFIX",
        "set archive.repository; xdb's repositories are in S3",
    ),
    (
        "WALG_GS_PREFIX",
        "set archive.repository; xdb's repositories are in S3",
    ),
    (
        "WALG_AZ_PREFIX",
        "set archive.repository; xdb's repositories are in S3",
    ),
    (
        "WALG_OSS_PREFIX",
        "set archive.repository; xdb's repositories are in S3",
    ),
    (
        "WALG_SSH_PREFIX",
        "set archive.repository; xdb's repositories are in S3",
    ),
    (
        "WALG_SWIFT_PREFIX",
        "set archive.repository; xdb's repositories are in S3",
    ),
    ("WALG_COMPRESSION_METHOD", "set archive.compression"),
    ("WALG_DELTA_MAX_STEPS", "set archive.delta_max_steps"),
    ("WALG_STOP_BACKUP_TIMEOUT", "set archive.backup_timeout"),
    (
        "WALG_PREVENT_WAL_OVERWRITE",
        "leave it out: it is always true",
    ),
    ("WALG_S3_CA_CERT_FILE", "set s3.ca_cert_file"),
    ("S3_CA_CERT_FILE", "set s3.ca_cert_file"),
    ("AWS_REGION", "set s3.region"),
    ("AWS_ENDPOINT", "set s3.endpoint"),
    ("AWS_S3_FORCE_PATH_STYLE", "set s3.force_path_style"),
    ("AWS_ACCESS_KEY_ID", "set s3.access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "set s3.secret_access_key"),
    ("AWS_SESSION_TOKEN", "set s3.session_token"),
    ("PGHOST", "set postgres.host"),
    ("PGPORT", "set postgres.port"),
    ("PGUSER", "set postgres.user"),
    ("PGPASSWORD", "set postgres.password"),
    ("PGDATABASE", "set postgres.database"),
    ("PGDATA", "set postgres.data_directory"),
];

/// Says why `name`, which comes from `source`, is no further setting; `None` when it is one.
pub(super) fn judge_name(source: &SettingSource, name: &str) -> Option<Problem> {
    let key = format!("{SETTINGS}{name}");
    if let Some((_, instead)) = OWN.iter().find(|(own, _)| *own == name) {
        let message = format!("{source}: {key} is not free: xdb itself tells the program");
        return Some(Problem {
            key,
            message,
            hint: (*instead).to_owned(),
        });
    }
    let shaped = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let known = ["WALG_", "S3_"]
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    (!shaped || !(known || OTHERS.contains(&name))).then(|| Problem {
        message: format!("{source}: {key} is no setting of WAL-G"),
        key,
        hint: format!(
            "a setting's name is upper case and begins with WALG_ or S3_, or is one of {}",
            OTHERS.join(", ")
        ),
    })
}

/// Says why a value is none that can be passed on; `got` describes it without showing it.
pub(super) fn wrong_value(source: &SettingSource, name: &str, got: &str) -> Problem {
    Problem {
        key: format!("{SETTINGS}{name}"),
        message: format!(
            "{source}: {SETTINGS}{name} is {got}, expected text, a number or a boolean"
        ),
        hint: format!("for example {name} = 16 in [archive.settings]"),
    }
}

/// Whether a setting's value must stay hidden; a path to a key, its encoding or its id need not.
pub(super) fn is_secret(name: &str) -> bool {
    let open = ["_PATH", "_TRANSFORM", "_ID"]
        .iter()
        .any(|end| name.ends_with(end));
    let telling = ["KEY", "PASS", "SECRET", "TOKEN", "HEADERS"]
        .iter()
        .any(|part| name.contains(part));
    // SSE-C: the key itself, which the caller keeps.
    (telling || name.ends_with("SSE_C")) && !open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_walg_are_free_and_xdbs_own_are_not() {
        let source = SettingSource::Default;
        for good in [
            "WALG_UPLOAD_CONCURRENCY",
            "WALG_PREFETCH_DIR",
            "S3_STORAGE_CLASS",
            "S3_RETENTION_PERIOD",
            "TOTAL_BG_UPLOADED_LIMIT",
            "UPLOAD_CONCURRENCY",
        ] {
            assert_eq!(judge_name(&source, good), None, "{good}");
        }
        for (bad, hint) in [
            ("WALG_S3_PREFIX", "archive.repository"),
            ("WALG_COMPRESSION_METHOD", "archive.compression"),
            ("WALG_DELTA_MAX_STEPS", "archive.delta_max_steps"),
            ("WALG_PREVENT_WAL_OVERWRITE", "always true"),
            ("WALG_S3_CA_CERT_FILE", "s3.ca_cert_file"),
            ("WALG_FILE_PREFIX", "archive.repository"),
            ("PGHOST", "postgres.host"),
            ("WALG_", "upper case"),
            ("walg_upload_concurrency", "upper case"),
            ("WALG_A-B", "upper case"),
            ("LD_PRELOAD", "begins with WALG_"),
            ("", "upper case"),
        ] {
            let problem = judge_name(&source, bad).unwrap_or_else(|| panic!("{bad} was taken"));
            assert!(problem.hint.contains(hint), "{bad}: {}", problem.hint);
        }
    }

    #[test]
    fn what_names_a_key_or_a_password_is_secret_and_a_path_to_it_is_not() {
        for secret in [
            "WALG_LIBSODIUM_KEY",
            "WALG_PGP_KEY_PASSPHRASE",
            "WALG_X_TOKEN",
            "S3_SSE_C",
            "S3_SECRET_KEY",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in [
            "WALG_LIBSODIUM_KEY_PATH",
            "WALG_LIBSODIUM_KEY_TRANSFORM",
            "WALG_CSE_KMS_ID",
            "WALG_GPG_KEY_ID",
            "WALG_UPLOAD_CONCURRENCY",
            "S3_SSE",
        ] {
            assert!(!is_secret(open), "{open}");
        }
    }
}
