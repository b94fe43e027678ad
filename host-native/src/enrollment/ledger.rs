//! A change in any store: what is found, what follows from it, and what is written, in one transaction.
//!
//! It is asynchronous for the stores that wait for a server. One that does not is always ready.

use std::slice;

use gate_core::NodeId;

use super::{
    Action, Change, Mutation, Row, StoreError,
    request::{By, Found, Request},
    rollout::steps::RolloutLedger,
};

/// What a transaction can do. Nobody else changes anything before it ends.
pub(super) trait Ledger {
    type Fault: From<StoreError>;

    /// The rows of these nodes, of those that have one.
    async fn rows(&mut self, nodes: &[NodeId]) -> Result<Vec<Row>, Self::Fault>;

    /// An id that differs from this one only in case.
    async fn close_match(&mut self, node_id: &NodeId) -> Result<Option<NodeId>, Self::Fault>;

    /// Writes each row with its entry in the history, which has the next revision.
    async fn write(&mut self, changes: &[Change]) -> Result<(), Self::Fault>;
}

/// Does what is asked of one node.
pub(super) async fn change<L: RolloutLedger>(
    ledger: &mut L,
    node_id: &NodeId,
    request: &Request<'_>,
    by: By<'_>,
) -> Result<Mutation, L::Fault> {
    let found = match ledger.rows(slice::from_ref(node_id)).await?.pop() {
        Some(row) => Found::Row(row),
        None => Found::Nothing { close: ledger.close_match(node_id).await? },
    };
    let mutation = request.on(node_id, found, by)?;
    if let Some(change) = &mutation.change {
        ledger.write(slice::from_ref(change)).await?;
        match change.action {
            // It is not the enrollment any more that a directive was given under. What follows for its rollout is left to do:
            // whatever is wrong with that stands in no way here.
            Action::Reenroll | Action::Replace | Action::Revoke => ledger.take(slice::from_ref(node_id), None).await?,
            Action::Enroll | Action::SetRollout => {}
        }
    }
    Ok(mutation)
}
