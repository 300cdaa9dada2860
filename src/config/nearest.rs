//! Which known name a misspelt one most likely means. Pure.

/// The candidate closest to `wanted`, unless even that one is too far to be meant.
pub(super) fn nearest(
    wanted: &str,
    candidates: impl IntoIterator<Item = String>,
) -> Option<String> {
    let limit = 1 + wanted.chars().count() / 5;
    candidates
        .into_iter()
        .map(|candidate| (distance(wanted, &candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: letters to insert, drop or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_letters() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("prot", "port", 2),
            ("abc", "abd", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

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
