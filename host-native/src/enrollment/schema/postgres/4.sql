-- A rollout that has ended does not begin again: mirrors `Command` and `Next`.
CREATE TRIGGER rollout_goes_on BEFORE UPDATE OF phase ON autonomy.rollout
FOR EACH ROW WHEN (OLD.phase <> NEW.phase AND OLD.phase || ' ' || NEW.phase NOT IN (
    'running paused', 'running stopped', 'running finished', 'running rolled_back', 'paused running', 'paused stopped',
    'paused rolled_back', 'stopped rolled_back', 'finished rolled_back'))
EXECUTE FUNCTION autonomy.refuse('a rollout does not go from its phase to this one');

CREATE TRIGGER directive_begins_by_waiting BEFORE INSERT ON autonomy.directive
FOR EACH ROW WHEN (NEW.state <> '<none>')
EXECUTE FUNCTION autonomy.refuse('a directive begins by waiting');
