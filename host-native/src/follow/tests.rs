use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use gate_core::{
    Config, EnrollmentRef, Freshness, Mode, ToolName,
    frame::Kind,
    manifest::{Channel, Provenance},
};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    bundle::{self, Description, Files},
    enrollment::{
        IfActive, LocalSource, RemoteError, SqliteStore, Store,
        rollout::{Command, Order, Rollout, Selector},
    },
    gate::Policies,
    key::{self, PrivateKey},
    oci::{Pinned, Reference},
    wal::{Options, Wal},
};

const POLICY: &str = "package autonomy\nallow := true\n";

/// One node, its orchestrator's store, and an image layout for a registry.
struct Rig {
    dir: TempDir,
    key: PrivateKey,
    trusted: PathBuf,
    store: Arc<SqliteStore>,
    node_id: NodeId,
    starts: AtomicUsize,
}

/// The orchestrator, as far away as it may be: the `left`-th change does not get through, or its answer does not.
struct Line {
    store: Arc<SqliteStore>,
    left: Arc<AtomicUsize>,
    is_answer_lost: bool,
}

impl Line {
    fn over<T>(&self, ask: impl FnOnce(&SqliteStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let broken = || RemoteError::Unreachable { url: "http://127.0.0.1:1".to_owned(), cause: "a test".to_owned() };
        // Stays at 0 once it is there: the line is down.
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(1) if self.is_answer_lost => ask(&self.store).and_then(|_| Err(broken().into())),
            Ok(1) | Err(_) => Err(broken().into()),
            Ok(_) => ask(&self.store),
        }
    }
}

impl RolloutStore for Line {
    fn create(&self, order: &Order, who: &str, now_ms: u64) -> Result<Rollout, StoreError> {
        self.over(|store| store.create(order, who, now_ms))
    }
    fn command(&self, id: &RolloutId, command: Command, who: &str, now_ms: u64) -> Result<Rollout, StoreError> {
        self.over(|store| store.command(id, command, who, now_ms))
    }
    fn report(&self, node_id: &NodeId, report: &Report, who: &str, now_ms: u64) -> Result<Directive, StoreError> {
        self.over(|store| store.report(node_id, report, who, now_ms))
    }
    fn go_on(&self, who: &str, now_ms: u64) -> Result<bool, StoreError> {
        self.over(|store| store.go_on(who, now_ms))
    }
    fn rollout(&self, id: &RolloutId) -> Result<Rollout, StoreError> {
        self.over(|store| store.rollout(id))
    }
    fn latest(&self, before: Option<&RolloutId>, limit: usize) -> Result<Vec<Rollout>, StoreError> {
        self.over(|store| store.latest(before, limit))
    }
    fn directives(&self, id: &RolloutId, after: Option<&NodeId>, limit: usize) -> Result<Vec<Directive>, StoreError> {
        self.over(|store| store.directives(id, after, limit))
    }
    fn directive(&self, node_id: &NodeId) -> Result<Option<Directive>, StoreError> {
        self.over(|store| store.directive(node_id))
    }
    fn directive_of(&self, node_id: &NodeId, id: &RolloutId) -> Result<Option<Directive>, StoreError> {
        self.over(|store| store.directive_of(node_id, id))
    }
}

/// A runtime between its start and its end.
struct Running {
    follower: Follower,
    left: Arc<AtomicUsize>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        let trusted = key.write(&dir.path().join("release")).unwrap();
        let store = Arc::new(SqliteStore::open(dir.path().join("enrollment.db")).unwrap());
        let node_id = NodeId::parse("robot-7").unwrap();
        let fleet = EnrollmentRef::parse("fleet-a").unwrap();
        store.enroll(&node_id, &fleet, IfActive::Refuse, "ana", now_ms()).unwrap();
        Self { dir, key, trusted, store, node_id, starts: AtomicUsize::new(0) }
    }

    fn bundle(&self, version: &str, enrollment_ref: Option<&str>, policy: &str, key: &PrivateKey) -> Vec<u8> {
        let enrollment_ref = enrollment_ref.map(|text| EnrollmentRef::parse(text).unwrap());
        let description = Description {
            name: "fleet/policies".into(),
            version: version.into(),
            channel: Channel::Stable,
            policy_version: version.into(),
            provenance: Provenance { enrollment_ref, ..Provenance::default() },
        };
        let files = Files::from([("policies/main.rego".to_owned(), policy.as_bytes().to_vec())]);
        bundle::sign(&bundle::build(description, &files).unwrap(), key).unwrap()
    }

    fn good(&self, version: &str) -> Vec<u8> {
        self.bundle(version, Some("fleet-a"), POLICY, &self.key)
    }

    fn push(&self, version: &str, tar: &[u8]) -> Pinned {
        let layout = self.dir.path().join("layout");
        let reference = Reference::parse(&format!("oci:{}:{version}", layout.display())).unwrap();
        let artifact = oci::push(tar, &reference, &Access::default()).unwrap();
        Pinned::new(reference, artifact.manifest)
    }

    fn roll_out(&self, bundle: Pinned) -> RolloutId {
        let order = Order { bundle, selector: Selector::All, canary_percent: None };
        self.store.create(&order, "ana", now_ms()).unwrap().rollout_id
    }

    /// The orchestrator's word on the node, and why.
    fn state(&self) -> (RolloutState, Option<String>) {
        let Directive { state, detail, .. } = self.store.directive(&self.node_id).unwrap().unwrap();
        (state, detail)
    }

    fn shelf(&self) -> Shelf {
        Shelf::open(self.dir.path().join("shelf")).unwrap()
    }

    /// Starts as `autonomy runtime start --bundle` does; the `nth` change gets no answer, and none after it gets through.
    async fn start(&self, nth: usize, is_answer_lost: bool) -> Running {
        let shelf = self.shelf();
        let first = self.good("1.0.0");
        let (tar, first) = match shelf.current() {
            Some(entry) => (shelf.read(entry).unwrap(), None),
            None => (first.clone(), Some(first)),
        };
        let database = self.dir.path().join("enrollment.db");
        let source = LocalSource::new(database, self.node_id.clone(), 15_000).unwrap();
        let config = Config {
            mode: Mode::Enforce,
            node_id: Some(self.node_id.clone()),
            bundle_keys: Some(key::read_trusted(std::slice::from_ref(&self.trusted), 1).unwrap()),
            lease_keys: None,
            freshness: Freshness::default(),
        };
        let wal = self.dir.path().join(format!("wal-{}", self.starts.fetch_add(1, Ordering::Relaxed)));
        let (wal, _) = Wal::open(wal, Options::default()).unwrap();
        let gate = Gate::open(config, Policies::Bundle(tar), Some(Box::new(source)), Arc::new(wal)).await.unwrap();
        let left = Arc::new(AtomicUsize::new(nth));
        let line = Line { store: Arc::clone(&self.store), left: Arc::clone(&left), is_answer_lost };
        let (orders, node_id, gate) = (Box::new(line), self.node_id.clone(), Arc::new(gate));
        Running { follower: Follower::new(orders, node_id, gate, shelf, first, Access::default()), left }
    }
}

impl Running {
    /// The policies that answer a call, or the reason why it is denied.
    async fn call(&self) -> String {
        let tool = ToolName::parse("tool.echo").unwrap();
        match self.follower.gate.ask(&tool, &json!({})).await {
            Ok(permit) => permit.policy_ref.clone().unwrap().to_string(),
            Err(denial) => denial.reason.to_string(),
        }
    }
}

const NEVER: usize = usize::MAX;

#[tokio::test]
async fn a_directive_is_followed_without_a_restart_and_holds_after_one() {
    let rig = Rig::new();
    let mut running = rig.start(NEVER, false).await;
    running.follower.round();
    assert_eq!(running.call().await, "fleet/policies@1.0.0", "nothing is ordered");
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        rig.roll_out(rig.push(version, &rig.good(version)));
        running.follower.round();
        assert_eq!(rig.state(), (RolloutState::Active, None));
        assert_eq!(running.call().await, format!("fleet/policies@{version}"));
    }
    let mut left: Vec<_> =
        fs::read_dir(rig.shelf().directory()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left.len(), 3, "the current one, the one before, and which is which: {left:?}");
    drop(running);
    let mut running = rig.start(NEVER, false).await;
    assert_eq!(running.call().await, "fleet/policies@1.3.0");
    running.follower.round();
    assert_eq!(rig.state(), (RolloutState::Active, None));

    // What the node is known to run, it runs, even where its disk was lost.
    drop(running);
    fs::remove_dir_all(rig.shelf().directory()).unwrap();
    let mut running = rig.start(NEVER, false).await;
    assert_eq!(running.call().await, "fleet/policies@1.0.0");
    running.follower.round();
    assert_eq!(running.call().await, "fleet/policies@1.3.0");
}

#[tokio::test]
async fn wherever_a_runtime_ends_the_next_one_goes_on() {
    for is_answer_lost in [false, true] {
        for nth in 1.. {
            let rig = Rig::new();
            rig.roll_out(rig.push("1.1.0", &rig.good("1.1.0")));
            let mut running = rig.start(nth, is_answer_lost).await;
            running.follower.round();
            let is_whole = running.left.load(Ordering::Relaxed) > 0;
            let before = running.call().await;
            // A write that did not come to its end.
            drop(running);
            fs::create_dir_all(rig.dir.path().join("shelf")).unwrap();
            fs::write(rig.dir.path().join("shelf/.autonomy-half"), "half").unwrap();

            let mut running = rig.start(NEVER, false).await;
            assert_eq!(running.call().await, before, "{nth}: what ran is what runs");
            running.follower.round();
            assert_eq!(rig.state(), (RolloutState::Active, None), "{nth}");
            assert_eq!(running.call().await, "fleet/policies@1.1.0", "{nth}");
            if is_whole {
                assert_eq!(nth, 4, "a look, two reports, and nothing left to fail");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_run_is_failed_with_its_reason_and_the_bundle_before_runs_on() {
    let rig = Rig::new();
    let mut running = rig.start(NEVER, false).await;
    rig.roll_out(rig.push("1.1.0", &rig.good("1.1.0")));
    running.follower.round();
    let stranger = PrivateKey::generate().unwrap();
    let missing = rig.push("9.0.0", &rig.good("9.0.0"));
    fs::remove_file(rig.dir.path().join("layout/blobs/sha256").join(missing.digest().to_hex())).unwrap();
    for (bundle, why) in [
        (
            rig.push("2.0.0", &rig.bundle("2.0.0", Some("fleet-a"), "package autonomy\nallow if {", &rig.key)),
            "policy does not compile",
        ),
        (
            rig.push("2.0.1", &rig.bundle("2.0.1", Some("fleet-a"), "package other\nallow := true", &rig.key)),
            "no module defines `data.autonomy.allow`",
        ),
        (
            rig.push("2.0.2", &rig.bundle("2.0.2", Some("fleet-b"), POLICY, &rig.key)),
            "the bundle declares enrollment ref `fleet-b` and the node is enrolled with `fleet-a`",
        ),
        (
            rig.push("2.0.3", &rig.bundle("2.0.3", None, POLICY, &rig.key)),
            "the bundle declares enrollment ref `<none>`",
        ),
        (rig.push("2.0.4", &rig.bundle("2.0.4", Some("fleet-a"), POLICY, &stranger)), "bundle is refused"),
        (rig.push("2.0.5", b"this is no bundle"), "bundle is refused"),
        (missing, "No such file or directory"),
    ] {
        rig.roll_out(bundle);
        running.follower.round();
        let (state, detail) = rig.state();
        let detail = detail.unwrap();
        assert_eq!(state, RolloutState::Failed);
        assert!(detail.contains(why) && !detail.contains('\n'), "{why}: {detail}");
        assert_eq!(running.call().await, "attestation: rollout_incoherent", "a node that failed is not trusted");
        assert_eq!(running.follower.gate.policy_ref().unwrap().as_str(), "fleet/policies@1.1.0");
    }
    drop(running);
    let mut running = rig.start(NEVER, false).await;
    assert_eq!(running.follower.gate.policy_ref().unwrap().as_str(), "fleet/policies@1.1.0");
    rig.roll_out(rig.push("1.2.0", &rig.good("1.2.0")));
    running.follower.round();
    assert_eq!(running.call().await, "fleet/policies@1.2.0", "another rollout is the way out");

    // A disk that takes no more: the bundle before runs on.
    rig.roll_out(rig.push("1.3.0", &rig.good("1.3.0")));
    let index = rig.dir.path().join("shelf/current.json");
    fs::remove_file(&index).unwrap();
    fs::create_dir_all(index.join("in the way")).unwrap();
    running.follower.round();
    let (state, detail) = rig.state();
    assert_eq!(state, RolloutState::Failed);
    assert!(detail.unwrap().contains("current.json"));
    assert_eq!(running.follower.gate.policy_ref().unwrap().as_str(), "fleet/policies@1.2.0");
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for_and_a_bundle_that_is_not_there_is_not() {
    let rig = Rig::new();
    let mut running = rig.start(NEVER, false).await;
    let good = rig.push("1.1.0", &rig.good("1.1.0"));
    // A port that nobody has, until somebody does.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let away = || Pinned::parse(&format!("{address}/fleet/policies@{}", good.digest())).unwrap();
    rig.roll_out(away());
    let begun = Instant::now();
    let pauses: Vec<_> = (0..6).map(|_| running.follower.round()).collect();
    assert!(begun.elapsed() >= LONGEST || pauses == [5, 10, 20, 40, 60, 60].map(Duration::from_secs), "{pauses:?}");
    if begun.elapsed() < LONGEST {
        let (state, detail) = rig.state();
        let detail = detail.unwrap();
        assert_eq!(state, RolloutState::Pending);
        assert!(
            detail.starts_with("waits for the bundle: registry `127.0.0.1:") && detail.contains("refused"),
            "{detail}"
        );
        assert_eq!(running.call().await, "fleet/policies@1.0.0", "the bundle before runs on");
    }
    thread::sleep(LONGEST);
    assert_eq!(running.follower.round(), REST);
    assert_eq!(rig.state().0, RolloutState::Failed, "not without an end");

    // Each directive has its own time, and what is there in the end runs.
    rig.roll_out(away());
    running.follower.round();
    assert_eq!(rig.state().0, RolloutState::Pending);
    rig.roll_out(good);
    assert_eq!(running.follower.round(), REST);
    assert_eq!(rig.state(), (RolloutState::Active, None));
    assert_eq!(running.call().await, "fleet/policies@1.1.0");
}

/// A node asks again soon only where what comes next may not be a change of the node.
#[tokio::test]
async fn nothing_goes_on_while_a_rollout_is_paused() {
    let rig = Rig::new();
    let mut running = rig.start(NEVER, false).await;
    assert_eq!(running.follower.round(), REST, "nothing is ordered");
    let id = rig.roll_out(rig.push("1.1.0", &rig.good("1.1.0")));
    rig.store.command(&id, Command::Pause, "ana", now_ms()).unwrap();
    assert_eq!(running.follower.round(), PATIENCE);
    assert_eq!((rig.state().0, running.call().await.as_str()), (RolloutState::Pending, "fleet/policies@1.0.0"));
    rig.store.command(&id, Command::Resume, "ana", now_ms()).unwrap();
    assert_eq!(running.follower.round(), REST);
    assert_eq!((rig.state().0, running.call().await.as_str()), (RolloutState::Active, "fleet/policies@1.1.0"));
    rig.store.command(&id, Command::Rollback, "ana", now_ms()).unwrap();
    assert_eq!(running.follower.round(), REST);
    running.left.store(0, Ordering::Relaxed);
    assert_eq!(running.follower.round(), PATIENCE, "the orchestrator cannot be asked");
}

#[tokio::test]
async fn a_rollout_that_is_taken_back_leaves_the_bundle_before() {
    let rig = Rig::new();
    let mut running = rig.start(NEVER, false).await;
    let id = rig.roll_out(rig.push("1.1.0", &rig.good("1.1.0")));
    running.follower.round();
    rig.store.command(&id, Command::Rollback, "ana", now_ms()).unwrap();
    assert_eq!(running.call().await, "attestation: rollout_incoherent", "at once, before the node has seen it");
    for _ in 0..2 {
        running.follower.round();
        assert_eq!(running.follower.gate.policy_ref().unwrap().as_str(), "fleet/policies@1.0.0");
    }
    drop(running);
    let mut running = rig.start(NEVER, false).await;
    running.follower.round();
    assert_eq!(running.follower.gate.policy_ref().unwrap().as_str(), "fleet/policies@1.0.0");
    // One that this node never ran is nothing to go back from.
    let id = rig.roll_out(rig.push("1.2.0", &rig.good("1.2.0")));
    rig.store.command(&id, Command::Rollback, "ana", now_ms()).unwrap();
    running.follower.round();
    assert_eq!(running.follower.gate.policy_ref().unwrap().as_str(), "fleet/policies@1.0.0");
    rig.roll_out(rig.push("1.3.0", &rig.good("1.3.0")));
    running.follower.round();
    assert_eq!(running.call().await, "fleet/policies@1.3.0");
}

#[tokio::test]
async fn a_node_that_is_chosen_or_enrolled_again_goes_back_from_what_was_taken_back_first() {
    let rig = Rig::new();
    let mut running = rig.start(NEVER, false).await;
    let runs = |running: &Running| running.follower.gate.policy_ref().unwrap().as_str().to_owned();
    let denied = "attestation: rollout_incoherent";
    let gone = |version: &str| {
        let pinned = rig.push(version, &rig.good(version));
        fs::remove_file(rig.dir.path().join("layout/blobs/sha256").join(pinned.digest().to_hex())).unwrap();
        pinned
    };
    let fleet = EnrollmentRef::parse("fleet-a").unwrap();
    let bad = rig.roll_out(rig.push("1.1.0", &rig.good("1.1.0")));
    running.follower.round();
    rig.store.command(&bad, Command::Rollback, "ana", now_ms()).unwrap();
    // Chosen again, for what cannot be had.
    rig.roll_out(gone("1.2.0"));
    assert_eq!((running.call().await.as_str(), runs(&running).as_str()), (denied, "fleet/policies@1.1.0"));
    running.follower.round();
    assert_eq!((running.call().await.as_str(), runs(&running).as_str()), (denied, "fleet/policies@1.0.0"));
    rig.roll_out(rig.push("1.3.0", &rig.good("1.3.0")));
    running.follower.round();
    assert_eq!(running.call().await, "fleet/policies@1.3.0");

    // Chosen again, and then taken back.
    let bad = rig.roll_out(rig.push("1.4.0", &rig.good("1.4.0")));
    running.follower.round();
    let next = rig.roll_out(rig.push("1.5.0", &rig.good("1.5.0")));
    rig.store.command(&next, Command::Pause, "ana", now_ms()).unwrap();
    rig.store.command(&bad, Command::Rollback, "ana", now_ms()).unwrap();
    assert_eq!((running.call().await.as_str(), runs(&running).as_str()), (denied, "fleet/policies@1.4.0"));
    running.follower.round();
    assert_eq!((running.call().await.as_str(), runs(&running).as_str()), (denied, "fleet/policies@1.3.0"));
    rig.store.command(&next, Command::Resume, "ana", now_ms()).unwrap();
    running.follower.round();
    assert_eq!(running.call().await, "fleet/policies@1.5.0");

    // Enrolled again. The one before it, 1.3.0, is what is left.
    rig.store.revoke(&rig.node_id, "ana", now_ms()).unwrap();
    rig.store.enroll(&rig.node_id, &fleet, IfActive::Refuse, "ana", now_ms()).unwrap();
    rig.store.command(&next, Command::Rollback, "ana", now_ms()).unwrap();
    running.follower.round();
    assert_eq!((running.call().await.as_str(), runs(&running).as_str()), (denied, "fleet/policies@1.3.0"));

    // Two that were taken back: neither is one to go back to.
    let two = ["1.6.0", "1.7.0"].map(|version| {
        let id = rig.roll_out(rig.push(version, &rig.good(version)));
        running.follower.round();
        id
    });
    for (id, runs_then) in two.iter().zip(["fleet/policies@1.7.0"; 2]) {
        rig.store.command(id, Command::Rollback, "ana", now_ms()).unwrap();
        running.follower.round();
        assert_eq!(runs(&running), runs_then);
    }
    assert_eq!(running.call().await, denied);
}

/// Old policies with new facts, or the other way round, would be a decision on a bundle that never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_is_decided_by_one_bundle_while_others_are_activated() {
    let rig = Rig::new();
    let gate = Arc::clone(&rig.start(NEVER, false).await.follower.gate);
    // Slow, so that many calls are between their policy and their facts when a bundle is activated.
    let slow = "package autonomy\nallow if count([n | some n in numbers.range(1, 500); n % 2 == 0]) == 250\n";
    let bundles = ["1.1.0", "1.2.0"].map(|version| rig.bundle(version, Some("fleet-a"), slow, &rig.key));
    gate.activate(gate.prepare(bundles[1].clone()).unwrap()).unwrap();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                for _ in 0..100 {
                    let tool = ToolName::parse("tool.echo").unwrap();
                    // On a busy machine the policy may take longer than it may: that, too, is decided by one bundle.
                    if let Ok(allowed) = gate.ask(&tool, &json!({})).await {
                        allowed.finish(crate::ToolOutcome::Completed);
                    }
                }
            })
        })
        .collect();
    let mut activated = 0;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        gate.activate(gate.prepare(bundles[activated % 2].clone()).unwrap()).unwrap();
        activated += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    gate.wal().close().unwrap();
    let (mut versions, mut decisions) = (std::collections::BTreeMap::new(), 0);
    let mut reader = crate::wal::Reader::open(rig.dir.path().join("wal-0")).unwrap();
    while let Some(record) = reader.next_record().unwrap() {
        let attrs: serde_json::Value = serde_json::from_str(&record.attrs).unwrap();
        match record.kind {
            Kind::Facts => {
                versions.insert(attrs["id"].to_string(), attrs["facts"]["bundle"]["version"].clone());
            }
            Kind::Decision => {
                let version = versions[&attrs["facts"].to_string()].as_str().unwrap();
                assert_eq!(attrs["policy_ref"], format!("fleet/policies@{version}"), "{attrs}");
                decisions += 1;
            }
            Kind::Action | Kind::Lifecycle | Kind::Error => {}
        }
    }
    assert!(decisions == 400 && activated >= 5 && versions.len() >= 2, "{activated} {versions:?}");
}

#[test]
fn a_shelf_that_was_tampered_with_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("shelf");
    let mut shelf = Shelf::open(directory.clone()).unwrap();
    assert_eq!(shelf.current(), None);
    let entry = shelf.keep(None, b"a bundle").unwrap();
    shelf.put(entry.clone(), None, || Ok::<_, ShelfError>(())).unwrap();
    let shelf = Shelf::open(directory.clone()).unwrap();
    assert_eq!(shelf.read(shelf.current().unwrap()).unwrap(), b"a bundle");
    for file in fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()) {
        fs::write(file, "{}").unwrap();
    }
    let changed = shelf.read(&entry).unwrap_err().to_string();
    assert!(changed.contains(".tar` (it was changed): correct who may read and write it, or remove `"), "{changed}");
    let malformed = Shelf::open(directory).unwrap_err().to_string();
    assert!(malformed.contains("current.json` (missing field `current`"), "{malformed}");
}

#[test]
fn a_shelf_is_as_it_was_where_its_bundle_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(dir.path().join("shelf")).unwrap();
    let [a, b, c] = [&b"a"[..], b"b", b"c"].map(|tar| shelf.keep(None, tar).unwrap());
    let refused = || Err(FollowError::EnrollmentRef { declared: "a".into(), enrolled: "b".into() });
    let again = || Shelf::open(dir.path().join("shelf")).unwrap();
    shelf.put(a.clone(), None, refused).unwrap_err();
    assert_eq!((shelf.current(), again().current()), (None, None));
    shelf.put(a.clone(), None, || Ok::<_, ShelfError>(())).unwrap();
    let b_again = shelf.keep(None, b"b").unwrap();
    assert_eq!(b, b_again);
    shelf.put(b.clone(), Some(a.clone()), || Ok::<_, ShelfError>(())).unwrap();
    shelf.keep(None, b"c").unwrap();
    shelf.put(c, Some(b.clone()), refused).unwrap_err();
    for shelf in [shelf, again()] {
        assert_eq!(shelf.current(), Some(&b));
        assert_eq!(shelf.previous().unwrap(), Some((a.clone(), b"a".to_vec())));
    }
}
