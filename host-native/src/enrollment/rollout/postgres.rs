//! Rollouts in the PostgreSQL database.

use gate_core::{NodeId, RolloutState, identity::EnrollmentRef};
use tokio_postgres::{Transaction, types::Type};

use super::{
    Command, Directive, Order, Phase, Report, Rollout, RolloutError, RolloutId, RolloutStore, Wave, record,
    steps::{self, Counting, RolloutLedger, Steps, TAKEN_BACK, TOGETHER},
};
use crate::enrollment::{
    PostgresStore, StoreError,
    postgres::{Fault, Param, PostgresLedger, ids, within_call},
    record::signed,
    request::By,
};

/// The columns of a directive, in the order of [`record::directive`].
const DIRECTIVE: &str = "node_id, rollout_id, bundle, phase, wave, state, detail, is_current::int::text,
    directive.updated_at_ms::text, enrollment_ref
    FROM autonomy.directive JOIN autonomy.rollout USING (rollout_id) JOIN autonomy.enrollment USING (node_id)";

/// A node and whether it may run the bundle of a directive that is not its current one, in the order of [`record::left`].
const LEFT: &str = "node_id, (NOT EXISTS (
        SELECT FROM autonomy.directive AS later WHERE later.node_id = directive.node_id AND later.state = 'active' AND
            (SELECT min(change_id) FROM autonomy.rollout_history WHERE rollout_id = later.rollout_id) >
            (SELECT min(change_id) FROM autonomy.rollout_history WHERE rollout_id = directive.rollout_id)))::int::text
    FROM autonomy.directive";

/// The counts of directives, in the order of [`record::count`].
const EACH: &str = "SELECT rollout_id, wave, state, is_current::int::text, count(*)::text FROM autonomy.directive
    WHERE rollout_id = ANY ($1) GROUP BY rollout_id, wave, state, is_current";

const ANY: &str = "SELECT rollout_id, wave, state, is_current::int::text, EXISTS (
        SELECT FROM autonomy.directive AS one WHERE one.rollout_id = chosen.rollout_id AND one.wave = waves.wave
            AND one.state = states.state AND one.is_current = currents.is_current)::int::text
    FROM unnest($1) AS chosen (rollout_id), (VALUES ('canary'), ('rest')) AS waves (wave),
         (VALUES ('<none>'), ('pending'), ('acknowledged'), ('active'), ('failed'), ('rolled_back')) AS states (state),
         (VALUES (false), (true)) AS currents (is_current)";

impl RolloutStore for PostgresStore {
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
        let params: [Param<'_>; 1] = [(&id.as_str(), Type::TEXT)];
        let found = self.read(async |snapshot| load(snapshot, "rollout_id = $1", &params, Counting::Each).await)?.pop();
        Ok(found.ok_or_else(|| RolloutError::NotFound { rollout_id: id.clone() })?)
    }

    fn latest(&self, before: Option<&RolloutId>, limit: usize) -> Result<Vec<Rollout>, StoreError> {
        let (before, limit) = (before.map(RolloutId::as_str), signed(limit));
        let latest = "$1 IS NULL OR begun < (SELECT min(change_id) FROM autonomy.rollout_history WHERE rollout_id = $1)
                      ORDER BY begun DESC LIMIT $2";
        let params: [Param<'_>; 2] = [(&before, Type::TEXT), (&limit, Type::INT8)];
        self.read(async |snapshot| load(snapshot, latest, &params, Counting::Each).await)
    }

    fn directives(&self, id: &RolloutId, after: Option<&NodeId>, limit: usize) -> Result<Vec<Directive>, StoreError> {
        let (id, after, limit) = (id.as_str(), after.map_or("", NodeId::as_str), signed(limit));
        let sql = format!("SELECT {DIRECTIVE} WHERE rollout_id = $1 AND node_id > $2 ORDER BY node_id LIMIT $3");
        self.select(&sql, &[(&id, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)], record::directive)
    }

    fn directive(&self, node_id: &NodeId) -> Result<Option<Directive>, StoreError> {
        let current = format!("SELECT {DIRECTIVE} WHERE node_id = $1 AND is_current");
        Ok(self.select(&current, &[(&node_id.as_str(), Type::TEXT)], record::directive)?.pop())
    }

    fn directive_of(&self, node_id: &NodeId, id: &RolloutId) -> Result<Option<Directive>, StoreError> {
        let sql = format!("SELECT {DIRECTIVE} WHERE rollout_id = $1 AND node_id = $2");
        let params: [Param<'_>; 2] = [(&id.as_str(), Type::TEXT), (&node_id.as_str(), Type::TEXT)];
        Ok(self.select(&sql, &params, record::directive)?.pop())
    }
}

impl Steps for PostgresStore {
    type Fault = Fault;
    type Ledger<'a> = PostgresLedger<'a>;

    fn step<T>(&self, work: impl AsyncFnOnce(&mut PostgresLedger<'_>) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.transact(work)
    }
}

impl RolloutLedger for PostgresLedger<'_> {
    async fn begin(&mut self, id: &RolloutId, order: &Order) -> Result<(), Fault> {
        let Order { bundle, selector, canary_percent } = order;
        let sql = "INSERT INTO autonomy.rollout (rollout_id, bundle, selector, canary_percent, phase)
                   VALUES ($1, $2, $3, $4, 'running')";
        let params: [Param<'_>; 4] = [
            (&id.as_str(), Type::TEXT),
            (&bundle.to_string(), Type::TEXT),
            (&selector.to_string(), Type::TEXT),
            (&canary_percent.map(signed), Type::INT8),
        ];
        self.execute(sql, &params).await
    }

    async fn set_phase(
        &mut self,
        id: &RolloutId,
        phase: Phase,
        detail: Option<&str>,
        By { who, now_ms }: By<'_>,
    ) -> Result<(), Fault> {
        let sql = "WITH rollout AS (UPDATE autonomy.rollout SET phase = $2 WHERE rollout_id = $1)
                   INSERT INTO autonomy.rollout_history (rollout_id, phase, detail, who, at_ms)
                   VALUES ($1, $2, $3, $4, $5)";
        let params: [Param<'_>; 5] = [
            (&id.as_str(), Type::TEXT),
            (&phase.as_str(), Type::TEXT),
            (&detail, Type::TEXT),
            (&who, Type::TEXT),
            (&signed(now_ms), Type::INT8),
        ];
        self.execute(sql, &params).await
    }

    async fn active(
        &mut self,
        enrollment_ref: Option<&EnrollmentRef>,
        rollout_state: Option<&RolloutState>,
    ) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT node_id FROM autonomy.enrollment WHERE status = 'active'
                   AND ($1 IS NULL OR enrollment_ref = $1) AND ($2 IS NULL OR rollout_state = $2) ORDER BY node_id";
        let (enrollment_ref, rollout_state) =
            (enrollment_ref.map(EnrollmentRef::as_str), rollout_state.map(RolloutState::as_str));
        let params: [Param<'_>; 2] = [(&enrollment_ref, Type::TEXT), (&rollout_state, Type::TEXT)];
        self.query(sql, &params, record::node_id).await
    }

    async fn direct(&mut self, id: &RolloutId, wave: Wave, nodes: &[NodeId], by: By<'_>) -> Result<(), Fault> {
        let sql = "INSERT INTO autonomy.directive (rollout_id, node_id, wave, state, is_current, updated_at_ms)
                   SELECT $1, chosen, $2, '<none>', true, $3 FROM unnest($4) AS chosen
                   WHERE NOT EXISTS (SELECT FROM autonomy.directive WHERE node_id = chosen AND is_current)";
        let params: [Param<'_>; 4] = [
            (&id.as_str(), Type::TEXT),
            (&wave.as_str(), Type::TEXT),
            (&signed(by.now_ms), Type::INT8),
            (&ids(nodes), Type::TEXT_ARRAY),
        ];
        self.execute(sql, &params).await
    }

    async fn take(&mut self, nodes: &[NodeId], by_rollout: Option<&RolloutId>) -> Result<(), Fault> {
        let sql = "UPDATE autonomy.directive SET is_current = false
                   WHERE node_id = ANY ($1) AND is_current AND ($2 IS NULL OR
                       (SELECT min(change_id) FROM autonomy.rollout_history WHERE rollout_id = directive.rollout_id) <
                       (SELECT min(change_id) FROM autonomy.rollout_history WHERE rollout_id = $2))";
        let by_rollout = by_rollout.map(RolloutId::as_str);
        let params: [Param<'_>; 2] = [(&ids(nodes), Type::TEXT_ARRAY), (&by_rollout, Type::TEXT)];
        self.execute(sql, &params).await
    }

    async fn nodes(&mut self, id: &RolloutId, wave: Wave, state: &RolloutState) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT node_id FROM autonomy.directive WHERE rollout_id = $1 AND wave = $2 AND state = $3 AND is_current LIMIT $4";
        let params: [Param<'_>; 4] = [
            (&id.as_str(), Type::TEXT),
            (&wave.as_str(), Type::TEXT),
            (&state.as_str(), Type::TEXT),
            (&signed(TOGETHER), Type::INT8),
        ];
        self.query(sql, &params, record::node_id).await
    }

    async fn left(&mut self, id: &RolloutId) -> Result<Vec<(NodeId, bool)>, Fault> {
        let sql = format!(
            "SELECT {LEFT} WHERE rollout_id = $1 AND wave IN ('canary', 'rest') AND NOT is_current
             AND state IN ('acknowledged', 'active') LIMIT $2"
        );
        self.query(&sql, &[(&id.as_str(), Type::TEXT), (&signed(TOGETHER), Type::INT8)], record::left).await
    }

    async fn mark(
        &mut self,
        id: &RolloutId,
        nodes: &[NodeId],
        state: &RolloutState,
        detail: Option<&str>,
        by: By<'_>,
    ) -> Result<(), Fault> {
        let sql = "UPDATE autonomy.directive SET state = $3, detail = $4, updated_at_ms = $5
                   WHERE rollout_id = $1 AND node_id = ANY ($2)";
        let params: [Param<'_>; 5] = [
            (&id.as_str(), Type::TEXT),
            (&ids(nodes), Type::TEXT_ARRAY),
            (&state.as_str(), Type::TEXT),
            (&detail, Type::TEXT),
            (&signed(by.now_ms), Type::INT8),
        ];
        self.execute(sql, &params).await
    }

    async fn under_way(&mut self) -> Result<Vec<RolloutId>, Fault> {
        let sql = "SELECT rollout_id FROM autonomy.rollout WHERE phase = 'running' UNION ALL SELECT rollout_id FROM (
                       SELECT rollout_id FROM autonomy.rollout_history WHERE phase = 'rolled_back'
                       ORDER BY change_id DESC LIMIT $1) AS taken_back";
        self.query(sql, &[(&signed(TAKEN_BACK), Type::INT8)], record::rollout_id).await
    }

    async fn rollout(&mut self, id: &RolloutId, counting: Counting) -> Result<Option<Rollout>, Fault> {
        Ok(load(&self.transaction, "rollout_id = $1", &[(&id.as_str(), Type::TEXT)], counting).await?.pop())
    }

    async fn directive(&mut self, node_id: &NodeId) -> Result<Option<Directive>, Fault> {
        let sql = format!("SELECT {DIRECTIVE} WHERE node_id = $1 AND is_current");
        Ok(self.query(&sql, &[(&node_id.as_str(), Type::TEXT)], record::directive).await?.pop())
    }
}

async fn load(
    transaction: &Transaction<'_>,
    chosen: &str,
    params: &[Param<'_>],
    counting: Counting,
) -> Result<Vec<Rollout>, Fault> {
    let sql = format!(
        "SELECT rollout_id, bundle, selector, canary_percent::text, phase
         FROM autonomy.rollout, LATERAL (SELECT min(change_id) AS begun FROM autonomy.rollout_history AS history
                                         WHERE history.rollout_id = rollout.rollout_id) AS history
         WHERE {chosen}"
    );
    let ask = |sql, params| within_call(transaction.query_typed(sql, params));
    let found = ask(&sql, params).await?;
    let mut rollouts = found.iter().map(record::rollout).collect::<Result<Vec<_>, Fault>>()?;
    let counts = match counting {
        Counting::Each => EACH,
        Counting::Any => ANY,
    };
    let history = "SELECT rollout_id, phase, detail, who, at_ms::text FROM autonomy.rollout_history
                   WHERE rollout_id = ANY ($1) ORDER BY change_id";
    let ids: Vec<_> = rollouts.iter().map(|rollout| rollout.rollout_id.to_string()).collect();
    let ids: [Param<'_>; 1] = [(&ids, Type::TEXT_ARRAY)];
    let (counts, history) = tokio::try_join!(ask(counts, &ids), ask(history, &ids))?;
    counts.iter().try_for_each(|row| record::count(row, &mut rollouts))?;
    history.iter().try_for_each(|row| record::phase_change(row, &mut rollouts))?;
    Ok(rollouts)
}
