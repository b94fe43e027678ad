-- The checks mirror `NodeId`, `EnrollmentRef`, `Status` and `RolloutState`.

CREATE SCHEMA autonomy;

-- One row. Every change locks it before anything else, and holds it until it is committed: so revisions become visible in
-- their order, and a newer program's migration waits for the change.
CREATE TABLE autonomy.state (
    is_only        boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (is_only),
    schema_version integer NOT NULL CHECK (schema_version >= 1),
    revision       bigint NOT NULL CHECK (revision >= 0)
);

INSERT INTO autonomy.state (schema_version, revision) VALUES (1, 0);

CREATE TABLE autonomy.enrollment (
    node_id        text COLLATE "C" NOT NULL PRIMARY KEY
                   CHECK (length(node_id) BETWEEN 1 AND 128 AND node_id ~ '^[A-Za-z0-9_-][A-Za-z0-9._-]*$'),
    enrollment_ref text COLLATE "C" NOT NULL
                   CHECK (length(enrollment_ref) BETWEEN 1 AND 256 AND enrollment_ref ~ '^[!-~]+$'),
    status         text NOT NULL CHECK (status IN ('active', 'revoked')),
    rollout_state  text NOT NULL
                   CHECK (rollout_state IN ('<none>', 'pending', 'acknowledged', 'active', 'rolled_back', 'failed')),
    serial         bigint NOT NULL CHECK (serial >= 1),
    created_at_ms  bigint NOT NULL CHECK (created_at_ms >= 0),
    updated_at_ms  bigint NOT NULL CHECK (updated_at_ms >= 0)
);

-- Two ids that people would read as one cannot both be enrolled.
CREATE UNIQUE INDEX enrollment_one_case ON autonomy.enrollment (lower(node_id));

CREATE INDEX enrollment_by_status ON autonomy.enrollment (status, node_id);

-- `before` and `after` take any word: the history tells what was, even when what was is wrong.
CREATE TABLE autonomy.history (
    revision             bigint NOT NULL PRIMARY KEY CHECK (revision >= 1),
    node_id              text COLLATE "C" NOT NULL REFERENCES autonomy.enrollment (node_id),
    serial               bigint NOT NULL CHECK (serial >= 1),
    action               text NOT NULL CHECK (action IN ('enroll', 'reenroll', 'replace', 'revoke', 'set_rollout')),
    who                  text NOT NULL CHECK (length(who) >= 1),
    at_ms                bigint NOT NULL CHECK (at_ms >= 0),
    before_ref           text,
    before_status        text,
    before_rollout_state text,
    after_ref            text NOT NULL,
    after_status         text NOT NULL,
    after_rollout_state  text NOT NULL,
    UNIQUE (node_id, serial)
);

CREATE FUNCTION autonomy.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;

CREATE TRIGGER history_keeps_every_change BEFORE UPDATE OR DELETE OR TRUNCATE ON autonomy.history
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('the history keeps every change as it was made');

CREATE TRIGGER enrollment_keeps_every_row BEFORE DELETE OR TRUNCATE ON autonomy.enrollment
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('a revoked row stays: its serial never starts over');

CREATE TRIGGER enrollment_serial_grows BEFORE UPDATE ON autonomy.enrollment
FOR EACH ROW WHEN (NEW.serial <= OLD.serial) EXECUTE FUNCTION autonomy.refuse('the serial grows with every change');

CREATE TRIGGER state_stays BEFORE DELETE OR TRUNCATE ON autonomy.state
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('the revision never starts over');

CREATE TRIGGER state_grows BEFORE UPDATE ON autonomy.state
FOR EACH ROW WHEN (NEW.revision < OLD.revision) EXECUTE FUNCTION autonomy.refuse('the revision only grows');
