//! Who runs a verb, for what is kept of a person's decision.

use std::env;
use std::fs;

use crate::model::account_name;

/// `given`, else who logged in before sudo, else the account that runs this.
pub(crate) fn name(given: Option<String>) -> String {
    let uid = rustix::process::getuid().as_raw();
    let of_account = || account_name(uid, &fs::read_to_string("/etc/passwd").unwrap_or_default());
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    given
        .or_else(|| set("SUDO_USER"))
        .or_else(of_account)
        .or_else(|| set("LOGNAME"))
        .unwrap_or_else(|| format!("uid {uid}"))
}
