//! The probe behind `xdb wait`: is the database ready for an application, by the whole way there?
//!
//! It dials, says which hop failed, and tries again until a deadline; it changes nothing.

mod classify;
mod dial;
mod passfile;
mod until_ready;

pub use classify::{Hop, Next, Signal};
pub use passfile::{passfile, password_in};
pub use until_ready::{Options, Outcome, until_ready};

/// The role that the server must report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    Primary,
    Replica,
    Any,
}

impl Wanted {
    fn accepts(self, in_recovery: bool) -> bool {
        match self {
            Self::Primary => !in_recovery,
            Self::Replica => in_recovery,
            Self::Any => true,
        }
    }
}
