//! Keeps faults.toml honest: a fault that an issue names has a test, and the test exists.

use std::collections::HashSet;
use std::process::Command;

#[test]
fn every_listed_fault_has_its_test() {
    let problems = problems(include_str!("faults.toml"), &runnable_tests());
    assert!(
        problems.is_empty(),
        "tests/it/faults.toml:\n  {}",
        problems.join("\n  ")
    );
}

/// The tests of this very program, asked from itself: what is not compiled in, or is ignored, is not there.
fn runnable_tests() -> HashSet<String> {
    let list = |only_ignored: bool| -> HashSet<String> {
        let listed = Command::new(std::env::current_exe().expect("the path of this program"))
            .args(["--list", "--format=terse"])
            .args(only_ignored.then_some("--ignored"))
            .output()
            .expect("this program lists its tests");
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect()
    };
    &list(false) - &list(true)
}

/// Says what is wrong with the list, a line a problem.
fn problems(list: &str, tests: &HashSet<String>) -> Vec<String> {
    let document: toml_edit::DocumentMut = match list.parse() {
        Ok(document) => document,
        Err(error) => return vec![error.to_string()],
    };
    let faults = document
        .get("fault")
        .and_then(|faults| faults.as_array_of_tables());
    let mut names = HashSet::new();
    let mut problems = Vec::new();
    for fault in faults.into_iter().flatten() {
        let text = |key: &str| {
            fault
                .get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
        };
        let (name, test) = (text("name"), text("test"));
        if name.is_empty()
            || fault
                .get("issue")
                .and_then(|issue| issue.as_integer())
                .is_none()
        {
            problems.push(format!(
                "an entry (test \"{test}\") is without a name or an issue"
            ));
        }
        if !names.insert(name) {
            problems.push(format!("\"{name}\" is listed twice"));
        }
        // The body of a for_each_program! is the module of its two tests.
        let exists = tests.contains(test) || tests.contains(&format!("{test}::walrus"));
        if test.is_empty() {
            problems.push(format!("\"{name}\" has no test"));
        } else if !exists {
            problems.push(format!(
                "\"{name}\" names the test {test}, which does not exist or is ignored"
            ));
        }
    }
    problems
}

#[test]
fn a_wrong_list_is_found() {
    let tests: HashSet<String> = ["a::one", "a::both::walrus", "a::both::wal_g"]
        .map(str::to_owned)
        .into();
    let entry = |name: &str, test: &str| {
        format!("[[fault]]\nissue = 3\nname = \"{name}\"\ntest = \"{test}\"\n")
    };
    for (list, expected) in [
        (String::new(), ""),
        (entry("x", "a::one") + &entry("y", "a::both"), ""),
        (
            entry("x", "a::one") + &entry("x", "a::one"),
            "\"x\" is listed twice",
        ),
        (entry("x", ""), "\"x\" has no test"),
        (
            entry("x", "a::two"),
            "\"x\" names the test a::two, which does not exist or is ignored",
        ),
        (
            "[[fault]]\nname = \"x\"\ntest = \"a::one\"".to_owned(),
            "an entry (test \"a::one\") is without a name or an issue",
        ),
    ] {
        assert_eq!(problems(&list, &tests).join("\n"), expected, "{list}");
    }
    assert_eq!(problems("[[fault", &tests).len(), 1);
}
