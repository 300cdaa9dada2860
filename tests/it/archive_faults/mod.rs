//! Faults under a cluster that is written to: whatever happens, what PostgreSQL was told to be archived is stored as it
//! was, and nothing that was committed is missing in a restore.

mod clock;
mod full_volume;
mod promotion;
mod stop;
mod two_daemons;

use std::time::Duration;

use crate::harness::{Lab, Program};

const SOON: Duration = Duration::from_secs(60);

/// A lab with a base backup; `archive` stands below `[archive]` in its settings.
fn backed_up(lab: Lab, archive: &str) -> Lab {
    lab.config(&format!("[archive]\n{archive}"));
    let pushed = lab.xdb(&["backup", "push"]);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    lab
}

fn start(archive: &str) -> Lab {
    backed_up(Lab::start(Program::Walrus), archive)
}
