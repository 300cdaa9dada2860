//! Copies the store's content from its file into memory, and back.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, TransactionBehavior};

use super::notices::Waiting;
use super::outbox::Queued;
use super::{Reading, StoreError, Writing, facts, query};
use crate::model::{AlertKey, AlertState};

/// What memory began with: only what differs from it was changed there.
#[derive(Debug, Default)]
pub(super) struct Seed {
    /// The file that it was read from; `None` where nothing could be read.
    origin: Option<String>,
    alerts: BTreeMap<AlertKey, AlertState>,
    facts: BTreeMap<String, String>,
    last_sequence: i64,
    notices: Vec<Waiting>,
}

/// Fills `memory` with what can be read of `file`; rows that are damaged stay behind.
///
/// `is_current` says that no newer state is in a WAL file which could not be read. Else the outbox is left
/// out: its events may have been delivered since.
pub(super) fn seed(file: &Connection, memory: &Connection, is_current: bool) -> Seed {
    let (from, to) = (Reading(file), Writing(Reading(memory)));
    let mut seed = Seed::default();
    for (key, state) in from.readable_alerts() {
        if to.set_alert(&key, Some(&state)).is_ok() {
            seed.alerts.insert(key, state);
        }
    }
    for run in from.readable_runs() {
        let _ = to.record_run(&run);
    }
    for (name, value) in from.lasting_facts().unwrap_or_default() {
        if to.set_fact(&name, &value).is_ok() {
            seed.facts.insert(name, value);
        }
    }
    for silence in from.silences().unwrap_or_default() {
        let _ = to.merge_silence(silence);
    }
    // A second delivery is better than none here: receivers know an event by its id.
    for one in from.notices().unwrap_or_default() {
        if to.queue_notice(&one.receiver, &one.id, &one.event).is_ok() {
            seed.notices.push(one);
        }
    }
    if is_current
        && let (Ok(waiting), Ok(last)) = (from.queued(), from.last_sequence())
        && waiting.iter().try_for_each(|one| to.put_event(one)).is_ok()
        && to.set_sequence(last).is_ok()
    {
        seed.last_sequence = last;
        seed.origin = seed.facts.get(facts::STORE).cloned();
    }
    // What ends from here on has to end in the file, too.
    let _ = memory.execute("DELETE FROM ended", []);
    seed
}

/// Brings `file` up to what `memory` holds, in one transaction.
///
/// # Errors
/// When the file cannot be written; it is then as before.
pub(super) fn copy_back(
    memory: &Connection,
    seed: &Seed,
    file: &mut Connection,
) -> Result<(), StoreError> {
    let transaction = file
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(query("begin to write to"))?;
    let (from, to) = (Reading(memory), Writing(Reading(&transaction)));
    let same_file = seed.origin.is_some() && to.fact(facts::STORE)? == seed.origin;
    copy_alerts(&from, &to, seed, same_file)?;
    for run in from.readable_runs() {
        if !to.has_run(&run)? {
            to.record_run(&run)?;
        }
    }
    copy_facts(&from, &to, seed, same_file)?;
    for silence in from.silences()? {
        to.merge_silence(silence)?;
    }
    copy_notices(&from, &to, seed)?;
    copy_outbox(&from, &to, if same_file { seed.last_sequence } else { 0 })?;
    transaction.commit().map_err(query("write to"))
}

fn copy_alerts(
    from: &Reading<'_>,
    to: &Writing<'_>,
    seed: &Seed,
    same_file: bool,
) -> Result<(), StoreError> {
    for key in from.ended_alerts()? {
        to.set_alert(&key, None)?;
    }
    for (key, state) in from.alerts()? {
        // A command line may have changed the file meanwhile.
        if !same_file || seed.alerts.get(&key) != Some(&state) {
            to.set_alert(&key, Some(&state))?;
        }
    }
    Ok(())
}

fn copy_facts(
    from: &Reading<'_>,
    to: &Writing<'_>,
    seed: &Seed,
    same_file: bool,
) -> Result<(), StoreError> {
    let held = from.lasting_facts()?;
    for (name, value) in &held {
        let unchanged = same_file && seed.facts.get(name) == Some(value);
        if name != facts::STORE && !unchanged {
            to.set_fact(name, value)?;
        }
    }
    for name in seed.facts.keys().filter(|name| !held.contains_key(*name)) {
        to.forget_fact(name)?;
    }
    // What was deleted from the bucket meanwhile could not be noted in the file.
    to.forget_catalogs()
}

/// What memory had confirmed leaves the file, and what is new there follows.
fn copy_notices(from: &Reading<'_>, to: &Writing<'_>, seed: &Seed) -> Result<(), StoreError> {
    let names = |all: &[Waiting]| -> BTreeSet<(String, String)> {
        let name = |one: &Waiting| (one.receiver.clone(), one.id.clone());
        all.iter().map(name).collect()
    };
    let is_in = |known: &BTreeSet<(String, String)>, one: &Waiting| {
        known.contains(&(one.receiver.clone(), one.id.clone()))
    };
    let held = from.notices()?;
    let waits = names(&held);
    for confirmed in seed.notices.iter().filter(|one| !is_in(&waits, one)) {
        to.remove_notice(confirmed)?;
    }
    let stored = names(&to.notices()?);
    for one in held.iter().filter(|one| !is_in(&stored, one)) {
        to.queue_notice(&one.receiver, &one.id, &one.event)?;
    }
    Ok(())
}

/// Numbers stay as they are where they follow those of the file: Redis may have seen an event without this node's knowing.
fn copy_outbox(from: &Reading<'_>, to: &Writing<'_>, seeded_to: i64) -> Result<(), StoreError> {
    let (held, stored) = (from.queued()?, to.queued()?);
    let (held_last, stored_last) = (from.last_sequence()?, to.last_sequence()?);
    let of_others: Vec<Queued> = stored
        .iter()
        .filter(|one| one.seq > seeded_to)
        .cloned()
        .collect();
    let (old, new): (Vec<_>, Vec<_>) = held.into_iter().partition(|one| one.seq <= seeded_to);
    for one in stored.iter().filter(|one| !old.contains(one)) {
        to.remove_event(one.seq)?;
    }
    let mut last = held_last.max(stored_last);
    if of_others.is_empty() && stored_last <= seeded_to {
        new.iter().try_for_each(|one| to.put_event(one))?;
    } else {
        for one in of_others.into_iter().chain(new) {
            last += 1;
            to.put_event(&Queued { seq: last, ..one })?;
        }
    }
    to.set_sequence(last)
}
