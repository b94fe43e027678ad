//! The store that an orchestrator keeps, for operators.

use std::{
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use gate_core::{
    enrollment::{Enrollment, RolloutState, Status},
    identity::{EnrollmentRef, NodeId},
    json,
};
use http::Method;
use serde::de::DeserializeOwned;

use super::{OrchestratorClient, RemoteError, TOTAL_TIMEOUT};
use crate::{
    client::{Kept, query_value},
    enrollment::{
        Change, Changes, IfActive, Mutation, Query, Row, Store, StoreError,
        rollout::RolloutStore,
        wire::{Count, Enroll, Found, History, PAGE, Page, SetRollout},
    },
};

/// How long to wait where a token asks too often: after it, as many requests as in a second are taken at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The store that an orchestrator keeps. The history says the token's name for who made a change, and the orchestrator's time.
///
/// It waits for answers on the thread that calls, which must not be one of an async runtime.
#[derive(Debug)]
pub struct RemoteStore {
    client: OrchestratorClient,
    kept: Mutex<Kept>,
    executor: tokio::runtime::Runtime,
}

impl RemoteStore {
    /// Asks an orchestrator on each call.
    ///
    /// # Errors
    /// [`RemoteError::Resources`].
    pub fn new(client: OrchestratorClient) -> Result<Self, RemoteError> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { client, kept: Mutex::default(), executor: executor.map_err(RemoteError::Resources)? })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, StoreError> {
        self.ask(Method::GET, path, String::new())
    }

    pub(in crate::enrollment) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, StoreError> {
        self.ask_within(TOTAL_TIMEOUT, method, path, body)
    }

    /// Asks for what may take longer.
    pub(in crate::enrollment) fn ask_within<T: DeserializeOwned>(
        &self,
        total_timeout: Duration,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, StoreError> {
        // Who asks at the same time has a connection of their own.
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = std::mem::take(&mut *lock());
        let begun = Instant::now();
        let answer = loop {
            let answer = self.client.ask(&mut kept, method.clone(), path, body.clone(), total_timeout);
            match self.executor.block_on(answer) {
                // Nothing was done: a fleet in pages may be more than a token may ask for in a second.
                Err(error) if error.is_too_often() && begun.elapsed() < TOTAL_TIMEOUT => thread::sleep(PAUSE),
                answer => break answer,
            }
        };
        *lock() = kept;
        Ok(answer?)
    }

    /// Shows rows page by page.
    fn pages(&self, query: &Query, visit: &mut dyn FnMut(Row) -> ControlFlow<()>) -> Result<(), StoreError> {
        let (mut after, mut left) = (query.after.clone(), query.limit);
        while left > 0 {
            let mut path = format!("/v1/enrollments?limit={}", left.min(PAGE));
            for (name, value) in
                [("after", after.as_ref().map(NodeId::as_str)), ("status", query.status.as_ref().map(Status::as_str))]
            {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", query_value(value)));
                }
            }
            let Page { rows, next_after } = self.get(&path)?;
            left = left.saturating_sub(rows.len());
            for row in rows {
                if visit(row).is_break() {
                    return Ok(());
                }
            }
            // Each page must lead further, or there would be no end.
            match next_after {
                Some(next) if Some(&next) > after.as_ref() => after = Some(next),
                Some(_) | None => return Ok(()),
            }
        }
        Ok(())
    }
}

impl Store for RemoteStore {
    fn enroll(
        &self,
        node_id: &NodeId,
        enrollment_ref: &EnrollmentRef,
        if_active: IfActive,
        _who: &str,
        _now_ms: u64,
    ) -> Result<Mutation, StoreError> {
        let replace = Some(if_active == IfActive::Replace);
        let body = json::write(&Enroll { enrollment_ref: enrollment_ref.clone(), replace });
        self.ask(Method::PUT, &format!("/v1/enrollments/{node_id}"), body)
    }

    fn revoke(&self, node_id: &NodeId, _who: &str, _now_ms: u64) -> Result<Mutation, StoreError> {
        self.ask(Method::POST, &format!("/v1/enrollments/{node_id}/revoke"), String::new())
    }

    fn set_rollout(
        &self,
        node_id: &NodeId,
        rollout_state: &RolloutState,
        _who: &str,
        _now_ms: u64,
    ) -> Result<Mutation, StoreError> {
        let body = json::write(&SetRollout { rollout_state: rollout_state.clone() });
        self.ask(Method::PUT, &format!("/v1/enrollments/{node_id}/rollout"), body)
    }

    fn rows(&self, nodes: &[NodeId]) -> Result<Vec<Row>, StoreError> {
        let row = |node_id| self.get(&format!("/v1/enrollments/{node_id}")).map(|Found { row }| row);
        nodes.iter().filter_map(|node_id| row(node_id).transpose()).collect()
    }

    fn list(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.pages(query, &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    fn count(&self, status: Option<&Status>) -> Result<u64, StoreError> {
        let status = status.map(|status| format!("?status={}", query_value(status.as_str()))).unwrap_or_default();
        let Count { count } = self.get(&format!("/v1/count{status}"))?;
        Ok(count)
    }

    fn for_each(&self, visit: &mut dyn FnMut(Enrollment) -> ControlFlow<()>) -> Result<(), StoreError> {
        let all = Query { status: None, after: None, limit: usize::MAX };
        self.pages(&all, &mut |row| visit(row.enrollment))
    }

    fn history(&self, node_id: &NodeId, after_serial: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        let (mut after, mut left, mut all) = (after_serial, limit, Vec::new());
        while left > 0 {
            let History { changes, next_after } =
                self.get(&format!("/v1/enrollments/{node_id}/history?after={after}&limit={}", left.min(PAGE)))?;
            left = left.saturating_sub(changes.len());
            all.extend(changes);
            match next_after {
                Some(next) if next > after => after = next,
                Some(_) | None => break,
            }
        }
        Ok(all)
    }

    fn revision(&self) -> Result<u64, StoreError> {
        let Changes { cursor, .. } = self.get("/v1/changes")?;
        Ok(cursor)
    }

    fn changes(&self, after: u64, node_id: Option<&NodeId>, limit: usize) -> Result<Changes, StoreError> {
        let of = node_id.map(|node_id| format!("&node_id={node_id}")).unwrap_or_default();
        self.get(&format!("/v1/changes?after={after}&limit={}{of}", limit.clamp(1, PAGE)))
    }

    fn rollouts(&self) -> &dyn RolloutStore {
        self
    }
}
