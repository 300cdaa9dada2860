//! Wrong usage, one attempt, and the command that replaces the process once ready.

use super::*;

#[test]
fn wrong_usage_is_2_and_says_what_to_do() {
    let lab = Lab::start_bare(Program::Walrus);
    for (flags, hint) in [
        ("--timeout abc", "--timeout"),
        ("--timeout -1", ""),
        ("--timeout 99999999999999999999", "--timeout"),
        ("--attempt-timeout 0", "--attempt-timeout"),
        ("--port 0", "--port"),
        ("--role leader", "primary"),
        ("--sslmode sometimes", "--sslmode"),
        ("--sslmode verify-full", "--sslrootcert"),
        (
            "--sslmode verify-ca --sslrootcert /nonexistent",
            "/nonexistent",
        ),
        (
            "--sslmode verify-ca --sslrootcert /etc/passwd",
            "/etc/passwd",
        ),
        ("--url postgresql://app:hush@management/app", "PGPASSWORD"),
        ("--url http://management", "postgresql://"),
        ("postgresql://app:hush@management/app", "--url"),
        ("--url=postgresql://app:hush@management --bogus", "--url"),
        ("--dbname mysql://app:hush@management", "PGPASSWORD"),
        ("--port postgres://app:hush@management", "--port"),
        ("--host app:hush@management", "--url"),
        ("--sslrootcert system --sslmode prefer", "verify-full"),
        ("--url postgresql://management --host management", "--host"),
        ("--target primary --role replica", "--role"),
        ("--quiet --json", "--json"),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        assert_refused(&lab, &format!("xdb wait {flags}"), hint);
    }
    // libpq's variables count where nothing else sets the same.
    for (variables, hint) in [
        ("PGPORT=abc", "PGPORT"),
        ("PGSSLMODE=prefer PGSSLROOTCERT=system", "verify-full"),
        ("PGREQUIRESSL=1 PGSSLROOTCERT=system", "verify-full"),
        ("PGREQUIREAUTH=kerberos", "require_auth"),
        ("PGGSSENCMODE=require", "gssencmode=require"),
        ("PGSSLCERTMODE=require", "sslcertmode=require"),
        ("PGSERVICE=hush", "PGSERVICE cannot be used"),
        ("PGSSLCRL=$'\\xff'", "PGSSLCRL"),
    ] {
        assert_refused(&lab, &format!("{variables} xdb wait"), hint);
    }
}

/// Asserts that `command` is wrong usage, that it says `hint`, and that it shows no secret.
fn assert_refused(lab: &Lab, command: &str, hint: &str) {
    let said = lab.sh_as_postgres(command);
    assert_eq!(said.code, 2, "{command}: {said:?}");
    assert!(said.stderr.contains(hint), "{command}: {said:?}");
    assert!(!said.stderr.contains("hush"), "{command}: {said:?}");
}

#[test]
fn timeout_0_makes_one_attempt() {
    let lab = lab();
    for flags in ["--port 15432 --timeout 0", "--port 15432 --timeout 0s"] {
        wait(&lab, &format!("--host 127.0.0.1 {flags}")).assert_ready(flags);
    }
    let ended = wait(&lab, "--host 127.0.0.1 --port 1 --timeout 0");
    ended.assert_failed("one attempt", 1, "haproxy", secs(0));
    assert!(ended.took < secs(10), "{ended:?}");
    // A time that no clock can hold is a long time, and no panic.
    let begin = Instant::now();
    let said = lab.sh_as_postgres(
        "timeout -s TERM 2 xdb wait --host 127.0.0.1 --port 1 --timeout 9223372036854775807",
    );
    assert_eq!(said.code, 124, "{said:?}");
    assert!(begin.elapsed() >= secs(2));
}

#[test]
fn once_ready_it_becomes_the_command() {
    let lab = lab();
    let run = |command: &str| lab.sh_as_postgres(&format!("xdb wait {WAY} --timeout 20 {command}"));
    let said = run("-- bash -c 'echo \"$PPID started: $1\"; exit 7' app one");
    assert_eq!(said.code, 7, "{said:?}");
    assert!(said.stdout.contains("started: one"), "{said:?}");
    let said = run("-- /nonexistent");
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("cannot run /nonexistent"), "{said:?}");
    let said = lab.sh_as_postgres("xdb wait --host 127.0.0.1 --port 1 --timeout 0 -- echo started");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
    let said = lab.sh_as_postgres(&format!("xdb wait {WAY} --timeout 20 --quiet"));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
}
