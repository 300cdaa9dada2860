//! Reads every object of a set through as it is stored, and compares it with the manifest. Nothing is decrypted or restored.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout;

use super::{Dumps, Listed, ObjectError, Status, StoredObject};
use crate::log;
use crate::model::Verdict;

/// What was read of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VerifiedObject {
    /// In the bucket.
    pub key: String,
    /// `None` for the globals.
    pub database: Option<String>,
    /// By the manifest.
    pub bytes: u64,
    /// Critical where it is missing or is not what was stored, unknown where S3 failed.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What was read of one set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct VerifiedSet {
    pub set: String,
    pub partial: bool,
    pub secs: f64,
    pub objects: Vec<VerifiedObject>,
    /// Of the whole set: the worst of its objects', critical where the manifest cannot be read, unknown where it is of a later xdb.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Verifies `listed`, which is finished; `on_object` gets each object when it was read.
///
/// An object that cannot be read does not end the verification of the others.
pub(crate) async fn verify(
    dumps: &Dumps,
    listed: &Listed,
    on_object: &mut (dyn FnMut(&VerifiedObject) + Send),
) -> VerifiedSet {
    let began = Instant::now();
    let mut objects = Vec::new();
    if let Some(set) = &listed.manifest {
        let databases = set.databases.iter();
        let named = databases.map(|database| (Some(database.name.clone()), &database.dump));
        for (database, stored) in named.chain([(None, &set.globals)]) {
            let object = VerifiedObject {
                key: stored.key.clone(),
                database,
                bytes: stored.bytes,
                verdict: read(dumps, listed, stored).await,
            };
            on_object(&object);
            objects.push(object);
        }
    }
    VerifiedSet {
        set: listed.set.clone(),
        partial: listed.partial,
        secs: (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        verdict: judge(listed, &objects),
        objects,
    }
}

/// A long limit for one object: the reads within it have deadlines of their own.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

async fn read(dumps: &Dumps, listed: &Listed, stored: &StoredObject) -> Verdict {
    // The listing shows it without a read.
    if let Some(reason) = listed.damage_of(stored) {
        return Verdict::Critical(reason);
    }
    match timeout(LIMIT, dumps.open_stored(stored).finish()).await {
        Ok(Ok(())) => Verdict::Ok,
        Ok(Err(ObjectError::Damaged(reason))) => Verdict::Critical(reason),
        Ok(Err(error)) => Verdict::Unknown(log::chain(&error)),
        Err(_) => Verdict::Unknown(format!("{} was not read within a week", stored.key)),
    }
}

/// The worst of the objects' verdicts.
fn judge(listed: &Listed, objects: &[VerifiedObject]) -> Verdict {
    if listed.manifest.is_none() {
        let reason = listed.reason.clone().unwrap_or_default();
        return match listed.status {
            Status::Unknown => Verdict::Unknown(reason),
            _ => Verdict::Critical(reason),
        };
    }
    Verdict::worst(objects.iter().map(|object| &object.verdict))
}
