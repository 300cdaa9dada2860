//! `/etc/environment` as Linux-PAM's `pam_env` reads it: no shell, no escapes, no `$`.
//!
//! The rules are those of Linux-PAM 1.7.0 (Debian 13). 1.5.2 (Debian 12) reads the same, except that it
//! keeps the blanks a continuation line begins with, skips empty lines and comments inside a
//! continuation, and gives up at a line past 8,191 bytes.
//! This file knows no key of xdb's and does no IO.

use std::collections::BTreeMap;

const BLANKS: &[u8] = b" \t";

/// What the file gives one name.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Assigned {
    /// The bytes as they stand: pam_env asks for no encoding.
    pub value: Vec<u8>,
    /// Counted from 1; the first line of a continued one.
    pub line: usize,
}

/// Parses the whole file; the last assignment of a name wins, and a bare name takes it away again.
///
/// Lines that pam_env would ignore are ignored: it never refuses a file.
pub(super) fn parse(text: &[u8]) -> BTreeMap<String, Assigned> {
    let mut assigned = BTreeMap::new();
    for (line, content) in logical_lines(text) {
        match parse_line(&content) {
            Some((name, Some(value))) => {
                assigned.insert(name, Assigned { value, line });
            }
            Some((name, None)) => {
                assigned.remove(&name);
            }
            None => {}
        }
    }
    assigned
}

/// Joins what backslashes continue, and cuts comments off.
fn logical_lines(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // PAM works on C strings: it finds no comment behind a NUL byte.
        let visible = before(line, 0);
        let comment = visible.iter().position(|byte| *byte == b'#');
        // Blanks may stand between the backslash and the end of the line.
        let continued = trim_end(line)
            .strip_suffix(b"\\")
            .filter(|_| comment.is_none());
        let content = match (continued, comment) {
            (Some(content), _) => content,
            (None, Some(comment)) => &line[..comment],
            (None, None) => line,
        };
        let (number, mut joined) = open.take().unwrap_or((index + 1, Vec::new()));
        // A line that holds nothing so far does not begin anything.
        let number = if joined.is_empty() { index + 1 } else { number };
        joined.extend_from_slice(trim_start(content));
        if continued.is_some() {
            open = Some((number, joined));
        } else {
            lines.push((number, before(&joined, 0).to_vec()));
        }
    }
    // A continuation that the end of the file cuts short is dropped.
    lines
}

/// The name, and its value unless the line holds a bare name; `None` for a line that is ignored.
fn parse_line(line: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    // `export` and exactly one space: a second one would belong to the name.
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let line = before(line, b'\n');
    let equals = line.iter().position(|byte| *byte == b'=');
    let name = &line[..equals.unwrap_or(line.len())];
    let valid = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if name.is_empty() || !valid {
        return None;
    }
    let name = String::from_utf8_lossy(name).into_owned();
    Some((name, equals.map(|equals| unquote(&line[equals + 1..]))))
}

/// Drops a quote at the beginning and then any quote at the very end: they need not match, and blanks
/// behind the closing one keep it.
fn unquote(value: &[u8]) -> Vec<u8> {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'');
    match value.split_first() {
        Some((first, rest)) if is_quote(first) => match rest.split_last() {
            Some((last, inner)) if is_quote(last) => inner.to_vec(),
            _ => rest.to_vec(),
        },
        _ => value.to_vec(),
    }
}

fn before(text: &[u8], end: u8) -> &[u8] {
    text.split(|byte| *byte == end).next().unwrap_or_default()
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| BLANKS.contains(byte)).count();
    &text[blanks..]
}

fn trim_end(text: &[u8]) -> &[u8] {
    let blanks = text
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n'))
        .count();
    &text[..text.len() - blanks]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Vec<(String, String)> {
        let shown = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        parse(text)
            .into_iter()
            .map(|(name, it)| (name, shown(it.value)))
            .collect()
    }

    #[track_caller]
    fn check(cases: &[(&str, &[(&str, &str)])]) {
        for (text, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!(read(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn names_are_ascii_letters_digits_and_underscores_and_other_lines_are_ignored() {
        check(&[
            ("A=1\nB_2=2\n3=3\n", &[("3", "3"), ("A", "1"), ("B_2", "2")]),
            ("A B=1\nA-B=1\nA.B=1\nÄ=1\n", &[]),
            ("A =1\n", &[]),
            ("=1\n", &[]),
            ("a=1\nA=2\n", &[("A", "2"), ("a", "1")]),
            ("\r\nA=1\r\n", &[("A", "1\r")]),
        ]);
    }

    #[test]
    fn leading_blanks_and_one_export_are_skipped() {
        check(&[
            ("  \t A=1\n", &[("A", "1")]),
            ("export A=1\n", &[("A", "1")]),
            ("   export A=1\n", &[("A", "1")]),
            ("export  A=1\n", &[]),
            ("export\tA=1\n", &[]),
            ("export export A=1\n", &[]),
            ("export =1\n", &[]),
            ("export=1\n", &[("export", "1")]),
        ]);
    }

    #[test]
    fn a_hash_begins_a_comment_even_inside_quotes() {
        check(&[
            ("# A=1\n  # B=2\n\n \t\nC=3\n", &[("C", "3")]),
            ("A=1 # why\n", &[("A", "1 ")]),
            ("A=p#ss\n", &[("A", "p")]),
            ("A=\"p#ss\"\n", &[("A", "p")]),
            ("A#=1\n", &[]),
        ]);
    }

    #[test]
    fn quotes_go_only_when_the_value_begins_with_one() {
        check(&[
            ("A=\"a b\"\n", &[("A", "a b")]),
            ("A='a b'\n", &[("A", "a b")]),
            ("A=\"a b'\n", &[("A", "a b")]),
            ("A=\"a'b\"\n", &[("A", "a'b")]),
            ("A=\"a b\n", &[("A", "a b")]),
            ("A=a\"b\"\n", &[("A", "a\"b\"")]),
            ("A=\"\"\"\n", &[("A", "\"")]),
            ("A=\"b\"  \n", &[("A", "b\"  ")]),
            ("A= \"b\"\n", &[("A", " \"b\"")]),
            ("A=\"b\"\r\n", &[("A", "b\"\r")]),
            ("A=\"\nB='\nC=\"\"\n", &[("A", ""), ("B", ""), ("C", "")]),
        ]);
    }

    #[test]
    fn nothing_is_expanded_or_escaped() {
        check(&[
            (
                "A=p$word ${HOME} @{HOME} `x` $(x)\n",
                &[("A", "p$word ${HOME} @{HOME} `x` $(x)")],
            ),
            ("A=C:\\new\\t\\\\x\n", &[("A", "C:\\new\\t\\\\x")]),
            ("A=\"a\\\"b\"\n", &[("A", "a\\\"b")]),
            ("A=b=c==\n", &[("A", "b=c==")]),
            ("A= b \t\n", &[("A", " b \t")]),
        ]);
    }

    #[test]
    fn a_backslash_at_the_end_continues_the_line() {
        check(&[
            ("A=1\\\n2\n", &[("A", "12")]),
            ("A=1 \\ \t\n2\n", &[("A", "1 2")]),
            ("A\\\n=1\n", &[("A", "1")]),
            ("A=1\\\\\n2\n", &[("A", "1\\2")]),
            ("\\\nA=1\n", &[("A", "1")]),
            // Within a comment it continues nothing.
            ("A=1 # \\\nB=2\n", &[("A", "1 "), ("B", "2")]),
            ("# \\\nB=2\n", &[("B", "2")]),
            // The next lines differ in 1.5.2, see above.
            ("A=1\\\n  2\n", &[("A", "12")]),
            ("A=1\\\n\nB=2\n", &[("A", "1"), ("B", "2")]),
            ("A=1\\\n# why\nB=2\n", &[("A", "1"), ("B", "2")]),
        ]);
    }

    #[test]
    fn the_end_of_the_file_ends_a_line_but_not_a_continuation() {
        check(&[
            ("", &[]),
            ("A=1", &[("A", "1")]),
            ("A=1\nB=2\\", &[("A", "1")]),
            ("A=1\\\n", &[]),
        ]);
    }

    #[test]
    fn the_last_assignment_wins_and_a_bare_name_takes_it_away() {
        check(&[
            ("A=1\nA=2\n", &[("A", "2")]),
            ("A=1\nA=\n", &[("A", "")]),
            ("A=1\nA\n", &[]),
            ("A\nA=1\n", &[("A", "1")]),
            ("A=1\nexport A\n", &[]),
        ]);
    }

    #[test]
    fn a_long_line_and_bytes_that_are_no_text_are_read() {
        let long = "x".repeat(100_000);
        assert_eq!(read(format!("A={long}\nB=2\n").as_bytes()).len(), 2);
        assert_eq!(parse(b"A=\xff\n")["A"].value, b"\xff");
        // A NUL byte ends the line for PAM, and hides a comment sign.
        assert_eq!(
            read(b"A=1\x002\nB=2\n"),
            [("A".into(), "1".into()), ("B".into(), "2".into())]
        );
    }

    #[test]
    fn an_assignment_knows_its_line() {
        let assigned = parse(b"# one\nA=1\n\\\nB=2\\\n3\nC=4\n");
        let lines: Vec<_> = assigned.values().map(|assigned| assigned.line).collect();
        assert_eq!(lines, [2, 4, 6]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }

        #[test]
        fn every_plain_value_reads_back_as_written(value in "[a-zA-Z0-9/+=_.:$@ -]{0,60}[a-z]") {
            let expected = vec![("A".to_owned(), value.clone())];
            let text = format!("A=\"{value}\"\n");
            prop_assert_eq!(read(text.as_bytes()), expected);
        }
    }
}
