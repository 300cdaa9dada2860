//! Holds the files of `packaging/` that systemd and logrotate read to what the binary does.

use std::collections::BTreeMap;

use super::*;
use crate::daemon::CLEAN_UP;
use crate::log::DIRECTORY;

const SERVICE: &str = include_str!("../../packaging/xdb.service");
const SOCKET: &str = include_str!("../../packaging/xdb.socket");
const LOGROTATE: &str = include_str!("../../packaging/xdb.logrotate");

/// The last value of `key`.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let settings = unit.lines().filter_map(|line| line.split_once('='));
    let mut values = settings.filter(|(name, _)| *name == key);
    values.next_back().map_or("", |(_, value)| value)
}

/// The value of `key` that holds when nothing sets it.
fn default(key: &str) -> String {
    let sources = config::Sources {
        file: config::ConfigFile::Default("/nonexistent/xdb.toml".into()),
        environment_file: "/nonexistent/environment".into(),
        process: BTreeMap::new(),
        flags: Vec::new(),
    };
    let loaded = config::load(&sources).unwrap();
    let mut effective = loaded.effective().into_iter();
    let found = effective.find(|effective| effective.key == key).unwrap();
    found.value.unwrap()
}

#[test]
fn the_unit_starts_a_verb_that_there_is() {
    let words = value(SERVICE, "ExecStart").split(' ');
    let cli = Cli::try_parse_from(words).unwrap();
    assert!(matches!(cli.verb, Verb::Daemon));
}

#[test]
fn the_unit_knows_how_the_daemon_ends_and_how_long_that_takes() {
    let code = (Exit::Terminated as u8).to_string();
    assert_eq!(value(SERVICE, "SuccessExitStatus"), code);
    let stop: u64 = value(SERVICE, "TimeoutStopSec").parse().unwrap();
    assert!(stop > CLEAN_UP.as_secs());
    // A hung daemon would heed nothing else; a notification of a child is not its own.
    assert_eq!(value(SERVICE, "WatchdogSignal"), "SIGKILL");
    assert_eq!(value(SERVICE, "NotifyAccess"), "main");
}

#[test]
fn the_units_have_the_defaults_of_the_configuration() {
    assert_eq!(value(SOCKET, "ListenStream"), default("http.listen"));
    let state = format!("/var/lib/{}", value(SERVICE, "StateDirectory"));
    assert_eq!(state, default("node.state_directory"));
    assert_eq!(value(SERVICE, "User"), default("postgres.user"));
    // A node has its keys from the instance's role.
    assert!(!SERVICE.contains("AWS_EC2_METADATA_DISABLED"));
}

#[test]
fn what_is_rotated_is_what_is_written() {
    assert!(LOGROTATE.contains(&format!("\n{DIRECTORY}/xdb-*.log {{\n")));
    assert!(LOGROTATE.contains("--signal=HUP xdb.service"));
}
