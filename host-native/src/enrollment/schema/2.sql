-- Rollouts. The checks mirror `Phase`, `Wave`, `RolloutState` and `may_become`.

CREATE TABLE rollout (
    rollout_id     TEXT NOT NULL PRIMARY KEY CHECK (length(rollout_id) = 36),
    bundle         TEXT NOT NULL CHECK (bundle LIKE '%@sha256:%'),
    selector       TEXT NOT NULL,
    canary_percent INTEGER CHECK (canary_percent BETWEEN 1 AND 100),
    phase          TEXT NOT NULL CHECK (phase IN ('running', 'paused', 'stopped', 'finished', 'rolled_back'))
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_history (
    change_id  INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout_id TEXT NOT NULL REFERENCES rollout (rollout_id),
    phase      TEXT NOT NULL CHECK (phase IN ('running', 'paused', 'stopped', 'finished', 'rolled_back')),
    detail     TEXT,
    who        TEXT NOT NULL CHECK (length(who) >= 1),
    at_ms      INTEGER NOT NULL CHECK (at_ms >= 0)
) STRICT;

CREATE INDEX rollout_history_by_rollout ON rollout_history (rollout_id, change_id);

CREATE TABLE directive (
    rollout_id    TEXT NOT NULL REFERENCES rollout (rollout_id),
    node_id       TEXT NOT NULL REFERENCES enrollment (node_id),
    wave          TEXT NOT NULL CHECK (wave IN ('canary', 'rest')),
    state         TEXT NOT NULL
                  CHECK (state IN ('<none>', 'pending', 'acknowledged', 'active', 'rolled_back', 'failed')),
    detail        TEXT,
    is_current    INTEGER NOT NULL CHECK (is_current IN (0, 1)),
    updated_at_ms INTEGER NOT NULL CHECK (updated_at_ms >= 0),
    PRIMARY KEY (rollout_id, node_id)
) STRICT, WITHOUT ROWID;

-- A node follows one directive at a time.
CREATE UNIQUE INDEX directive_current ON directive (node_id) WHERE is_current = 1;

CREATE INDEX directive_by_state ON directive (rollout_id, wave, state, is_current);

CREATE TRIGGER directive_goes_on BEFORE UPDATE OF state ON directive
WHEN OLD.state <> NEW.state AND OLD.state || ' ' || NEW.state NOT IN (
    '<none> pending', 'pending acknowledged', 'pending failed', 'pending rolled_back', 'acknowledged active',
    'acknowledged failed', 'acknowledged rolled_back', 'active rolled_back')
BEGIN SELECT RAISE(ABORT, 'a directive does not go from its state to this one'); END;

CREATE TRIGGER directive_stays_withdrawn BEFORE UPDATE OF is_current ON directive
WHEN NEW.is_current > OLD.is_current
BEGIN SELECT RAISE(ABORT, 'a directive that was withdrawn is not current again'); END;

CREATE TRIGGER rollout_is_kept BEFORE DELETE ON rollout
BEGIN SELECT RAISE(ABORT, 'rollouts are kept'); END;

CREATE TRIGGER directive_is_kept BEFORE DELETE ON directive
BEGIN SELECT RAISE(ABORT, 'directives are kept'); END;

CREATE TRIGGER rollout_history_keeps_every_change BEFORE DELETE ON rollout_history
BEGIN SELECT RAISE(ABORT, 'the history keeps every change'); END;

CREATE TRIGGER rollout_history_never_changes BEFORE UPDATE ON rollout_history
BEGIN SELECT RAISE(ABORT, 'the history never changes'); END;
