-- Times are microseconds since 1970 in UTC.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL,
    target TEXT NOT NULL,
    started_us INTEGER NOT NULL,
    finished_us INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT,
    succeeded INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX runs_of_a_job ON runs (job, id);

CREATE TABLE alerts (
    key TEXT PRIMARY KEY,
    severity TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    -- NULL while the alert is pending.
    raised_us INTEGER,
    reason TEXT NOT NULL,
    value REAL,
    threshold REAL,
    runbook TEXT
) STRICT, WITHOUT ROWID;

-- What Redis has not confirmed yet. AUTOINCREMENT: a number is never handed out again.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL
) STRICT;

CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
