//! What the daemon must not do because of wrong values.

use std::collections::BTreeMap;

/// The sections whose work must not run, each with its first wrong value in a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub(super) BTreeMap<&'static str, String>);

impl Faults {
    /// Why the work of `section` must not run.
    pub fn of(&self, section: &str) -> Option<&str> {
        self.0.get(section).map(String::as_str)
    }

    /// The first reason among `sections`.
    pub fn of_any(&self, sections: &[&str]) -> Option<&str> {
        sections.iter().find_map(|section| self.of(section))
    }
}
