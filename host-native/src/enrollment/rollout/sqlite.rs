//! Rollouts in the SQLite file, each change in one transaction with what follows from it.

use gate_core::{NodeId, RolloutState, enrollment::Status, identity::EnrollmentRef};
use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Command, Counts, Directive, Next, Order, Phase, PhaseChange, Report, Rollout, RolloutError, RolloutId,
    RolloutStore, Selector, Wave, canaries, may_become,
};
use crate::{
    enrollment::{
        StoreError,
        database::Fault,
        record::{OnDisk, Record as _, signed},
        request::{self, Request},
        sqlite::{SqliteStore, apply, select},
    },
    oci::Pinned,
};

/// The columns that [`directive`] reads, in its order.
const DIRECTIVE: &str = "node_id, rollout_id, bundle, phase, wave, state, detail, is_current, directive.updated_at_ms,
    enrollment_ref FROM directive JOIN rollout USING (rollout_id) JOIN enrollment USING (node_id)";

/// How many directives of a rollout there are of each kind.
const COUNTED: &str =
    "SELECT wave, state, is_current, count(*) FROM directive WHERE rollout_id = ?1 GROUP BY wave, state, is_current";

/// Whether there are any of each kind, as a count of 1: what comes next asks for no more, and it takes as long for a million
/// nodes as for one.
const THERE: &str = "SELECT wave, state, is_current, EXISTS (
        SELECT 1 FROM directive WHERE rollout_id = ?1 AND directive.wave = waves.wave
            AND directive.state = states.state AND directive.is_current = currents.is_current)
    FROM (SELECT 'canary' AS wave UNION ALL SELECT 'rest') AS waves,
         (SELECT '<none>' AS state UNION ALL SELECT 'pending' UNION ALL SELECT 'acknowledged' UNION ALL SELECT 'active'
          UNION ALL SELECT 'failed' UNION ALL SELECT 'rolled_back') AS states,
         (SELECT 0 AS is_current UNION ALL SELECT 1) AS currents";

/// Who does something, and when.
#[derive(Clone, Copy)]
pub(in crate::enrollment) struct By<'a> {
    pub(in crate::enrollment) who: &'a str,
    pub(in crate::enrollment) now_ms: u64,
}

impl RolloutStore for SqliteStore {
    fn create(&self, order: &Order, who: &str, now_ms: u64) -> Result<Rollout, StoreError> {
        request::check_author(who, now_ms)?;
        if let Some(percent) = order.canary_percent.filter(|percent| !(1..=100).contains(percent)) {
            return Err(RolloutError::Canary { percent }.into());
        }
        self.transact(|transaction| create(transaction, order, By { who, now_ms }))
    }

    fn command(&self, id: &RolloutId, command: Command, who: &str, now_ms: u64) -> Result<Rollout, StoreError> {
        request::check_author(who, now_ms)?;
        self.transact(|transaction| {
            let by = By { who, now_ms };
            let Rollout { phase, .. } = load(transaction, id, THERE)?;
            match command.applied_to(phase) {
                Some(Some(phase)) => set_phase(transaction, id, phase, None, by)?,
                Some(None) => {}
                None => {
                    return Err(RolloutError::Phase { rollout_id: id.clone(), phase, command }.into_fault());
                }
            }
            if command == Command::Rollback {
                for state in [RolloutState::Pending, RolloutState::Acknowledged, RolloutState::Active] {
                    for node_id in nodes(transaction, id, None, &state)? {
                        set_state(transaction, id, &node_id, &RolloutState::RolledBack, None, by)?;
                    }
                }
            }
            advance(transaction, id, by)?;
            load(transaction, id, COUNTED)
        })
    }

    fn report(&self, node_id: &NodeId, report: &Report, who: &str, now_ms: u64) -> Result<Directive, StoreError> {
        request::check_author(who, now_ms)?;
        report.check()?;
        self.transact(|transaction| {
            let (by, of) = (By { who, now_ms }, || node_id.clone());
            let current = current(transaction, node_id)?
                .ok_or_else(|| RolloutError::NoDirective { node_id: of() }.into_fault())?;
            let Report { rollout_id: reported, state: to, .. } = report;
            if current.rollout_id != *reported {
                let (current, reported) = (current.rollout_id, reported.clone());
                return Err(RolloutError::Superseded { node_id: of(), current, reported }.into_fault());
            }
            if current.state == *to {
                return Ok(current);
            }
            if !may_become(&current.state, to) {
                return Err(
                    RolloutError::Transition { node_id: of(), from: current.state, to: to.clone() }.into_fault()
                );
            }
            set_state(transaction, reported, node_id, to, report.detail().as_deref(), by)?;
            advance(transaction, reported, by)?;
            self::current(transaction, node_id)?.ok_or_else(|| RolloutError::NoDirective { node_id: of() }.into_fault())
        })
    }

    fn rollout(&self, id: &RolloutId) -> Result<Rollout, StoreError> {
        self.read(|reader| load(reader, id, COUNTED))
    }

    fn latest(&self, before: Option<&RolloutId>, limit: usize) -> Result<Vec<Rollout>, StoreError> {
        let (before, limit) = (before.map_or("~", RolloutId::as_str), i64::try_from(limit).unwrap_or(i64::MAX));
        self.read(|reader| {
            let sql = "SELECT rollout_id FROM rollout WHERE rollout_id < ?1 ORDER BY rollout_id DESC LIMIT ?2";
            let ids = rollout_ids(reader, sql, params![before, limit])?;
            ids.iter().map(|id| load(reader, id, COUNTED)).collect()
        })
    }

    fn directives(&self, id: &RolloutId, after: Option<&NodeId>, limit: usize) -> Result<Vec<Directive>, StoreError> {
        let (after, limit) = (after.map_or("", NodeId::as_str), i64::try_from(limit).unwrap_or(i64::MAX));
        self.read(|reader| {
            let sql = format!("SELECT {DIRECTIVE} WHERE rollout_id = ?1 AND node_id > ?2 ORDER BY node_id LIMIT ?3");
            let mut statement = reader.prepare_cached(&sql)?;
            let mut rows = statement.query(params![id.as_str(), after, limit])?;
            let mut directives = Vec::new();
            while let Some(row) = rows.next()? {
                directives.push(directive(row)?);
            }
            Ok(directives)
        })
    }

    fn directive(&self, node_id: &NodeId) -> Result<Option<Directive>, StoreError> {
        self.read(|reader| current(reader, node_id))
    }
}

impl RolloutError {
    fn into_fault(self) -> Fault {
        StoreError::from(self).into()
    }
}

/// Takes a node's directive from it: its enrollment is not the one any more that it was chosen under.
pub(in crate::enrollment) fn withdraw(
    transaction: &Transaction<'_>,
    node_id: &NodeId,
    by: By<'_>,
) -> Result<(), Fault> {
    for id in take(transaction, node_id)? {
        advance(transaction, &id, by)?;
    }
    Ok(())
}

/// The rollout that the node's directive was of, if it had one.
fn take(transaction: &Transaction<'_>, node_id: &NodeId) -> Result<Vec<RolloutId>, Fault> {
    let sql = "UPDATE directive SET is_current = 0 WHERE node_id = ?1 AND is_current = 1 RETURNING rollout_id";
    rollout_ids(transaction, sql, [node_id.as_str()])
}

fn create(transaction: &Transaction<'_>, order: &Order, by: By<'_>) -> Result<Rollout, Fault> {
    let Order { bundle, selector, canary_percent } = order;
    let nodes = selected(transaction, selector)?;
    if nodes.is_empty() {
        return Err(RolloutError::NoNodes { selector: selector.to_string() }.into_fault());
    }
    let id = RolloutId::generate();
    let canaries = canary_percent.map(|percent| canaries(&id, &nodes, percent)).unwrap_or_default();
    let percent = canary_percent.and_then(|percent| i64::try_from(percent).ok());
    transaction.execute(
        "INSERT INTO rollout (rollout_id, bundle, selector, canary_percent, phase) VALUES (?1, ?2, ?3, ?4, 'running')",
        params![id.as_str(), bundle.to_string(), selector.to_string(), percent],
    )?;
    write_phase(transaction, &id, Phase::Running, None, by)?;
    let mut left = Vec::new();
    for node_id in &nodes {
        left.extend(take(transaction, node_id)?);
        let wave = if canaries.contains(node_id) { Wave::Canary } else { Wave::Rest };
        transaction
            .prepare_cached(
                "INSERT INTO directive (rollout_id, node_id, wave, state, is_current, updated_at_ms)
                 VALUES (?1, ?2, ?3, '<none>', 1, ?4)",
            )?
            .execute(params![id.as_str(), node_id.as_str(), wave.as_str(), signed(by.now_ms)])?;
    }
    issue(transaction, &id, Wave::Canary, by)?;
    // Whom these nodes were taken from has fewer to wait for.
    left.sort();
    left.dedup();
    for id in &left {
        advance(transaction, id, by)?;
    }
    advance(transaction, &id, by)?;
    load(transaction, &id, COUNTED)
}

/// The active nodes that are meant.
fn selected(transaction: &Transaction<'_>, selector: &Selector) -> Result<Vec<NodeId>, Fault> {
    let (sql, value) = match selector {
        Selector::Nodes(ids) => {
            for node_id in ids {
                let row = select(transaction, node_id)?;
                match row.map(|row| row.enrollment.status) {
                    Some(Status::Active) => {}
                    None => return Err(StoreError::NotEnrolled { node_id: node_id.clone(), close: None }.into()),
                    Some(Status::Revoked | Status::Unknown(_)) => {
                        return Err(RolloutError::Revoked { node_id: node_id.clone() }.into_fault());
                    }
                }
            }
            return Ok(ids.iter().cloned().collect());
        }
        Selector::All => ("?1", ""),
        Selector::EnrollmentRef(enrollment_ref) => ("enrollment_ref", enrollment_ref.as_str()),
        Selector::RolloutState(state) => ("rollout_state", state.as_str()),
    };
    let sql = format!("SELECT node_id FROM enrollment WHERE status = 'active' AND {sql} = ?1 ORDER BY node_id");
    node_ids(transaction, &sql, [value])
}

/// Does what follows from how far the rollout has come, until there is nothing to do.
fn advance(transaction: &Transaction<'_>, id: &RolloutId, by: By<'_>) -> Result<(), Fault> {
    loop {
        match load(transaction, id, THERE)?.next() {
            Next::Wait => return Ok(()),
            Next::GoOn => issue(transaction, id, Wave::Rest, by)?,
            Next::Stop(why) => set_phase(transaction, id, Phase::Stopped, Some(why), by)?,
            Next::Finish => set_phase(transaction, id, Phase::Finished, None, by)?,
        }
    }
}

/// Hands out the directives of a wave.
fn issue(transaction: &Transaction<'_>, id: &RolloutId, wave: Wave, by: By<'_>) -> Result<(), Fault> {
    for node_id in nodes(transaction, id, Some(wave), &RolloutState::None)? {
        set_state(transaction, id, &node_id, &RolloutState::Pending, None, by)?;
    }
    Ok(())
}

/// The nodes whose current directive is this rollout's and in this state.
fn nodes(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    wave: Option<Wave>,
    state: &RolloutState,
) -> Result<Vec<NodeId>, Fault> {
    let sql = "SELECT node_id FROM directive
               WHERE rollout_id = ?1 AND wave IN (?2, ?3) AND state = ?4 AND is_current = 1 ORDER BY node_id";
    let (one, other) = wave.map_or((Wave::Canary, Wave::Rest), |wave| (wave, wave));
    node_ids(transaction, sql, params![id.as_str(), one.as_str(), other.as_str(), state.as_str()])
}

/// The directive's state, and the node's with it.
fn set_state(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    node_id: &NodeId,
    state: &RolloutState,
    detail: Option<&str>,
    by: By<'_>,
) -> Result<(), Fault> {
    transaction
        .prepare_cached(
            "UPDATE directive SET state = ?3, detail = ?4, updated_at_ms = ?5 WHERE rollout_id = ?1 AND node_id = ?2",
        )?
        .execute(params![id.as_str(), node_id.as_str(), state.as_str(), detail, signed(by.now_ms)])?;
    apply(transaction, node_id, &Request::SetRollout(state), by)?;
    Ok(())
}

fn set_phase(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    phase: Phase,
    detail: Option<&str>,
    by: By<'_>,
) -> Result<(), Fault> {
    transaction.execute("UPDATE rollout SET phase = ?2 WHERE rollout_id = ?1", params![id.as_str(), phase.as_str()])?;
    write_phase(transaction, id, phase, detail, by)
}

fn write_phase(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    phase: Phase,
    detail: Option<&str>,
    By { who, now_ms }: By<'_>,
) -> Result<(), Fault> {
    transaction.execute(
        "INSERT INTO rollout_history (rollout_id, phase, detail, who, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id.as_str(), phase.as_str(), detail, who, signed(now_ms)],
    )?;
    Ok(())
}

/// A rollout, with its directives [`COUNTED`], or looked for whether they are [`THERE`].
fn load(connection: &Connection, id: &RolloutId, counts: &str) -> Result<Rollout, Fault> {
    let mut statement = connection
        .prepare_cached("SELECT bundle, selector, canary_percent, phase FROM rollout WHERE rollout_id = ?1")?;
    let mut rows = statement.query([id.as_str()])?;
    let row = rows.next()?.ok_or_else(|| RolloutError::NotFound { rollout_id: id.clone() }.into_fault())?;
    let on_disk = OnDisk { record: row, node_id: id.as_str().into() };
    let mut rollout = Rollout {
        rollout_id: id.clone(),
        bundle: on_disk.parse("bundle", 0, Pinned::parse)?,
        selector: on_disk.parse("selector", 1, Selector::parse)?,
        canary_percent: match row.get::<_, Option<i64>>(2)? {
            Some(_) => Some(on_disk.count("canary_percent", 2)?),
            None => None,
        },
        phase: phase(&on_disk, 3)?,
        canary: Counts::default(),
        rest: Counts::default(),
        history: Vec::new(),
    };
    let mut statement = connection.prepare_cached(counts)?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let on_disk = OnDisk { record: row, node_id: id.as_str().into() };
        let counts = match wave(&on_disk, 0)? {
            Wave::Canary => &mut rollout.canary,
            Wave::Rest => &mut rollout.rest,
        };
        counts.count(&RolloutState::from_word(&row.text(1)?), row.get(2)?, on_disk.count("count", 3)?);
    }
    let mut statement = connection.prepare_cached(
        "SELECT phase, detail, who, at_ms FROM rollout_history WHERE rollout_id = ?1 ORDER BY change_id",
    )?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let on_disk = OnDisk { record: row, node_id: id.as_str().into() };
        rollout.history.push(PhaseChange {
            phase: phase(&on_disk, 0)?,
            detail: row.get(1)?,
            who: row.text(2)?.into_owned(),
            at_ms: on_disk.count("at_ms", 3)?,
        });
    }
    Ok(rollout)
}

fn current(connection: &Connection, node_id: &NodeId) -> Result<Option<Directive>, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {DIRECTIVE} WHERE node_id = ?1 AND is_current = 1"))?;
    let mut rows = statement.query([node_id.as_str()])?;
    rows.next()?.map(directive).transpose()
}

/// Reads one row in the order of [`DIRECTIVE`].
fn directive(row: &Row<'_>) -> Result<Directive, Fault> {
    let on_disk = OnDisk { record: row, node_id: row.text(0)? };
    Ok(Directive {
        node_id: on_disk.parse("node_id", 0, NodeId::parse)?,
        rollout_id: on_disk.parse("rollout_id", 1, RolloutId::parse)?,
        bundle: on_disk.parse("bundle", 2, Pinned::parse)?,
        phase: phase(&on_disk, 3)?,
        wave: wave(&on_disk, 4)?,
        state: RolloutState::from_word(&row.text(5)?),
        detail: row.get(6)?,
        is_current: row.get(7)?,
        updated_at_ms: on_disk.count("updated_at_ms", 8)?,
        enrollment_ref: on_disk.parse("enrollment_ref", 9, EnrollmentRef::parse)?,
    })
}

fn phase(on_disk: &OnDisk<'_, Row<'_>>, index: usize) -> Result<Phase, Fault> {
    on_disk.parse("phase", index, |word| Phase::from_word(word).ok_or("no such phase"))
}

fn wave(on_disk: &OnDisk<'_, Row<'_>>, index: usize) -> Result<Wave, Fault> {
    on_disk.parse("wave", index, |word| Wave::from_word(word).ok_or("no such wave"))
}

fn node_ids(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<NodeId>, Fault> {
    collect(connection, sql, params, |on_disk| on_disk.parse("node_id", 0, NodeId::parse))
}

fn rollout_ids(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<RolloutId>, Fault> {
    collect(connection, sql, params, |on_disk| on_disk.parse("rollout_id", 0, RolloutId::parse))
}

fn collect<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&OnDisk<'_, Row<'_>>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(&OnDisk { record: row, node_id: row.text(0)? })?);
    }
    Ok(all)
}
