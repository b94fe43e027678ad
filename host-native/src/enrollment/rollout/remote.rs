//! Rollouts that an orchestrator keeps.

use gate_core::{NodeId, json};
use http::Method;

use super::{Command, Directive, Order, Report, Rollout, RolloutId, RolloutStore};
use crate::enrollment::{
    RemoteStore, StoreError,
    wire::{Current, Directives, PAGE, ROLLOUTS, Rollouts, STEPS_TIMEOUT},
};

impl RolloutStore for RemoteStore {
    fn create(&self, order: &Order, _who: &str, _now_ms: u64) -> Result<Rollout, StoreError> {
        self.ask_within(STEPS_TIMEOUT, Method::POST, "/v1/rollouts", json::write(order))
    }

    fn command(&self, id: &RolloutId, command: Command, _who: &str, _now_ms: u64) -> Result<Rollout, StoreError> {
        self.ask_within(STEPS_TIMEOUT, Method::POST, &format!("/v1/rollouts/{id}/{command}"), String::new())
    }

    fn report(&self, node_id: &NodeId, report: &Report, _who: &str, _now_ms: u64) -> Result<Directive, StoreError> {
        self.ask(Method::PUT, &format!("/v1/directives/{node_id}"), json::write(report))
    }

    /// An orchestrator does so by itself.
    fn go_on(&self, _who: &str, _now_ms: u64) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn rollout(&self, id: &RolloutId) -> Result<Rollout, StoreError> {
        let Directives { rollout, .. } = self.ask(Method::GET, &format!("/v1/rollouts/{id}?limit=1"), String::new())?;
        Ok(rollout)
    }

    fn latest(&self, before: Option<&RolloutId>, limit: usize) -> Result<Vec<Rollout>, StoreError> {
        let before = before.map(|id| format!("&before={id}")).unwrap_or_default();
        let path = format!("/v1/rollouts?limit={}{before}", limit.clamp(1, ROLLOUTS));
        let Rollouts { rollouts, .. } = self.ask(Method::GET, &path, String::new())?;
        Ok(rollouts)
    }

    fn directives(&self, id: &RolloutId, after: Option<&NodeId>, limit: usize) -> Result<Vec<Directive>, StoreError> {
        let after = after.map(|node_id| format!("&after={node_id}")).unwrap_or_default();
        let path = format!("/v1/rollouts/{id}?limit={}{after}", limit.clamp(1, PAGE));
        let Directives { directives, .. } = self.ask(Method::GET, &path, String::new())?;
        Ok(directives)
    }

    fn directive(&self, node_id: &NodeId) -> Result<Option<Directive>, StoreError> {
        let Current { directive } = self.ask(Method::GET, &format!("/v1/directives/{node_id}"), String::new())?;
        Ok(directive)
    }

    fn directive_of(&self, node_id: &NodeId, id: &RolloutId) -> Result<Option<Directive>, StoreError> {
        let Current { directive } = self.ask(Method::GET, &format!("/v1/directives/{node_id}/{id}"), String::new())?;
        Ok(directive)
    }
}
