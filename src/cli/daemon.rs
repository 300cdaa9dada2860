//! `xdb daemon`: the service of a database node; it ends well when it is told to.

use super::exit::Exit;
use crate::config::Loaded;
use crate::daemon;
use crate::log;

pub async fn run(loaded: &Loaded) -> anyhow::Result<Exit> {
    log::init_daemon(&loaded.config.node.hostname);
    daemon::run(loaded.clone()).await?;
    Ok(Exit::Good)
}

pub async fn clean_up(loaded: &Loaded) {
    daemon::clean_up(loaded).await;
}
