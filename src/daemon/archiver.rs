//! The archiver's service, with what it asks of the daemon: whether this node leads, and the configuration after SIGHUP.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::archive::archiver::{self, LeadCheck, LeadingServer, ReloadSettings};
use crate::config::Loaded;
use crate::log;
use crate::runner::Node;
use crate::store::StateFiles;

pub(super) fn serve(node: &Node, loaded: &Loaded) -> impl Future<Output = ()> + use<> {
    let view = node.view.clone();
    let leads: LeadCheck = Arc::new(move || {
        let view = view.borrow();
        let sample = view.sample.filter(|_| view.led_last())?;
        Some(LeadingServer {
            system_identifier: sample.system_identifier,
            is_certain: view.leads(Timestamp::now()),
        })
    });
    let loaded_last = Mutex::new(loaded.clone());
    let again: ReloadSettings = Box::new(move || {
        let mut last = loaded_last.lock().unwrap_or_else(PoisonError::into_inner);
        let again = last
            .reread_if_changed()
            .map_err(|error| log::chain(&error))?;
        Ok(again.map(|again| {
            *last = again;
            last.config.repository_settings()
        }))
    });
    let state = StateFiles::of(&loaded.config.node.state_directory);
    archiver::serve(
        node.tools.repository.clone(),
        state,
        leads,
        again,
        node.store.clone(),
    )
}
