//! What is kept of the dumps and what goes, with its reason. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::owner::Owners;
use super::seen::{AT_WORK, Seen, SeenSet};
use crate::config::Retention;
use crate::dump::{Listed, SetName, Status};
use crate::repository::{CLOCKS_DIFFER, RetentionItem, RetentionRules, older_than_all};
use crate::storage::UnfinishedUpload;

/// What the newest N of the policy are called.
const FULLS: &str = "full dumps";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SetAction {
    Keep,
    Delete,
}

impl SetAction {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Delete => "delete",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SetPlan {
    pub set: String,
    pub action: SetAction,
    pub reason: String,
    /// As stored.
    pub bytes: u64,
    /// Its objects, the manifest among them.
    #[serde(skip)]
    pub keys: Vec<String>,
}

/// An unfinished upload of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct UploadPlan {
    pub key: String,
    pub initiated: Timestamp,
    pub action: SetAction,
    pub reason: String,
    #[serde(skip)]
    pub upload_id: String,
}

/// What is left alone because it is not this cluster's, or no dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Foreign {
    /// Relative to `dump.repository`: a folder, with a slash, or an object.
    pub name: String,
    pub reason: String,
    pub objects: usize,
    /// As stored.
    pub bytes: u64,
}

/// All that lies below `dump.repository`, decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DumpPlan {
    /// Why nothing is deleted now, whatever its age.
    pub held: Option<String>,
    pub sets: Vec<SetPlan>,
    pub uploads: Vec<UploadPlan>,
    pub foreign: Vec<Foreign>,
}

impl DumpPlan {
    pub(crate) fn deleted(&self) -> impl Iterator<Item = &SetPlan> {
        let sets = self.sets.iter();
        sets.filter(|set| set.action == SetAction::Delete)
    }

    pub(super) fn aborted(&self) -> impl Iterator<Item = &UploadPlan> {
        let uploads = self.uploads.iter();
        uploads.filter(|upload| upload.action == SetAction::Delete)
    }

    /// Stored bytes of sets that are deleted, and that are kept.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let deleted = self.deleted().map(|set| set.bytes).sum();
        let all: u64 = self.sets.iter().map(|set| set.bytes).sum();
        (deleted, all - deleted)
    }
}

/// Plans what `policy` keeps of `seen`.
pub(super) fn plan_dumps(seen: &Seen, policy: Retention) -> DumpPlan {
    let owners = Owners::new(seen);
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    for set in &seen.sets {
        match owners.why_not_own(set) {
            None => own.push(set),
            Some(reason) => foreign.push(Foreign {
                name: format!("{}/", set.name),
                reason,
                objects: set.objects.len(),
                bytes: set.listed.stored_bytes,
            }),
        }
    }
    foreign.extend(no_sets(seen));
    let counted = own.iter().filter(|set| counts(set, seen.now));
    let rules = RetentionRules::new(counted.map(|set| age_of(set)).collect(), policy, seen.now);
    let held = why_held(seen, &rules);
    let sets = own.iter().map(|set| {
        let why_kept = match &held {
            Some(held) => Some(held.clone()),
            None => why_kept(seen, set, &rules),
        };
        SetPlan {
            set: set.name.to_string(),
            action: action(why_kept.is_some()),
            reason: why_kept.unwrap_or_else(|| why_deleted(seen, set, policy)),
            bytes: set.listed.stored_bytes,
            keys: set.objects.iter().map(|it| it.key.clone()).collect(),
        }
    });
    let sets = sets.collect();
    let mut uploads = Vec::new();
    for upload in &seen.uploads {
        match why_not_own_upload(seen, &owners, upload) {
            None => uploads.push(plan_upload(upload, held.as_deref(), seen.now)),
            Some(reason) => foreign.push(Foreign {
                name: upload.key[seen.location.key("").len()..].to_owned(),
                reason: format!("an unfinished upload: {reason}"),
                objects: 0,
                bytes: 0,
            }),
        }
    }
    DumpPlan {
        held,
        sets,
        uploads,
        foreign,
    }
}

fn action(keeps: bool) -> SetAction {
    match keeps {
        true => SetAction::Keep,
        false => SetAction::Delete,
    }
}

/// What belongs to no set, by the folder that it is in.
fn no_sets(seen: &Seen) -> Vec<Foreign> {
    let root = seen.location.key("").len();
    let mut found: BTreeMap<String, Foreign> = BTreeMap::new();
    for object in &seen.others {
        let path = &object.key[root..];
        let name = path
            .split_once('/')
            .map_or_else(|| path.to_owned(), |(folder, _)| format!("{folder}/"));
        let entry = found.entry(name.clone()).or_insert_with(|| Foreign {
            name,
            reason: "it is no dump set".to_owned(),
            objects: 0,
            bytes: 0,
        });
        entry.objects += 1;
        entry.bytes += object.size;
    }
    found.into_values().collect()
}

fn is_of_future(set: &SeenSet, now: Timestamp) -> bool {
    set.name.begun_at().duration_since(now) > CLOCKS_DIFFER
}

/// Whether older sets may be deleted for the sake of `set`.
fn counts(set: &SeenSet, now: Timestamp) -> bool {
    set.listed.status == Status::Complete && !set.listed.partial && !is_of_future(set, now)
}

fn age_of(set: &SeenSet) -> RetentionItem<'_> {
    let tested = set.listed.tested.as_ref();
    RetentionItem {
        name: &set.listed.set,
        at: Some(set.listed.started_at),
        is_full: !set.listed.partial,
        recovers: true,
        is_proven: tested.is_some_and(|tested| tested.passed),
    }
}

/// Why nothing at all is deleted.
fn why_held(seen: &Seen, rules: &RetentionRules<'_>) -> Option<String> {
    if let Some(begun) = &seen.begun {
        let finished =
            |set: &SeenSet| set.listed.set == begun.set && set.listed.status != Status::Incomplete;
        if !seen.sets.iter().any(finished) {
            let (set, node) = (&begun.set, &begun.node);
            let at = begun.at.strftime("%F %T UTC");
            return Some(format!(
                "the last dump failed ({set}, begun at {at} on {node}, is not there), so nothing is deleted"
            ));
        }
    }
    let nothing = "no complete dump of every database counts, so nothing is deleted";
    rules.newest().is_none().then(|| nothing.to_owned())
}

/// The first rule that keeps `set`; `None` where none does.
fn why_kept(seen: &Seen, set: &SeenSet, rules: &RetentionRules<'_>) -> Option<String> {
    let listed = &set.listed;
    if listed.status == Status::Incomplete {
        let stopped = seen.deleting.contains(&listed.set);
        return (!stopped && set.is_younger_than_a_day(seen.now))
            .then(|| "unfinished, and younger than a day: it may be at work".to_owned());
    }
    if is_of_future(set, seen.now) {
        return Some(
            "its time lies in the future, so that its age is unknown; it does not count".to_owned(),
        );
    }
    let name = Some(listed.set.as_str());
    let why = if rules.newest() == name {
        "the newest complete dump".to_owned()
    } else if rules.newest_proven() == name {
        "the newest that a dump test proved".to_owned()
    } else if let Some(rule) = rules.age_rule(&age_of(set)) {
        rules.words(rule, FULLS)
    } else {
        format!("the last full dump of {}", rules.keeper_of(&listed.set)?)
    };
    Some(match why_not_counted(listed) {
        Some(bad) => format!("{bad}; {why}"),
        None => why,
    })
}

fn why_not_counted(listed: &Listed) -> Option<String> {
    let reason = listed.reason.as_deref().unwrap_or_default();
    let reason = reason.lines().next().unwrap_or_default();
    match listed.status {
        Status::Complete if listed.partial => Some("does not count (partial)".to_owned()),
        Status::Complete => None,
        status => Some(format!("does not count ({}: {reason})", status.word())),
    }
}

fn why_deleted(seen: &Seen, set: &SeenSet, policy: Retention) -> String {
    if set.listed.status == Status::Incomplete {
        return match seen.deleting.contains(&set.listed.set) {
            true => "its deletion was begun, and stopped".to_owned(),
            false => "unfinished for more than a day".to_owned(),
        };
    }
    let older = older_than_all(policy, FULLS);
    match why_not_counted(&set.listed) {
        Some(bad) => format!("{older}; {bad}"),
        None => older,
    }
}

fn why_not_own_upload(
    seen: &Seen,
    owners: &Owners<'_>,
    upload: &UnfinishedUpload,
) -> Option<String> {
    let Some(name) = SetName::of_key(&upload.key, &seen.location) else {
        return Some("it is of no dump set".to_owned());
    };
    match seen.sets.iter().find(|set| set.name == name) {
        Some(set) => owners.why_not_own(set),
        None => owners.why_not_by_name(&name),
    }
}

fn plan_upload(upload: &UnfinishedUpload, held: Option<&str>, now: Timestamp) -> UploadPlan {
    let why_kept = if let Some(held) = held {
        Some(held.to_owned())
    } else if upload.initiated == Timestamp::UNIX_EPOCH {
        Some("S3 does not tell when it was begun".to_owned())
    } else if now.duration_since(upload.initiated) < AT_WORK {
        Some("unfinished, and younger than a day: it may be at work".to_owned())
    } else {
        None
    };
    UploadPlan {
        key: upload.key.clone(),
        initiated: upload.initiated,
        action: action(why_kept.is_some()),
        reason: why_kept.unwrap_or_else(|| "unfinished for more than a day".to_owned()),
        upload_id: upload.upload_id.clone(),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
