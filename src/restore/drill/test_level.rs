//! How much of a restored cluster a test verifies.

use clap::ValueEnum;
use serde::Serialize;

/// Each level verifies what the one before does, and more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TestLevel {
    /// It starts, is the right cluster on the right timeline, and reaches the end of the archive
    Start,
    /// Every file is there, every page's checksum is right, and amcheck finds nothing
    Check,
    /// Every row is read twice, indexes are held against tables, rows against the live server, and the assertions are asked
    #[default]
    Full,
}

impl TestLevel {
    /// The level of `restore_test.level`.
    pub(crate) fn named(word: &str) -> Self {
        <Self as ValueEnum>::from_str(word, false).expect("the key allows these words alone")
    }

    /// As the key spells it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Check => "check",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_key_is_a_level_and_a_later_one_is_more() {
        let levels = ["start", "check", "full"].map(TestLevel::named);
        assert!(levels.is_sorted());
        assert_eq!(levels.map(TestLevel::word), ["start", "check", "full"]);
        assert_eq!(levels[2], TestLevel::default());
    }
}
