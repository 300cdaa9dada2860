//! The runbooks, compiled in from the files in runbooks/: a node may not reach the place that they were written at.

include!(concat!(env!("OUT_DIR"), "/shipped_runbooks.rs"));

/// The name and the text of the runbook called `named`, or at a path such as `runbooks/s3.md`.
pub(crate) fn runbook(named: &str) -> Option<(&'static str, &'static str)> {
    let name = named.strip_prefix("runbooks/").unwrap_or(named);
    let name = name.strip_suffix(".md").unwrap_or(name);
    RUNBOOKS.iter().find(|(own, _)| *own == name).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_runbook_is_in_the_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/runbooks");
        let files = std::fs::read_dir(folder).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let own = RUNBOOKS.iter().map(|(name, _)| format!("{name}.md"));
        assert_eq!(own.collect::<BTreeSet<_>>(), files);
        assert!(runbook("runbooks/s3.md").is_some() && runbook("s3").is_some());
        assert!(runbook("/etc/passwd").is_none());
    }
}
