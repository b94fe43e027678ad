//! The leases of many nodes, for those who ask this machine and not the orchestrator.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use gate_core::{Answer, TrustedKeys, identity::NodeId};

use super::{LeaseSource, OrchestratorClient};

/// Nodes whose leases are held at once.
const NODES: usize = 1024;

/// Answers for any node from its lease, which is checked here, for those who ask this machine and not the orchestrator.
#[derive(Debug)]
pub struct LeaseLookup {
    client: OrchestratorClient,
    keys: TrustedKeys,
    max_skew_ms: u64,
    nodes: Mutex<BTreeMap<NodeId, LeaseSource>>,
    leases: PathBuf,
}

impl LeaseLookup {
    /// Takes leases that these keys have signed, from a clock that may be so far ahead, and keeps them in the directory
    /// `leases`.
    pub fn new(client: OrchestratorClient, keys: TrustedKeys, max_skew_ms: u64, leases: PathBuf) -> Self {
        Self { client, keys, max_skew_ms, nodes: Mutex::default(), leases }
    }

    /// What is known of a node now; observed, as far as whoever asked is concerned, at the last multiple of `refresh_ms`.
    /// The first question about a node waits for the orchestrator.
    pub async fn answer(&self, node_id: &NodeId, now_ms: u64, refresh_ms: u64) -> Answer {
        let answer = |source: &LeaseSource| match source.lease() {
            Ok(lease) => lease.answer(self.max_skew_ms, now_ms, refresh_ms),
            Err(answer) => answer,
        };
        if let Some(source) = self.nodes().get(node_id) {
            return answer(source);
        }
        let keys = Some(self.keys.clone());
        let source =
            LeaseSource::start(self.client.clone(), node_id.clone(), keys, self.max_skew_ms, &self.leases).await;
        let mut nodes = self.nodes();
        if nodes.len() >= NODES {
            // Those that are enrolled stay: anybody can ask for strangers.
            nodes.retain(|_, source| source.lease().is_ok());
        }
        if nodes.len() >= NODES {
            return Answer::Unavailable { why: format!("leases of {NODES} nodes are held: use another host for more") };
        }
        answer(nodes.entry(node_id.clone()).or_insert(source))
    }
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, LeaseSource>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
