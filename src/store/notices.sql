-- JSON: what consumers were told of a raised alert. NULL: it is pending, or an older xdb raised it.
ALTER TABLE alerts ADD COLUMN notice TEXT;

-- Copies of the cluster's silences, as JSON: Redis may lose them.
CREATE TABLE silences (
    id TEXT PRIMARY KEY,
    silence TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What a receiver has not confirmed yet; each receiver has its own order. AUTOINCREMENT: a number is never handed out again.
CREATE TABLE notices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    -- The event's own name, the same on each attempt.
    id TEXT NOT NULL,
    event TEXT NOT NULL
) STRICT;
CREATE INDEX notices_of_a_receiver ON notices (receiver, seq);
CREATE INDEX notices_by_id ON notices (receiver, id);
