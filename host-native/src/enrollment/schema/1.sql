-- The checks mirror `NodeId`, `EnrollmentRef`, `Status` and `RolloutState`.

CREATE TABLE enrollment (
    node_id        TEXT NOT NULL PRIMARY KEY
                   CHECK (length(node_id) BETWEEN 1 AND 128 AND node_id NOT GLOB '*[^A-Za-z0-9._-]*' AND node_id NOT GLOB '.*'),
    enrollment_ref TEXT NOT NULL
                   CHECK (length(enrollment_ref) BETWEEN 1 AND 256 AND enrollment_ref NOT GLOB '*[^!-~]*'),
    status         TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
    rollout_state  TEXT NOT NULL
                   CHECK (rollout_state IN ('<none>', 'pending', 'acknowledged', 'active', 'rolled_back', 'failed')),
    serial         INTEGER NOT NULL CHECK (serial >= 1),
    created_at_ms  INTEGER NOT NULL CHECK (created_at_ms >= 0),
    updated_at_ms  INTEGER NOT NULL CHECK (updated_at_ms >= 0)
) STRICT, WITHOUT ROWID;

-- Two ids that people would read as one cannot both be enrolled.
CREATE UNIQUE INDEX enrollment_one_case ON enrollment (lower(node_id));

CREATE INDEX enrollment_by_status ON enrollment (status, node_id);

-- `before` and `after` take any word: the history tells what was, even when what was is wrong.
CREATE TABLE history (
    change_id            INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id              TEXT NOT NULL REFERENCES enrollment (node_id),
    serial               INTEGER NOT NULL CHECK (serial >= 1),
    action               TEXT NOT NULL CHECK (action IN ('enroll', 'reenroll', 'replace', 'revoke', 'set_rollout')),
    who                  TEXT NOT NULL CHECK (length(who) >= 1),
    at_ms                INTEGER NOT NULL CHECK (at_ms >= 0),
    before_ref           TEXT,
    before_status        TEXT,
    before_rollout_state TEXT,
    after_ref            TEXT NOT NULL,
    after_status         TEXT NOT NULL,
    after_rollout_state  TEXT NOT NULL,
    UNIQUE (node_id, serial)
) STRICT;

CREATE TRIGGER history_keeps_every_change BEFORE DELETE ON history
BEGIN SELECT RAISE(ABORT, 'the history keeps every change'); END;

CREATE TRIGGER history_never_changes BEFORE UPDATE ON history
BEGIN SELECT RAISE(ABORT, 'the history never changes'); END;

CREATE TRIGGER enrollment_keeps_every_row BEFORE DELETE ON enrollment
BEGIN SELECT RAISE(ABORT, 'a revoked row stays: its serial never starts over'); END;

CREATE TRIGGER enrollment_serial_grows BEFORE UPDATE ON enrollment WHEN NEW.serial <= OLD.serial
BEGIN SELECT RAISE(ABORT, 'the serial grows with every change'); END;
