-- A rollout that has ended does not begin again: mirrors `Command` and `Next`.
CREATE TRIGGER rollout_goes_on BEFORE UPDATE OF phase ON autonomy.rollout
FOR EACH ROW WHEN (OLD.phase <> NEW.phase AND OLD.phase || ' ' || NEW.phase NOT IN (
    'running paused', 'running stopped', 'running finished', 'running rolled_back', 'paused running', 'paused stopped',
    'paused rolled_back', 'stopped rolled_back', 'finished rolled_back'))
EXECUTE FUNCTION autonomy.refuse('a rollout does not go from its phase to this one');

CREATE TRIGGER directive_begins_by_waiting BEFORE INSERT ON autonomy.directive
FOR EACH ROW WHEN (NEW.state <> '<none>')
EXECUTE FUNCTION autonomy.refuse('a directive begins by waiting');

-- What a row is of, and what was ordered, stays.
CREATE TRIGGER enrollment_stays_its_nodes BEFORE UPDATE OF node_id ON autonomy.enrollment
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('a row stays its node''s');

CREATE TRIGGER rollout_stays_as_ordered BEFORE UPDATE OF rollout_id, bundle, selector, canary_percent ON autonomy.rollout
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('a rollout stays as it was ordered');

CREATE TRIGGER directive_stays_as_ordered BEFORE UPDATE OF rollout_id, node_id, wave ON autonomy.directive
FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse('a directive stays as it was ordered');
