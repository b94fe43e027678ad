//! Rollouts in the SQLite file.

use gate_core::{NodeId, RolloutState, identity::EnrollmentRef};
use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Command, Directive, Order, Phase, Report, Rollout, RolloutError, RolloutId, RolloutStore, Wave, record,
    steps::{self, Counting, RolloutLedger, Steps, TAKEN_BACK, TOGETHER},
};
use crate::enrollment::{StoreError, database::Fault, record::signed, request::By, sqlite::SqliteStore};

/// The columns of a directive, in the order of [`record::directive`].
const DIRECTIVE: &str = "node_id, rollout_id, bundle, phase, wave, state, detail, is_current, directive.updated_at_ms,
    enrollment_ref FROM directive JOIN rollout USING (rollout_id) JOIN enrollment USING (node_id)";

/// A node and whether it may run the bundle of a directive that is not its current one, in the order of [`record::left`].
const LEFT: &str = "node_id, NOT EXISTS (
        SELECT 1 FROM directive AS later WHERE later.node_id = directive.node_id AND later.state = 'active' AND
            (SELECT min(change_id) FROM rollout_history WHERE rollout_id = later.rollout_id) >
            (SELECT min(change_id) FROM rollout_history WHERE rollout_id = directive.rollout_id))
    FROM directive";

/// The counts of directives, in the order of [`record::count`].
const EACH: &str = "SELECT rollout_id, wave, state, is_current, count(*) FROM directive WHERE rollout_id = ?1
    GROUP BY wave, state, is_current";

const ANY: &str = "SELECT ?1, wave, state, is_current, EXISTS (
        SELECT 1 FROM directive WHERE rollout_id = ?1 AND directive.wave = waves.wave
            AND directive.state = states.state AND directive.is_current = currents.is_current)
    FROM (SELECT 'canary' AS wave UNION ALL SELECT 'rest') AS waves,
         (SELECT '<none>' AS state UNION ALL SELECT 'pending' UNION ALL SELECT 'acknowledged' UNION ALL SELECT 'active'
          UNION ALL SELECT 'failed' UNION ALL SELECT 'rolled_back') AS states,
         (SELECT 0 AS is_current UNION ALL SELECT 1) AS currents";

impl RolloutStore for SqliteStore {
    fn create(&self, order: &Order, who: &str, now_ms: u64) -> Result<Rollout, StoreError> {
        let by = By::new(who, now_ms)?;
        order.check()?;
        self.rollout(&steps::create(self, order, by)?)
    }

    fn command(&self, id: &RolloutId, command: Command, who: &str, now_ms: u64) -> Result<Rollout, StoreError> {
        let by = By::new(who, now_ms)?;
        steps::command(self, id, command, by)?;
        self.rollout(id)
    }

    fn report(&self, node_id: &NodeId, report: &Report, who: &str, now_ms: u64) -> Result<Directive, StoreError> {
        let by = By::new(who, now_ms)?;
        report.check()?;
        steps::report(self, node_id, report, by)
    }

    fn go_on(&self, who: &str, now_ms: u64) -> Result<bool, StoreError> {
        steps::go_on(self, By::new(who, now_ms)?)
    }

    fn rollout(&self, id: &RolloutId) -> Result<Rollout, StoreError> {
        let found = self.read(|reader| load(reader, id, Counting::Each))?;
        Ok(found.ok_or_else(|| RolloutError::NotFound { rollout_id: id.clone() })?)
    }

    fn latest(&self, before: Option<&RolloutId>, limit: usize) -> Result<Vec<Rollout>, StoreError> {
        let (before, limit) = (before.map(RolloutId::as_str), signed(limit));
        self.read(|reader| {
            let sql = "SELECT rollout_id FROM rollout_history GROUP BY rollout_id
                       HAVING ?1 IS NULL OR min(change_id) < (SELECT min(change_id) FROM rollout_history WHERE rollout_id = ?1)
                       ORDER BY min(change_id) DESC LIMIT ?2";
            let ids = all(reader, sql, params![before, limit], |row| record::rollout_id(row))?;
            ids.iter().filter_map(|id| load(reader, id, Counting::Each).transpose()).collect()
        })
    }

    fn directives(&self, id: &RolloutId, after: Option<&NodeId>, limit: usize) -> Result<Vec<Directive>, StoreError> {
        let (after, limit) = (after.map_or("", NodeId::as_str), signed(limit));
        self.read(|reader| {
            let sql = format!("SELECT {DIRECTIVE} WHERE rollout_id = ?1 AND node_id > ?2 ORDER BY node_id LIMIT ?3");
            all(reader, &sql, params![id.as_str(), after, limit], |row| record::directive(row))
        })
    }

    fn directive(&self, node_id: &NodeId) -> Result<Option<Directive>, StoreError> {
        self.read(|reader| current(reader, node_id))
    }

    fn directive_of(&self, node_id: &NodeId, id: &RolloutId) -> Result<Option<Directive>, StoreError> {
        self.read(|reader| {
            let sql = format!("SELECT {DIRECTIVE} WHERE rollout_id = ?1 AND node_id = ?2");
            Ok(all(reader, &sql, [id.as_str(), node_id.as_str()], |row| record::directive(row))?.pop())
        })
    }
}

impl Steps for SqliteStore {
    type Fault = Fault;
    type Ledger<'a> = Transaction<'a>;

    fn step<T>(&self, work: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.transact(work)
    }
}

impl RolloutLedger for Transaction<'_> {
    async fn begin(&mut self, id: &RolloutId, order: &Order) -> Result<(), Fault> {
        let Order { bundle, selector, canary_percent } = order;
        let sql = "INSERT INTO rollout (rollout_id, bundle, selector, canary_percent, phase) VALUES (?1, ?2, ?3, ?4, 'running')";
        self.execute(sql, params![id.as_str(), bundle.to_string(), selector.to_string(), canary_percent.map(signed)])?;
        Ok(())
    }

    async fn set_phase(
        &mut self,
        id: &RolloutId,
        phase: Phase,
        detail: Option<&str>,
        By { who, now_ms }: By<'_>,
    ) -> Result<(), Fault> {
        self.execute("UPDATE rollout SET phase = ?2 WHERE rollout_id = ?1", params![id.as_str(), phase.as_str()])?;
        let sql = "INSERT INTO rollout_history (rollout_id, phase, detail, who, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.execute(sql, params![id.as_str(), phase.as_str(), detail, who, signed(now_ms)])?;
        Ok(())
    }

    async fn active(
        &mut self,
        enrollment_ref: Option<&EnrollmentRef>,
        rollout_state: Option<&RolloutState>,
    ) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT node_id FROM enrollment WHERE status = 'active' AND (?1 IS NULL OR enrollment_ref = ?1)
                   AND (?2 IS NULL OR rollout_state = ?2) ORDER BY node_id";
        let params = params![enrollment_ref.map(EnrollmentRef::as_str), rollout_state.map(RolloutState::as_str)];
        all(self, sql, params, |row| record::node_id(row))
    }

    async fn direct(&mut self, id: &RolloutId, wave: Wave, nodes: &[NodeId], by: By<'_>) -> Result<(), Fault> {
        let mut statement = self.prepare_cached(
            "INSERT INTO directive (rollout_id, node_id, wave, state, is_current, updated_at_ms)
             SELECT ?1, ?2, ?3, '<none>', 1, ?4
             WHERE NOT EXISTS (SELECT 1 FROM directive WHERE node_id = ?2 AND is_current = 1)",
        )?;
        for node_id in nodes {
            statement.execute(params![id.as_str(), node_id.as_str(), wave.as_str(), signed(by.now_ms)])?;
        }
        Ok(())
    }

    async fn take(&mut self, nodes: &[NodeId], by_rollout: Option<&RolloutId>) -> Result<(), Fault> {
        let sql = "UPDATE directive SET is_current = 0 WHERE node_id = ?1 AND is_current = 1 AND (?2 IS NULL OR
                       (SELECT min(change_id) FROM rollout_history WHERE rollout_id = directive.rollout_id) <
                       (SELECT min(change_id) FROM rollout_history WHERE rollout_id = ?2))";
        let (by_rollout, mut statement) = (by_rollout.map(RolloutId::as_str), self.prepare_cached(sql)?);
        for node_id in nodes {
            statement.execute(params![node_id.as_str(), by_rollout])?;
        }
        Ok(())
    }

    async fn nodes(&mut self, id: &RolloutId, wave: Wave, state: &RolloutState) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT node_id FROM directive WHERE rollout_id = ?1 AND wave = ?2 AND state = ?3 AND is_current = 1 LIMIT ?4";
        all(self, sql, params![id.as_str(), wave.as_str(), state.as_str(), signed(TOGETHER)], |row| {
            record::node_id(row)
        })
    }

    async fn left(&mut self, id: &RolloutId) -> Result<Vec<(NodeId, bool)>, Fault> {
        let sql = format!(
            "SELECT {LEFT} WHERE rollout_id = ?1 AND wave IN ('canary', 'rest') AND is_current = 0
                 AND state IN ('acknowledged', 'active') LIMIT ?2"
        );
        all(self, &sql, params![id.as_str(), signed(TOGETHER)], |row| record::left(row))
    }

    async fn mark(
        &mut self,
        id: &RolloutId,
        nodes: &[NodeId],
        state: &RolloutState,
        detail: Option<&str>,
        by: By<'_>,
    ) -> Result<(), Fault> {
        let mut statement = self.prepare_cached(
            "UPDATE directive SET state = ?3, detail = ?4, updated_at_ms = ?5
             WHERE rollout_id = ?1 AND node_id = ?2",
        )?;
        for node_id in nodes {
            statement.execute(params![id.as_str(), node_id.as_str(), state.as_str(), detail, signed(by.now_ms)])?;
        }
        Ok(())
    }

    async fn under_way(&mut self) -> Result<Vec<RolloutId>, Fault> {
        let sql = "SELECT rollout_id FROM rollout WHERE phase = 'running' UNION ALL SELECT rollout_id FROM (
                       SELECT rollout_id FROM rollout_history WHERE phase = 'rolled_back' ORDER BY change_id DESC LIMIT ?1)";
        all(self, sql, [signed(TAKEN_BACK)], |row| record::rollout_id(row))
    }

    async fn rollout(&mut self, id: &RolloutId, counting: Counting) -> Result<Option<Rollout>, Fault> {
        load(self, id, counting)
    }

    async fn directive(&mut self, node_id: &NodeId) -> Result<Option<Directive>, Fault> {
        current(self, node_id)
    }
}

fn load(connection: &Connection, id: &RolloutId, counting: Counting) -> Result<Option<Rollout>, Fault> {
    let sql = "SELECT rollout_id, bundle, selector, canary_percent, phase FROM rollout WHERE rollout_id = ?1";
    let mut found = all(connection, sql, [id.as_str()], |row| record::rollout(row))?;
    let counts = match counting {
        Counting::Each => EACH,
        Counting::Any => ANY,
    };
    all(connection, counts, [id.as_str()], |row| record::count(row, &mut found))?;
    let history =
        "SELECT rollout_id, phase, detail, who, at_ms FROM rollout_history WHERE rollout_id = ?1 ORDER BY change_id";
    all(connection, history, [id.as_str()], |row| record::phase_change(row, &mut found))?;
    Ok(found.pop())
}

fn current(connection: &Connection, node_id: &NodeId) -> Result<Option<Directive>, Fault> {
    let sql = format!("SELECT {DIRECTIVE} WHERE node_id = ?1 AND is_current = 1");
    Ok(all(connection, &sql, [node_id.as_str()], |row| record::directive(row))?.pop())
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}
