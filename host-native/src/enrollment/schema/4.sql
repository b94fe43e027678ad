-- A rollout that has ended does not begin again: mirrors `Command` and `Next`.
CREATE TRIGGER rollout_goes_on BEFORE UPDATE OF phase ON rollout
WHEN OLD.phase <> NEW.phase AND OLD.phase || ' ' || NEW.phase NOT IN (
    'running paused', 'running stopped', 'running finished', 'running rolled_back', 'paused running', 'paused stopped',
    'paused rolled_back', 'stopped rolled_back', 'finished rolled_back')
BEGIN SELECT RAISE(ABORT, 'a rollout does not go from its phase to this one'); END;

CREATE TRIGGER directive_begins_by_waiting BEFORE INSERT ON directive
WHEN NEW.state <> '<none>'
BEGIN SELECT RAISE(ABORT, 'a directive begins by waiting'); END;

-- What a row is of, and what was ordered, stays.
CREATE TRIGGER enrollment_stays_its_nodes BEFORE UPDATE OF node_id ON enrollment
BEGIN SELECT RAISE(ABORT, 'a row stays its node''s'); END;

CREATE TRIGGER rollout_stays_as_ordered BEFORE UPDATE OF rollout_id, bundle, selector, canary_percent ON rollout
BEGIN SELECT RAISE(ABORT, 'a rollout stays as it was ordered'); END;

CREATE TRIGGER directive_stays_as_ordered BEFORE UPDATE OF rollout_id, node_id, wave ON directive
BEGIN SELECT RAISE(ABORT, 'a directive stays as it was ordered'); END;

-- REPLACE deletes what is in its way, and no trigger of DELETE sees it.
CREATE TRIGGER enrollment_is_not_replaced BEFORE INSERT ON enrollment
WHEN EXISTS (SELECT 1 FROM enrollment WHERE lower(node_id) = lower(NEW.node_id))
BEGIN SELECT RAISE(ABORT, 'a row stays: its serial never starts over'); END;

CREATE TRIGGER history_is_not_replaced BEFORE INSERT ON history
WHEN EXISTS (SELECT 1 FROM history WHERE change_id = NEW.change_id OR (node_id = NEW.node_id AND serial = NEW.serial))
BEGIN SELECT RAISE(ABORT, 'the history never changes'); END;

CREATE TRIGGER rollout_is_not_replaced BEFORE INSERT ON rollout
WHEN EXISTS (SELECT 1 FROM rollout WHERE rollout_id = NEW.rollout_id)
BEGIN SELECT RAISE(ABORT, 'rollouts are kept'); END;

CREATE TRIGGER rollout_history_is_not_replaced BEFORE INSERT ON rollout_history
WHEN EXISTS (SELECT 1 FROM rollout_history WHERE change_id = NEW.change_id)
BEGIN SELECT RAISE(ABORT, 'the history never changes'); END;

CREATE TRIGGER directive_is_not_replaced BEFORE INSERT ON directive
WHEN EXISTS (SELECT 1 FROM directive WHERE rollout_id = NEW.rollout_id AND node_id = NEW.node_id)
  OR NEW.is_current = 1 AND EXISTS (SELECT 1 FROM directive WHERE node_id = NEW.node_id AND is_current = 1)
BEGIN SELECT RAISE(ABORT, 'directives are kept'); END;
