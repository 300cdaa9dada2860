//! Settings that belong together: what one of them is worth without another, or says of it. Pure.

use std::collections::BTreeMap;

use super::error::Problem;
use super::kind::SettingValue;
use super::source::Assignment;

/// A session token belongs to one key pair: leaves out one from a layer below the pair's.
pub(super) fn drop_foreign_token(chosen: &mut BTreeMap<String, Assignment>) -> Option<String> {
    let rank = |key| {
        chosen
            .get(key)
            .map(|given: &Assignment| given.source.rank())
    };
    let pair = rank("s3.access_key_id").max(rank("s3.secret_access_key"))?;
    if rank("s3.session_token")? >= pair {
        return None;
    }
    let token = chosen.remove("s3.session_token")?;
    Some(format!(
        "s3.session_token of {} is left out: the key pair comes from elsewhere",
        token.source
    ))
}

pub(super) const KEY_PAIR: [&str; 3] = [
    "s3.access_key_id",
    "s3.secret_access_key",
    "s3.session_token",
];

/// The access key is of use only together with its secret, and a token only with both.
pub(super) fn judge_key_pair(chosen: &BTreeMap<String, Assignment>) -> Option<Problem> {
    let get = |key| chosen.get(key);
    let (id, secret) = ("s3.access_key_id", "s3.secret_access_key");
    let (given, missing) = match (get(id), get(secret), get("s3.session_token")) {
        (Some(_), Some(_), _) | (None, None, None) => return None,
        (Some(given), None, _) => (given, secret),
        (None, Some(given), _) | (None, None, Some(given)) => (given, id),
    };
    Some(Problem::incomplete(given, missing))
}

/// wal-g takes no `aws:kms` without a key, and another key would be ignored.
pub(super) fn judge_kms_key(chosen: &BTreeMap<String, Assignment>) -> Option<Problem> {
    const METHOD: &str = "s3.server_side_encryption";
    const KEY: &str = "s3.kms_key_id";
    let (method, key) = (chosen.get(METHOD), chosen.get(KEY));
    let kms = method.filter(|method| method.text == "aws:kms");
    let (given, what, hint) = match (kms, key) {
        (Some(method), None) => (
            method,
            format!("{METHOD} is \"aws:kms\", but {KEY} is not set"),
            "set s3.kms_key_id to the key's id or its ARN",
        ),
        (None, Some(key)) => (
            key,
            format!("{KEY} is set, but {METHOD} is not \"aws:kms\""),
            "set s3.server_side_encryption to \"aws:kms\" too, or leave the key out",
        ),
        _ => return None,
    };
    Some(Problem {
        key: given.key.clone(),
        message: format!("{}: {what}", given.source),
        hint: hint.to_owned(),
    })
}

const SYSTEM: &str = "system";
const VERIFY_FULL: &str = "verify-full";

/// As libpq: the roots of public authorities are for servers that prove their name.
pub(super) fn judge_system_roots(
    section: &str,
    chosen: &BTreeMap<String, Assignment>,
) -> Option<Problem> {
    let get = |key: &str| chosen.get(&format!("{section}.{key}"));
    let root = get("sslrootcert").filter(|root| root.text == SYSTEM)?;
    let mode = get("sslmode").filter(|mode| mode.text != VERIFY_FULL)?;
    Some(Problem {
        key: mode.key.clone(),
        message: format!(
            "{}: {} is {:?}, which is too weak for {} = \"system\" ({})",
            mode.source, mode.key, mode.text, root.key, root.source
        ),
        hint: format!(
            "set {} to \"verify-full\" or leave it out, or name the file of the server's CA in {}",
            mode.key, root.key
        ),
    })
}

/// As libpq: the default mode is the strict one then. For [wait], PGSSLMODE may still set another: the verb decides.
pub(super) fn strengthen_sslmode(chosen: &mut BTreeMap<String, Assignment>) {
    let (mode, root) = ("postgres.sslmode", "postgres.sslrootcert");
    let root = chosen.get(root).filter(|root| root.text == SYSTEM);
    let Some(source) = root.map(|root| root.source.clone()) else {
        return;
    };
    chosen.entry(mode.to_owned()).or_insert_with(|| Assignment {
        key: mode.to_owned(),
        text: VERIFY_FULL.to_owned(),
        source,
    });
}

/// Unset, `archive.rpo_critical` is three times the objective.
pub(super) fn with_rpo_critical(
    mut values: BTreeMap<&'static str, SettingValue>,
) -> BTreeMap<&'static str, SettingValue> {
    if let Some(SettingValue::Duration(objective)) = values.get("archive.rpo_objective") {
        let critical = SettingValue::Duration(objective.saturating_mul(3));
        values.entry("archive.rpo_critical").or_insert(critical);
    }
    values
}
