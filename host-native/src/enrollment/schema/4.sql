-- A rollout that has ended does not begin again: mirrors `Command` and `Next`.
CREATE TRIGGER rollout_goes_on BEFORE UPDATE OF phase ON rollout
WHEN OLD.phase <> NEW.phase AND OLD.phase || ' ' || NEW.phase NOT IN (
    'running paused', 'running stopped', 'running finished', 'running rolled_back', 'paused running', 'paused stopped',
    'paused rolled_back', 'stopped rolled_back', 'finished rolled_back')
BEGIN SELECT RAISE(ABORT, 'a rollout does not go from its phase to this one'); END;

CREATE TRIGGER directive_begins_by_waiting BEFORE INSERT ON directive
WHEN NEW.state <> '<none>'
BEGIN SELECT RAISE(ABORT, 'a directive begins by waiting'); END;
