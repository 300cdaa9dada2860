//! The definitions that come with xdb, compiled in from the files in checks/.

include!(concat!(env!("OUT_DIR"), "/shipped_checks.rs"));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::super::parse::parse;
    use super::*;

    fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let paths = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_file_in_checks_is_compiled_in_and_parses() {
        let shipped: BTreeSet<_> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(shipped, stems("checks", "toml"));
        for (name, text) in SHIPPED {
            let definition = parse(name, name, text).unwrap_or_else(|error| panic!("{error}"));
            let runbook = format!("runbooks/{name}.md");
            assert_eq!(definition.runbook, Some(runbook));
        }
    }

    #[test]
    fn every_check_has_its_runbook_and_every_runbook_its_four_parts() {
        let runbooks = stems("runbooks", "md");
        for (name, _) in SHIPPED {
            assert!(runbooks.contains(*name), "runbooks/{name}.md is missing");
        }
        for name in runbooks {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("runbooks/{name}.md"));
            let text = fs::read_to_string(path).unwrap();
            let parts: Vec<_> = text.split("\n## ").skip(1).collect();
            let headings: Vec<_> = parts
                .iter()
                .map(|part| part.lines().next().unwrap())
                .collect();
            assert_eq!(
                headings,
                ["Meaning", "Impact", "Diagnosis", "Mitigation"],
                "runbooks/{name}.md"
            );
            assert!(
                parts
                    .iter()
                    .all(|part| part.lines().skip(1).any(|line| !line.is_empty())),
                "runbooks/{name}.md has an empty part"
            );
        }
    }
}
