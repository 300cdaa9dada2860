use super::*;

fn named<T: Clone>(values: &[(&str, T)]) -> Option<BTreeMap<String, T>> {
    let values = values.iter().cloned();
    Some(
        values
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn sequence(value: i64, is_called: bool, value_at_end: Option<i64>) -> Sequence {
    Sequence {
        value,
        is_called,
        value_at_end,
    }
}

fn version(recorded: Option<&str>, actual: Option<&str>) -> CollationVersion {
    CollationVersion {
        recorded: recorded.map(str::to_owned),
        actual: actual.map(str::to_owned),
    }
}

fn whole() -> Contents {
    Contents {
        extensions: named(&[("amcheck", "1.4".to_owned())]),
        sequences: named(&[("public.s", sequence(7, true, None))]),
        large_objects: Some(LargeObjects {
            number: 2,
            bytes: Some(10),
        }),
        collations: named(&[(
            "pg_catalog.\"default\"",
            version(Some("2.41"), Some("2.41")),
        )]),
        ..Contents::default()
    }
}

#[track_caller]
fn judged(change: impl FnOnce(&mut Contents), word: &str, reason: &str) {
    let mut restored = whole();
    change(&mut restored);
    let verdict = judge_contents(&whole(), &restored);
    assert_eq!(verdict.word(), word, "{verdict:?}");
    let said = verdict.reason().unwrap_or_default();
    assert!(said.contains(reason), "{said}");
}

#[test]
fn every_difference_of_the_contents_has_its_own_reason() {
    judged(|_| {}, "ok", "");
    judged(
        |it| it.extensions = named(&[]),
        "critical",
        "the extension amcheck is in the manifest and not in the dump",
    );
    judged(
        |it| it.extensions = named(&[("amcheck", "1.5".to_owned())]),
        "warning",
        "amcheck was restored in version 1.5, the manifest says 1.4",
    );
    judged(
        |it| it.sequences = named(&[("public.s", sequence(6, true, None))]),
        "critical",
        "public.s was restored with the value 6, the manifest says the value 7",
    );
    judged(
        |it| it.sequences = named(&[("public.s", sequence(7, false, None))]),
        "critical",
        "the value 7, not used yet, the manifest says the value 7",
    );
    let others = [
        ("public.a", sequence(1, true, None)),
        ("public.b", sequence(1, true, None)),
    ];
    judged(
        |it| it.sequences = named(&others),
        "critical",
        "public.s is in the manifest and not in the dump (and 2 more)",
    );
    judged(
        |it| it.large_objects.as_mut().unwrap().number = 1,
        "critical",
        "1 large objects were restored, the manifest counts 2",
    );
    judged(
        |it| it.large_objects.as_mut().unwrap().bytes = Some(9),
        "critical",
        "restored with 9 bytes, the manifest counts 10",
    );
}

#[test]
fn a_sequence_that_moved_may_have_any_value_between() {
    for (value, is_unknown) in [(7, false), (8, false), (9, false), (6, true), (10, true)] {
        let restored = sequence(value, true, None);
        for (begun, ended) in [(7, 9), (9, 7)] {
            let manifest = sequence(begun, true, Some(ended));
            let verdict = judge_sequence("s", &manifest, &restored);
            assert_eq!(verdict.is_some(), is_unknown, "{value}: {verdict:?}");
            assert!(verdict.is_none_or(|it| it.word() == "unknown"));
        }
    }
}

#[test]
fn another_collation_version_is_a_warning_about_indexes() {
    let manifest = |version| Contents {
        collations: named(&[("c", version)]),
        ..Contents::default()
    };
    let here = manifest(version(None, Some("2.41")));
    for (dumped, word, reason) in [
        (version(Some("2.41"), Some("2.41")), "ok", ""),
        (version(None, Some("2.41")), "ok", ""),
        // The C locale has no version.
        (version(None, None), "ok", ""),
        (
            version(Some("2.36"), Some("2.41")),
            "warning",
            "db2 sorts by version 2.41: indexes on text may miss rows",
        ),
        (
            version(Some("2.36"), Some("2.36")),
            "warning",
            "is version 2.36 on db2 and 2.41 here",
        ),
    ] {
        let verdict = judge_collations(&manifest(dumped), &here, "db2");
        assert_eq!(verdict.word(), word, "{verdict:?}");
        assert!(
            verdict.reason().unwrap_or_default().contains(reason),
            "{verdict:?}"
        );
    }
}

#[test]
fn what_the_manifest_does_not_say_exactly_is_named() {
    let rows = BTreeMap::from([("public.large".to_owned(), 5)]);
    assert!(not_compared(&whole(), &whole(), &rows).is_empty());
    let older = not_compared(&Contents::default(), &whole(), &rows);
    assert_eq!(older.len(), 4, "{older:?}");
    let mut estimated = whole();
    estimated.estimated_rows = BTreeMap::from([("public.large".to_owned(), Some(4))]);
    estimated.large_objects.as_mut().unwrap().bytes = None;
    let mut here = whole();
    here.collations = named(&[]);
    let missing = not_compared(&estimated, &here, &rows);
    assert_eq!(missing.len(), 3, "{missing:?}");
    assert!(
        missing[0].contains("5 were restored, the manifest's estimate is 4"),
        "{missing:?}"
    );
    assert_eq!(missing[1], "the size of the large objects");
    assert!(
        missing[2].contains("whose version is unknown here"),
        "{missing:?}"
    );
}
