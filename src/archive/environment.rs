//! What a WAL-G program is told through its environment: all of it, and nothing from elsewhere.

use std::path::Path;

use secrecy::ExposeSecret;
use tokio::process::Command;

use super::{ArchiveError, Program, Repository};
use crate::config::Config;
use crate::process;

/// Whether the program encrypts what it stores: then xdb cannot read it, and what does not unpack is no damage.
pub fn encrypts(config: &Config) -> bool {
    const KEYS: [&str; 4] = ["WALG_LIBSODIUM_", "WALG_PGP_", "WALG_GPG_", "WALG_CSE_"];
    let settings = &config.archive.settings;
    settings
        .keys()
        .any(|name| KEYS.iter().any(|key| name.starts_with(key)))
}

/// Prepares the WAL-G program of `config` to work on `repository` for the server in `data_directory`.
///
/// # Errors
/// As [`Program::find`].
pub fn command(
    config: &Config,
    repository: &Repository,
    data_directory: &Path,
) -> Result<(Program, Command), ArchiveError> {
    let (program, path) = Program::find(config)?;
    let mut command = process::command(path);
    add_ambient_aws(&mut command);
    for (name, value) in &config.archive.settings {
        command.env(name, value.expose_secret());
    }
    command
        .env("WALG_S3_PREFIX", repository.to_string())
        .env("WALG_COMPRESSION_METHOD", &config.archive.compression)
        .env(
            "WALG_DELTA_MAX_STEPS",
            config.archive.delta_max_steps.to_string(),
        )
        // Both programs replace a stored segment by other content unless told not to.
        .env("WALG_PREVENT_WAL_OVERWRITE", "true")
        .envs(program.own_settings(config))
        .env(
            "AWS_S3_FORCE_PATH_STYLE",
            config.s3.force_path_style.to_string(),
        )
        .env("PGDATA", data_directory)
        .env("PGHOST", &config.postgres.host)
        .env("PGPORT", config.postgres.port.to_string())
        .env("PGUSER", &config.postgres.user)
        .env("PGDATABASE", &config.postgres.database);
    let plain = [
        ("AWS_REGION", &config.s3.region),
        ("AWS_ENDPOINT", &config.s3.endpoint),
        ("AWS_ACCESS_KEY_ID", &config.s3.access_key_id),
    ];
    for (name, value) in plain
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    {
        command.env(name, value);
    }
    let secret = [
        ("AWS_SECRET_ACCESS_KEY", &config.s3.secret_access_key),
        ("AWS_SESSION_TOKEN", &config.s3.session_token),
    ];
    for (name, value) in secret
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    {
        command.env(name, value.expose_secret());
    }
    Ok((program, command))
}

/// Passes on what the usual AWS credential chain reads: profile, container role, metadata service.
///
/// Keys themselves come from the configuration, which has read their environment names too.
pub fn add_ambient_aws(command: &mut Command) {
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
