//! The names of databases that `xdb dump restore` makes for itself. No dump holds one. Pure.

use sha2::{Digest, Sha256};

/// Of a database that is being restored, and of one that a restored one replaced; [`DIGITS`] follow.
pub(crate) const RESTORED: &str = "xdb_restore_";
pub(crate) const REPLACED: &str = "xdb_replaced_";
pub(crate) const DIGITS: usize = 16;
/// `datconnlimit` of a database whose `DROP DATABASE` was interrupted.
const INVALID: i32 = -2;

/// The connection limit of a database of this name: too large to limit anything.
pub(crate) fn mark_of(name: &str) -> i32 {
    const LEAST: u32 = 1_000_000_000;
    let hash = Sha256::digest(name.as_bytes());
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    i32::try_from(LEAST + number % LEAST).expect("below 2^31")
}

/// Whether a database of this name and connection limit was made, or set aside, by a restore.
pub(crate) fn is_own(name: &str, limit: i32) -> bool {
    let digits = [RESTORED, REPLACED]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    let is_named = digits.is_some_and(|digits| {
        digits.len() == DIGITS
            && digits
                .bytes()
                .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    });
    is_named && (limit == mark_of(name) || limit == INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_restores_own_by_its_name_and_its_mark() {
        for own in [RESTORED, REPLACED].map(|prefix| format!("{prefix}0123456789abcdef")) {
            assert!(
                is_own(&own, mark_of(&own)) && is_own(&own, INVALID),
                "{own}"
            );
            assert!(!is_own(&own, -1) && !is_own(&own, mark_of("app")), "{own}");
        }
        for other in [
            "xdb_restore_",
            "xdb_restore_0123456789ABCDEF",
            "xdb_restore_0123456789abcdef0",
            "xdb_restored_0123456789abcdef",
            "app",
        ] {
            assert!(!is_own(other, mark_of(other)), "{other}");
            assert!(!is_own(other, INVALID), "{other}");
        }
        // Other versions of xdb must find the same.
        assert_eq!(mark_of("xdb_restore_0123456789abcdef"), 1_323_246_620);
    }
}
