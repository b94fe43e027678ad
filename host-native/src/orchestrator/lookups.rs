//! Look-ups of rows, gathered: while the store is asked, those who come wait for the next question together, as frames do for the
//! log. So whoever is answered was answered by a question that was asked after theirs.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gate_core::NodeId;
use http::StatusCode;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{Orchestrator, Refusal};
use crate::enrollment::{Row, Store, StoreError};

/// Rows in one question at most.
const TOGETHER: usize = 256;

/// Longest that anybody waits: for the question before theirs, and for theirs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who waits for which row.
#[derive(Default)]
pub(super) struct Lookups {
    asked: Mutex<VecDeque<Asked>>,
    come: Notify,
}

struct Asked {
    node_id: NodeId,
    tell: oneshot::Sender<Found>,
}

type Found = Result<Option<Row>, Refusal>;

impl Lookups {
    /// A node's row, as the store has it now.
    pub(super) async fn row(&self, node_id: NodeId) -> Found {
        let (tell, told) = oneshot::channel();
        self.lock().push_back(Asked { node_id, tell });
        self.come.notify_one();
        match timeout(PATIENCE, told).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => {
                let why = "the orchestrator shuts down, or its store failed: ask again, or look at its log";
                Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()))
            }
            Err(_) => {
                let why =
                    format!("the store gave no answer within {PATIENCE:?}: look what it is busy with, and ask again");
                Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, why))
            }
        }
    }

    /// Asks the store of `app`, for ever.
    pub(super) async fn answer(self: &Arc<Self>, app: &Orchestrator) -> Infallible {
        loop {
            self.come.notified().await;
            let lookups = Arc::clone(self);
            // To hand a question to another thread takes longer than to answer it: those who come meanwhile are answered there too.
            let answered = app.ask_at_once(move |store| {
                while lookups.answer_together(store) {}
                Ok(())
            });
            if let Err(Refusal(_, why)) = answered.await {
                tracing::error!("look-ups were not answered: {why}");
                // Those behind them still wait.
                self.come.notify_one();
            }
        }
    }

    /// Answers those who wait, as many as one question may have; whether there were any.
    fn answer_together(&self, store: &dyn Store) -> bool {
        let together = self.take();
        if together.is_empty() {
            return false;
        }
        let nodes: Vec<_> = together.iter().map(|asked| asked.node_id.clone()).collect();
        for (Asked { tell, .. }, found) in together.into_iter().zip(rows(store, &nodes)) {
            // Who is gone needs no answer.
            let _ = tell.send(found);
        }
        true
    }

    /// Who still waits, those who have waited longest first.
    fn take(&self) -> Vec<Asked> {
        let mut asked = self.lock();
        asked.retain(|asked| !asked.tell.is_closed());
        let together = asked.len().min(TOGETHER);
        asked.drain(..together).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is of each node.
fn rows(store: &dyn Store, nodes: &[NodeId]) -> Vec<Found> {
    match store.rows(nodes) {
        Ok(rows) => {
            let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.enrollment.node_id.clone(), row)).collect();
            nodes.iter().map(|node_id| Ok(rows.get(node_id).cloned())).collect()
        }
        // A row that is damaged is its own node's matter.
        Err(StoreError::Damaged { .. }) if nodes.len() > 1 => {
            nodes.iter().flat_map(|node_id| rows(store, std::slice::from_ref(node_id))).collect()
        }
        Err(error) => vec![Err(Refusal::of(&error)); nodes.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        enrollment::{IfActive, SqliteStore},
        key::PrivateKey,
        orchestrator::Access,
        serve::Metrics,
    };
    use gate_core::EnrollmentRef;
    use tokio::task::JoinSet;

    #[test]
    fn whoever_asks_is_answered_however_many_come_at_once_and_after_a_pause() {
        let home = tempfile::tempdir().unwrap();
        let tokens = home.path().join("tokens");
        crate::file::replace(&tokens, b"").unwrap();
        let store = SqliteStore::open(home.path().join("fleet.sqlite")).unwrap();
        let nodes = ["robot-7", "robot-8", "robot-9"].map(|id| NodeId::parse(id).unwrap());
        for node_id in &nodes {
            store.enroll(node_id, &EnrollmentRef::parse("fleet-a").unwrap(), IfActive::Refuse, "ops", 1).unwrap();
        }
        let (access, key) = (Access::open(&tokens, 1).unwrap(), PrivateKey::generate().unwrap());
        let metrics = Arc::new(Metrics::new("test", "1"));
        let app = Arc::new(Orchestrator::new(Arc::new(store), key, 60_000, access, metrics));
        let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        executor.spawn({
            let app = Arc::clone(&app);
            async move { app.lookups.answer(&app).await }
        });
        for at_once in [1, TOGETHER, 4 * TOGETHER + 1, 1, 4 * TOGETHER + 1] {
            let asked: JoinSet<_> = executor.block_on(async {
                let each = (0..at_once).zip(nodes.iter().cycle().cloned());
                each.map(|(_, node_id)| {
                    let app = Arc::clone(&app);
                    async move { (node_id.clone(), app.lookups.row(node_id).await) }
                })
                .collect()
            });
            for (node_id, found) in executor.block_on(asked.join_all()) {
                assert_eq!(found.unwrap().unwrap().enrollment.node_id, node_id);
            }
        }
    }

    #[test]
    fn each_is_told_of_their_own_node_and_a_damaged_row_concerns_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("fleet.sqlite");
        let store = SqliteStore::open(&path).unwrap();
        let nodes = ["robot-9", "robot-7", "robot-8", "robot-7", "robot-9"].map(|id| NodeId::parse(id).unwrap());
        for node_id in &nodes[1..3] {
            let enrollment_ref = EnrollmentRef::parse("fleet-a").unwrap();
            store.enroll(node_id, &enrollment_ref, IfActive::Refuse, "ops", 1).unwrap();
        }
        let told = || {
            let found = rows(&store, &nodes).into_iter();
            let said = found.map(|found| found.map(|row| row.map(|row| row.enrollment.node_id.to_string())));
            said.collect::<Vec<_>>()
        };
        let [seven, eight] = ["robot-7", "robot-8"].map(|id| Some(id.to_owned()));
        let whole = [None, seven.clone(), eight, seven, None];
        assert_eq!(told().into_iter().map(Result::unwrap).collect::<Vec<_>>(), whole);
        let stranger = rusqlite::Connection::open(&path).unwrap();
        stranger
            .execute_batch(
                "PRAGMA ignore_check_constraints = 1;
                 UPDATE enrollment SET enrollment_ref = '', serial = 2 WHERE node_id = 'robot-8'",
            )
            .unwrap();
        for (at, (told, before)) in told().into_iter().zip(whole).enumerate() {
            match told {
                Ok(row) => assert!(at != 2 && row == before),
                Err(Refusal(status, why)) => {
                    assert!(at == 2 && status == StatusCode::SERVICE_UNAVAILABLE && why.contains("`robot-8`"), "{why}");
                }
            }
        }
    }
}
