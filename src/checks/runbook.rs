//! Where a runbook is, and its text where xdb has it.

use super::Definition;
use crate::model::RUNBOOKS;

/// What there is to show of a runbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runbook {
    /// Compiled in.
    Packaged(&'static str),
    /// The file or address that an operator's check names.
    Elsewhere(String),
}

/// The runbook of the check, alert or procedure `name`; `definitions` know those of an operator's checks.
pub(crate) fn runbook(name: &str, definitions: &[Definition]) -> Option<Runbook> {
    let own = definitions.iter().find(|one| one.name == name);
    let named = own.and_then(|own| own.runbook.as_deref());
    let name = match named {
        Some(named) => match packaged_stem(named) {
            Some(stem) => stem,
            None => return Some(Runbook::Elsewhere(named.to_owned())),
        },
        // As an alert names it, too.
        None => packaged_stem(name).unwrap_or(name),
    };
    let found = RUNBOOKS.iter().find(|(stem, _)| *stem == name);
    found.map(|(_, text)| Runbook::Packaged(text))
}

/// The packaged runbooks: name and title.
pub(crate) fn runbooks() -> impl Iterator<Item = (&'static str, &'static str)> {
    RUNBOOKS.iter().map(|(name, text)| {
        let title = text.lines().next().unwrap_or_default();
        let title = title.trim_start_matches('#').trim();
        // "name: title", as each begins.
        let title = title.split_once(": ").map_or(title, |(_, title)| title);
        (*name, title)
    })
}

fn packaged_stem(path: &str) -> Option<&str> {
    path.strip_prefix("runbooks/")?.strip_suffix(".md")
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    #[test]
    fn a_runbook_is_found_by_its_name_and_through_its_check() {
        let own = |name: &str, runbook: &str| {
            let text = format!("title = 't'\nkind = 'postgresql_up'\nrunbook = '{runbook}'");
            parse(name, name, &text).unwrap()
        };
        let own = [
            own("mine", "runbooks/archiver.md"),
            own("other", "https://wiki/other"),
        ];
        let title = |name: &str| match runbook(name, &own) {
            Some(Runbook::Packaged(text)) => text.lines().next().unwrap().to_owned(),
            Some(Runbook::Elsewhere(place)) => place,
            None => "none".to_owned(),
        };
        assert!(title("archiver").starts_with("# archiver"));
        assert_eq!(title("runbooks/archiver.md"), title("archiver"));
        assert_eq!(title("mine"), title("archiver"));
        assert_eq!(title("other"), "https://wiki/other");
        assert!(title("promote").starts_with("# "));
        assert_eq!(title("nothing"), "none");
        assert!(runbooks().all(|(name, title)| !name.is_empty() && !title.is_empty()));
    }
}
