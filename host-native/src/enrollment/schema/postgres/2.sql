-- Rollouts. The checks mirror `Phase`, `Wave`, `RolloutState` and `may_become`.

CREATE TABLE autonomy.rollout (
    rollout_id     text COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(rollout_id) = 36),
    bundle         text NOT NULL CHECK (bundle LIKE '%@sha256:%'),
    selector       text NOT NULL,
    canary_percent bigint CHECK (canary_percent BETWEEN 1 AND 100),
    phase          text NOT NULL CHECK (phase IN ('running', 'paused', 'stopped', 'finished', 'rolled_back'))
);

-- Numbered in the order of the commits: whoever writes holds the one row of state.
CREATE TABLE autonomy.rollout_history (
    change_id  bigint NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    rollout_id text COLLATE "C" NOT NULL REFERENCES autonomy.rollout (rollout_id),
    phase      text NOT NULL CHECK (phase IN ('running', 'paused', 'stopped', 'finished', 'rolled_back')),
    detail     text,
    who        text NOT NULL CHECK (length(who) >= 1),
    at_ms      bigint NOT NULL CHECK (at_ms >= 0)
);

CREATE INDEX rollout_history_by_rollout ON autonomy.rollout_history (rollout_id, change_id);

CREATE TABLE autonomy.directive (
    rollout_id    text COLLATE "C" NOT NULL REFERENCES autonomy.rollout (rollout_id),
    node_id       text COLLATE "C" NOT NULL REFERENCES autonomy.enrollment (node_id),
    wave          text NOT NULL CHECK (wave IN ('canary', 'rest')),
    state         text NOT NULL
                  CHECK (state IN ('<none>', 'pending', 'acknowledged', 'active', 'rolled_back', 'failed')),
    detail        text,
    is_current    boolean NOT NULL,
    updated_at_ms bigint NOT NULL CHECK (updated_at_ms >= 0),
    PRIMARY KEY (rollout_id, node_id)
);

-- A node follows one directive at a time.
CREATE UNIQUE INDEX directive_current ON autonomy.directive (node_id) WHERE is_current;

CREATE INDEX directive_by_state ON autonomy.directive (rollout_id, wave, state, is_current);

CREATE TRIGGER directive_goes_on BEFORE UPDATE OF state ON autonomy.directive
FOR EACH ROW WHEN (OLD.state <> NEW.state AND OLD.state || ' ' || NEW.state NOT IN (
    '<none> pending', 'pending acknowledged', 'pending failed', 'pending rolled_back', 'acknowledged active',
    'acknowledged failed', 'acknowledged rolled_back', 'active rolled_back'))
EXECUTE FUNCTION autonomy.refuse('a directive does not go from its state to this one');

CREATE TRIGGER directive_stays_withdrawn BEFORE UPDATE OF is_current ON autonomy.directive
FOR EACH ROW WHEN (NEW.is_current AND NOT OLD.is_current)
EXECUTE FUNCTION autonomy.refuse('a directive that was withdrawn is not current again');

CREATE TRIGGER rollout_is_kept BEFORE DELETE OR TRUNCATE ON autonomy.rollout
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('rollouts are kept');

CREATE TRIGGER directive_is_kept BEFORE DELETE OR TRUNCATE ON autonomy.directive
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('directives are kept');

CREATE TRIGGER rollout_history_keeps_every_change BEFORE UPDATE OR DELETE OR TRUNCATE ON autonomy.rollout_history
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('the history keeps every change as it was made');
