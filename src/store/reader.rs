//! A command line's own view of the store.

use std::path::Path;

use rusqlite::Connection;

use super::open::{file, open_for_reading};
use super::{Reading, StoreError};

/// A connection that cannot write; the daemon may write beside it, or not run at all.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// `None` when there is no store yet: nothing has run on this node.
    ///
    /// # Errors
    /// When the file is damaged, of a newer xdb, or cannot be read.
    pub fn open(state_directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = file(state_directory);
        if !path.exists() {
            return Ok(None);
        }
        let connection = open_for_reading(&path)?;
        Ok(Some(Self { connection }))
    }

    pub fn reading(&self) -> Reading<'_> {
        Reading(&self.connection)
    }
}
