-- The plots of the page: the highest value of each series in each stretch of `step_secs`, which begins at `at_secs` since 1970.
CREATE TABLE IF NOT EXISTS samples (
    series TEXT NOT NULL,
    step_secs INTEGER NOT NULL,
    at_secs INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (series, step_secs, at_secs)
) STRICT, WITHOUT ROWID;
