//! Which known name a misspelt one most likely means. Pure.

/// The candidate closest to `wanted`, unless even that one is too far to be meant.
pub(super) fn nearest(
    wanted: &str,
    candidates: impl IntoIterator<Item = String>,
) -> Option<String> {
    let limit = 1 + wanted.chars().count() / 5;
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(wanted, &candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_found_and_a_foreign_one_is_not() {
        let known = || ["postgres.port", "postgres.host", "s3.region"].map(str::to_owned);
        assert_eq!(
            nearest("postgres.prot", known()).as_deref(),
            Some("postgres.port")
        );
        assert_eq!(nearest("s3.regoin", known()).as_deref(), Some("s3.region"));
        assert_eq!(nearest("redis.url", known()), None);
    }
}
