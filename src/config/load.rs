//! Lays the sources over each other, and keeps where each value came from.
//!
//! Lowest first: defaults, seed names in `/etc/environment`, the same names in the process's own
//! environment, `xdb.toml`, `XDB_…` variables, flags.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use secrecy::SecretString;

use super::combinations::{
    KEY_PAIR, drop_foreign_token, judge_key_pair, judge_kms_key, judge_system_roots,
    strengthen_sslmode, with_rpo_critical,
};
use super::environment;
use super::error::{ConfigError, Problem};
use super::file;
use super::key::{Key, Preset, environment_name};
use super::keys::{Config, KEYS, SETTINGS};
use super::notify;
use super::program_settings;
use super::serving::{faults_of, is_needed_to_serve};
use super::source::{Assignment, SettingSource, Sources};
use super::table::Values;

const MASK: &str = "********";

/// A valid configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// What was left out of the sources, and why: sentences for an operator.
    pub warnings: Vec<String>,
    /// What is wrong in the sources, of [`load_to_serve`] alone; none of it is needed to serve.
    pub faults: Vec<Problem>,
    chosen: BTreeMap<String, Assignment>,
    sources: Sources,
}

/// The value of one key, as `xdb config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Dotted.
    pub key: String,
    /// As it was written; `********` for a secret; `None` when it is not set.
    pub value: Option<String>,
    pub source: SettingSource,
}

impl Loaded {
    /// Reads the same sources once more, as they are now.
    ///
    /// # Errors
    /// As [`load_to_serve`].
    pub fn reread(&self) -> Result<Self, ConfigError> {
        load_to_serve(&self.sources)
    }

    /// The same for the archiver; `None` when the sources hold the same as before.
    ///
    /// # Errors
    /// As [`load_to_serve`], and when what archiving needs is wrong.
    pub fn reread_if_changed(&self) -> Result<Option<Self>, ConfigError> {
        let again = self.reread()?;
        let needed = ["cluster", "s3", "archive"];
        if again.config.faults.of_any(&needed).is_some() {
            let problems = again.faults;
            return Err(ConfigError::Wrong { problems });
        }
        let assigned = |loaded: &Self| -> Vec<(String, String)> {
            let all = loaded.chosen.values();
            all.map(|given| (given.key.clone(), given.text.clone()))
                .collect()
        };
        Ok((assigned(&again) != assigned(self)).then_some(again))
    }

    /// Every key in the order of `xdb.toml`, and every further setting.
    pub fn effective(&self) -> Vec<Effective> {
        let settings: Vec<_> = settings(&self.chosen).collect();
        let mut effective = Vec::new();
        for (index, key) in KEYS.iter().enumerate() {
            let (value, source) = value_of(key, &self.chosen).unzip();
            effective.push(Effective {
                key: key.name.to_owned(),
                value: value.map(|value| {
                    let hides = key.kind.hides(&value);
                    masked(value, hides)
                }),
                source: source.unwrap_or(SettingSource::Default),
            });
            let ends_section = KEYS
                .get(index + 1)
                .is_none_or(|next| next.section() != key.section());
            if ends_section && SETTINGS.starts_with(key.section()) {
                effective.extend(settings.iter().map(|(name, given)| Effective {
                    key: given.key.clone(),
                    value: Some(masked(
                        given.text.clone(),
                        program_settings::is_secret(name),
                    )),
                    source: given.source.clone(),
                }));
            }
        }
        let receivers = self.chosen.values().filter(|given| is_of_receiver(given));
        effective.extend(receivers.map(|given| Effective {
            key: given.key.clone(),
            value: Some(masked(
                given.text.clone(),
                notify::is_secret(&given.key) && !given.text.starts_with('/'),
            )),
            source: given.source.clone(),
        }));
        effective
    }

    /// This configuration as variables for a child xdb that must see the same, whatever files say.
    ///
    /// Every effective value that is no default, secrets included: for an environment only, never for
    /// arguments. `XDB_CONFIG` keeps the child from reading a file.
    pub fn to_environment(&self) -> Vec<(String, SecretString)> {
        let no_file = ("XDB_CONFIG".to_owned(), SecretString::from("/dev/null"));
        // No child of xdb reports alerts or calls a heartbeat URL, and those URLs are secrets.
        let stays = |given: &&Assignment| is_of_receiver(given) || is_of_heartbeat(given);
        let given = self.chosen.values().filter(|given| !stays(given));
        std::iter::once(no_file)
            .chain(given.map(|given| (environment_name(&given.key), secret(given))))
            .collect()
    }
}

fn is_of_receiver(given: &Assignment) -> bool {
    given.key.split('.').next() == Some(notify::NOTIFY)
}

fn is_of_heartbeat(given: &Assignment) -> bool {
    given.key.split('.').next() == Some("heartbeat")
}

/// The further settings for the program, by their own names.
fn settings(chosen: &BTreeMap<String, Assignment>) -> impl Iterator<Item = (&str, &Assignment)> {
    chosen
        .iter()
        .filter_map(|(key, given)| Some((key.strip_prefix(SETTINGS)?, given)))
}

fn secret(given: &Assignment) -> SecretString {
    SecretString::from(given.text.as_str())
}

/// Reads `sources` into one valid configuration.
///
/// # Errors
/// When `xdb.toml` is named but missing, cannot be read, is not TOML or shows a secret to every user;
/// else with all the unknown keys and wrong values of all sources at once.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let (loaded, exposed) = read(sources)?;
    if let Some(exposed) = exposed {
        return Err(exposed);
    }
    if loaded.faults.is_empty() {
        Ok(loaded)
    } else {
        let problems = loaded.faults;
        Err(ConfigError::Wrong { problems })
    }
}

/// The same for a daemon that must serve: what serving does not need may be wrong, and is in [`Loaded::faults`].
///
/// A wrong value there counts as not set; [`Config::faults`] says which work must not be done with that.
///
/// # Errors
/// When `xdb.toml` is named but missing, cannot be read or is not TOML, or where the node's identity, its address, its
/// PostgreSQL or its PgBouncer is set wrongly.
pub fn load_to_serve(sources: &Sources) -> Result<Loaded, ConfigError> {
    let (mut loaded, exposed) = read(sources)?;
    if loaded
        .faults
        .iter()
        .any(|problem| is_needed_to_serve(&problem.key))
    {
        let problems = loaded.faults;
        return Err(ConfigError::Wrong { problems });
    }
    loaded.faults.extend(exposed.as_ref().map(Problem::exposed));
    loaded.config.faults = faults_of(&loaded.faults);
    Ok(loaded)
}

/// Reads everything, with what is wrong beside it, and whether a secret is shown to every user.
fn read(sources: &Sources) -> Result<(Loaded, Option<ConfigError>), ConfigError> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut chosen = BTreeMap::new();
    let seeded = read_environment_file(&sources.environment_file, &mut problems, &mut warnings);
    let process = environment::read_process(&sources.process, &mut problems);
    let (in_file, exposed) = file::read(&sources.file, &mut problems)?;
    for layer in [
        seeded,
        process,
        in_file,
        environment::read_variables(&sources.process, &mut problems),
        environment::read_flags(&sources.flags, &mut problems),
    ] {
        chosen.extend(layer.into_iter().map(|given| (given.key.clone(), given)));
    }
    warnings.extend(drop_foreign_token(&mut chosen));
    if let Some(problem) = judge_key_pair(&chosen) {
        for key in KEY_PAIR {
            chosen.remove(key);
        }
        // A key whose value is wrong is not among the chosen: it would look as if it were not set.
        if !problems
            .iter()
            .any(|problem| problem.key.starts_with("s3."))
        {
            problems.push(problem);
        }
    }
    problems.extend(judge_kms_key(&chosen));
    problems.extend(
        ["postgres", "wait"]
            .map(|of| judge_system_roots(of, &chosen))
            .into_iter()
            .flatten(),
    );
    strengthen_sslmode(&mut chosen);
    let mut values = BTreeMap::new();
    for key in KEYS {
        let Some((text, source)) = value_of(key, &chosen) else {
            continue;
        };
        if let Some(value) = key.kind.parse(&text) {
            values.insert(key.name, value);
            continue;
        }
        // Only of a seed: the other layers have reported theirs already.
        problems.push(Problem::text(&source, key, &text));
        chosen.remove(key.name);
        let preset = value_of(key, &chosen).and_then(|(text, _)| key.kind.parse(&text));
        values.extend(preset.map(|value| (key.name, value)));
    }
    let mut config = Config::new(Values(with_rpo_critical(values)));
    let settings = settings(&chosen).map(|(name, given)| (name.to_owned(), secret(given)));
    config.archive.settings = settings.collect();
    config.notify = notify::receivers(&chosen);
    let loaded = Loaded {
        config,
        warnings,
        faults: problems,
        chosen,
        sources: sources.clone(),
    };
    Ok((loaded, exposed))
}

/// A file that is missing is fine. pam_env skips one that cannot be read, too; xdb reports it.
fn read_environment_file(
    path: &Path,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Vec<Assignment> {
    match std::fs::read(path) {
        Ok(text) => environment::read_file(path, &text, problems),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                warnings.push(format!("{} was not read: {error}", path.display()));
            }
            Vec::new()
        }
    }
}

fn value_of(key: &Key, chosen: &BTreeMap<String, Assignment>) -> Option<(String, SettingSource)> {
    if let Some(given) = chosen.get(key.name) {
        return Some((given.text.clone(), given.source.clone()));
    }
    let default = match key.preset {
        Preset::Default(text) => text.to_owned(),
        Preset::KernelHostName(_) => kernel_host_name(),
        Preset::Unset(_) => return None,
    };
    Some((default, SettingSource::Default))
}

/// What `uname -n` prints.
fn kernel_host_name() -> String {
    let uname = rustix::system::uname();
    match uname.nodename().to_str() {
        Ok(name) if !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}

fn masked(value: String, is_secret: bool) -> String {
    if is_secret { MASK.to_owned() } else { value }
}
