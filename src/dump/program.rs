//! `pg_dump` and `pg_dumpall`: their commands, and their error messages.

use std::time::Duration;

use procfs::{Current, LoadAverage};
use secrecy::ExposeSecret;
use tokio::process::Command;

use super::DumpError;
use super::inventory::Inventory;
use super::snapshot::{LONGEST, Snapshot};
use crate::config::Postgres;
use crate::postgres;
use crate::process::{self, Finished};

/// What `pg_dump --version` prints.
///
/// # Errors
/// When there is no such program, or it does not run.
pub(crate) async fn version(settings: &Postgres) -> Result<String, DumpError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut command = process::command(settings.bin_directory.join("pg_dump"));
    command.arg("--version");
    let finished = process::run(command, LIMIT).await?;
    if finished.status.success() {
        return Ok(String::from_utf8_lossy(&finished.stdout).trim().to_owned());
    }
    Err(DumpError::Failed {
        program: "pg_dump",
        what: "--version".to_owned(),
        reason: finished.last_words(),
    })
}

/// `pg_dump` refuses a server of a newer major version than its own.
///
/// # Errors
/// [`DumpError::ProgramTooOld`] for such a one.
pub(crate) fn judge_version(program: &str, server: u32) -> Result<(), DumpError> {
    let server = server / 10_000;
    match parse_major(program) {
        Some(major) if major < server => Err(DumpError::ProgramTooOld {
            version: program.to_owned(),
            server,
        }),
        _ => Ok(()),
    }
}

/// `17` of `pg_dump (PostgreSQL) 17.12 (Debian 17.12-1)`, and of `pg_dump (PostgreSQL) 17beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let end = number.find(|c: char| !c.is_ascii_digit());
    number[..end.unwrap_or(number.len())].parse().ok()
}

/// How `pg_dump` is run.
pub(crate) struct DumpOptions<'a> {
    /// `--compress`; `None` for its default.
    pub compression: Option<&'a str>,
    /// Whether the role that logs in is one.
    pub superuser: bool,
    pub lock_timeout: Duration,
}

/// Dumps `database` of the server of `settings` as it is in `snapshot` to standard output, in the custom format.
pub(crate) fn pg_dump(
    settings: &Postgres,
    database: &str,
    snapshot: &Snapshot,
    options: &DumpOptions<'_>,
) -> Command {
    let lock_timeout = options.lock_timeout.min(LONGEST).as_millis();
    let mut command = client(settings, "pg_dump", options.superuser);
    command
        .args(["--format=custom", "--no-password"])
        .args(options.compression.map(|it| format!("--compress={it}")))
        .arg(format!("--snapshot={}", snapshot.id))
        // Not the one that server, database or role set for clients.
        .arg(format!("--encoding={}", snapshot.encoding))
        .arg(format!("--lock-wait-timeout={lock_timeout}"))
        // As an argument a name like `a=b` would be a connection string; here it is a name.
        .env("PGDATABASE", database);
    command
}

/// The best compression that the `pg_dump` of `settings`, which prints `version`, can do: Zstandard, by several threads
/// where processors are idle. `None` for its default, gzip.
pub(crate) async fn compression(settings: &Postgres, version: &str) -> Option<String> {
    // It reads `method:detail` since 16.
    parse_major(version).filter(|major| *major >= 16)?;
    let workers = workers(processors(), load());
    let mut choices = vec!["zstd:level=3".to_owned()];
    if workers > 1 {
        choices.insert(0, format!("zstd:level=3,workers={workers}"));
    }
    for choice in choices {
        if can_compress(settings, &choice).await {
            return Some(choice);
        }
    }
    None
}

/// Asks `pg_dump` itself, which judges its options before it connects: to a server that is nowhere.
async fn can_compress(settings: &Postgres, choice: &str) -> bool {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut command = process::command(settings.bin_directory.join("pg_dump"));
    command
        .args(["--format=custom", "--no-password", "--file=/dev/null"])
        .arg(format!("--compress={choice}"))
        .env("PGHOST", "/nonexistent");
    // It warns of an option that it ignores (`workers`, up to 18), and refuses a method that it was built without.
    let finished = process::run(command, LIMIT).await;
    finished.is_ok_and(|finished| {
        finished.stderr.contains("/nonexistent") && !finished.stderr.contains("compression")
    })
}

/// Threads for a compression that leaves the busy processors alone; one is the program's own.
fn workers(processors: usize, load: f32) -> usize {
    const MOST: usize = 4;
    // Truncated where it cannot be that large.
    let busy = load.round().max(0.0) as usize;
    processors.saturating_sub(busy).clamp(1, MOST)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The load average of the last minute; where it is unknown, no processor is idle.
fn load() -> f32 {
    LoadAverage::current().map_or(f32::MAX, |load| load.one)
}

/// Dumps roles, with their password hashes, and tablespaces to standard output.
pub(crate) fn pg_dumpall_globals(settings: &Postgres, found: &Inventory) -> Command {
    let mut command = client(settings, "pg_dumpall", found.is_superuser);
    command
        .args(["--globals-only", "--no-password"])
        .arg(format!("--encoding={}", found.encoding))
        .arg("--database")
        .arg(&settings.database);
    command
}

/// A program of the server's own release, never Debian's wrapper of the same name.
pub(crate) fn client(settings: &Postgres, program: &str, superuser: bool) -> Command {
    let options = if superuser {
        postgres::superuser_program_options()
    } else {
        postgres::program_options()
    };
    let mut command = process::command(settings.bin_directory.join(program));
    process::low_priority(&mut command);
    command
        .env("PGHOST", &settings.host)
        .env("PGPORT", settings.port.to_string())
        .env("PGUSER", &settings.user)
        .env("PGSSLMODE", &settings.sslmode)
        .env("PGAPPNAME", format!("xdb {program}"))
        // What server, database and role set must change nothing of a dump.
        .env("PGOPTIONS", options)
        .env(
            "PGCONNECT_TIMEOUT",
            settings.connect_timeout.as_secs().max(1).to_string(),
        );
    if let Some(roots) = &settings.sslrootcert {
        command.env("PGSSLROOTCERT", roots);
    }
    if let Some(password) = &settings.password {
        command.env("PGPASSWORD", password.expose_secret());
    }
    command
}

/// Whether `pg_dump` timed out while it waited for a table that another session has locked.
pub(crate) fn waited_for_lock(finished: &Finished) -> bool {
    let words = &finished.stderr;
    // It waits by statement_timeout. Other reasons are a recovery conflict, and a person who cancels it.
    words.contains("Query was: LOCK TABLE")
        && words.contains("canceling statement due to statement timeout")
}

/// Why the program failed: its first error with the server's words, without the statement.
pub(crate) fn reason(finished: &Finished) -> String {
    parse_reason(&finished.stderr).unwrap_or_else(|| finished.status.to_string())
}

fn parse_reason(stderr: &str) -> Option<String> {
    let mut lines = stderr
        .lines()
        .skip_while(|line| !line.contains(": error: "));
    let error = lines.next()?.split_once(": error: ")?.1;
    let details = lines
        .filter_map(|line| Some(line.split_once(": detail: ")?.1))
        .filter(|detail| !detail.starts_with("Query was:") && !detail.starts_with("Command was:"))
        .take(2);
    let sentences: Vec<&str> = [error].into_iter().chain(details).map(str::trim).collect();
    Some(sentences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_an_older_major_version_is_refused() {
        for (program, server, good) in [
            ("pg_dump (PostgreSQL) 17.12 (Debian 17.12-1)", 170_011, true),
            ("pg_dump (PostgreSQL) 18beta1", 170_011, true),
            ("pg_dump (PostgreSQL) 16.4", 170_000, false),
            ("pg_dump (PostgreSQL) 9.6.24", 170_000, false),
            ("EnterpriseDB", 170_000, true),
        ] {
            assert_eq!(judge_version(program, server).is_ok(), good, "{program}");
        }
    }

    #[test]
    fn only_idle_processors_compress() {
        for (processors, load, expected) in [
            (2, 0.1, 2),
            (2, 1.2, 1),
            (16, 3.9, 4),
            (8, 6.4, 2),
            (1, 0.0, 1),
            (4, f32::MAX, 1),
        ] {
            assert_eq!(workers(processors, load), expected, "{processors} {load}");
        }
    }

    #[test]
    fn the_reason_is_the_first_error_with_its_details() {
        let copy = "pg_dump: warning: something\n\
            pg_dump: error: Dumping the contents of table \"t\" failed: PQgetResult() failed.\n\
            pg_dump: detail: Error message from server: ERROR:  canceling statement due to user request\n\
            pg_dump: detail: Command was: COPY public.t (a) TO stdout;";
        assert_eq!(
            parse_reason(copy).unwrap(),
            "Dumping the contents of table \"t\" failed: PQgetResult() failed.; \
             Error message from server: ERROR:  canceling statement due to user request"
        );
        let lock = "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout\n\
            pg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE";
        assert_eq!(
            parse_reason(lock).unwrap(),
            "query failed: ERROR:  canceling statement due to lock timeout"
        );
        assert_eq!(parse_reason("pg_dump: warning: only this"), None);
    }
}
