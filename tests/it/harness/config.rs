//! The lab's /etc/xdb/xdb.toml.

use super::{Program, SCRATCH};

/// The lab's settings, with those of `extra` added or, where section and key are the same, replaced.
///
/// Knows only `[section]` and `key = value` on a line of its own: what tests need.
pub fn render(program: Program, extra: &str) -> String {
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for line in base(program)
        .lines()
        .chain(extra.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line.starts_with('[') {
            // Made the last one, as it is the one that lines are added to.
            let at = sections.iter().position(|(name, _)| name == line);
            let section =
                at.map_or_else(|| (line.to_owned(), Vec::new()), |at| sections.remove(at));
            sections.push(section);
        } else {
            let (_, lines) = sections
                .last_mut()
                .expect("a setting stands below a [section]");
            let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
            lines.retain(|other| key(other) != key(line));
            lines.push(line.to_owned());
        }
    }
    sections
        .into_iter()
        .map(|(name, lines)| format!("{name}\n{}\n\n", lines.join("\n")))
        .collect()
}

fn base(program: Program) -> String {
    let program = program.path();
    format!(
        r#"
        [cluster]
        name = "main"

        [postgres]
        host = "127.0.0.1"
        port = 5432
        user = "postgres"
        database = "postgres"
        password = "lab-password"
        data_directory = "/var/lib/postgresql/17/main"
        bin_directory = "/usr/lib/postgresql/17/bin"

        [s3]
        region = "us-east-1"
        endpoint = "http://127.0.0.1:7000"
        force_path_style = true
        access_key_id = "lab"
        secret_access_key = "lab-secret-key"

        [archive]
        program = "{program}"
        repository = "s3://walg-test/main/pg17"
        compression = "lz4"
        push_timeout = "20s"
        fetch_timeout = "20s"

        [dump]
        repository = "s3://pgdump-test/main"

        [restore_test]
        directory = "{SCRATCH}"
        "#
    )
}

#[test]
fn extra_settings_replace_and_add() {
    let rendered = render(
        Program::Walrus,
        "[postgres]\npassword = \"wrong\"\n[new]\nkey = 1",
    );
    assert!(!rendered.contains("lab-password"), "{rendered}");
    assert!(
        rendered.contains("bin_directory = \"/usr/lib/postgresql/17/bin\"\npassword = \"wrong\"\n"),
        "{rendered}"
    );
    assert!(rendered.ends_with("[new]\nkey = 1\n\n"), "{rendered}");
    assert_eq!(rendered.matches("[postgres]").count(), 1);
}
