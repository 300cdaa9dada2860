//! Paths in commands that are printed to be copied.

use std::path::Path;

/// `path` as one word of a shell's.
pub(crate) fn shell(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+,:@".contains(character);
    if !path.is_empty() && path.chars().all(is_plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        for (path, word) in [
            ("/var/lib/postgresql/17/main", "/var/lib/postgresql/17/main"),
            ("/srv/as of", "'/srv/as of'"),
            ("/srv/$(id)", "'/srv/$(id)'"),
            ("/srv/it's", r"'/srv/it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(shell(Path::new(path)), word);
        }
    }
}
