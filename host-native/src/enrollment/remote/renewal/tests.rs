use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use gate_core::{
    enrollment::{RolloutState, Status},
    identity::EnrollmentRef,
};
use tokio::time::timeout;

use super::*;
use crate::key::PrivateKey;

/// What a server does with who asks for changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    IsNotThere,
    Hangs,
}

/// A server of one lease, which anybody may put there, and how often it was asked for it.
fn server(feed: Feed) -> (OrchestratorClient, Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>) {
    let (served, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = OrchestratorClient::new(&format!("http://{}", listener.local_addr().unwrap()), None, None, None);
    let (lease, count) = (Arc::clone(&served), Arc::clone(&asked));
    thread::spawn(move || {
        let mut hanging = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
            let is_lease = head.starts_with("GET /v1/leases/robot-7 ");
            count.fetch_add(usize::from(is_lease), Ordering::Relaxed);
            if !is_lease && feed == Feed::Hangs {
                hanging.push(stream);
                continue;
            }
            let body = if is_lease { lease.lock().unwrap().clone() } else { Vec::new() };
            let status = if is_lease { "200 OK" } else { "404 Not Found" };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            drop(stream.get_mut().write_all(&[head.into_bytes(), body].concat()));
        }
    });
    (client.unwrap(), served, asked)
}

/// Renewed each 0.2 s, and good for longer than the test takes.
fn lease(key: &PrivateKey, serial: u64, status: Status) -> Vec<u8> {
    let lease = Lease {
        node_id: NodeId::parse("robot-7").unwrap(),
        enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
        status,
        rollout_state: RolloutState::None,
        serial,
        issued_at_ms: now_ms() + 600_000,
        expires_at_ms: now_ms() + 600_600,
    };
    key.seal(gate_core::lease::PAYLOAD_TYPE, json::write(&lease).into_bytes())
}

#[tokio::test]
async fn an_older_lease_that_is_served_again_is_known_by_who_was_asked_nothing_in_between() {
    let (client, served, asked) = server(Feed::IsNotThere);
    let (key, stranger) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let keys = TrustedKeys::new([key.public().clone()], 1).unwrap();
    let [old, new] = [(17, Status::Active), (18, Status::Revoked)].map(|(serial, is)| lease(&key, serial, is));
    let forged = lease(&stranger, 19, Status::Active);
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let node_id = NodeId::parse("robot-7").unwrap();
        LeaseSource::start(client.clone(), node_id, Some(keys.clone()), 5_000, dir.path())
    };
    let serve = async |lease: &Vec<u8>| {
        served.lock().unwrap().clone_from(lease);
        let before = asked.load(Ordering::Relaxed);
        // The one that was under way may have had the lease before.
        let asked_again = async {
            while asked.load(Ordering::Relaxed) < before + 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), asked_again).await.unwrap();
    };
    let told = |source: &mut LeaseSource| match source.observe(0) {
        Observation::Leases(envelopes) => envelopes,
        other @ (Observation::Unchanged | Observation::Changed(_)) => panic!("{other:?}"),
    };
    served.lock().unwrap().clone_from(&old);
    let mut source = start().await;
    assert_eq!(told(&mut source), std::slice::from_ref(&old));
    serve(&new).await;
    for other in [&old, &forged] {
        serve(other).await;
        assert_eq!(fs::read(dir.path().join("robot-7.json")).unwrap(), new, "the newest that holds is kept");
        assert_eq!(told(&mut source), [new.clone(), other.clone()]);
        // Nor by who begins again.
        let mut again = start().await;
        assert_eq!(told(&mut again), [new.clone(), other.clone()]);
    }
    serve(&new).await;
    assert_eq!(told(&mut source), [new]);
}

/// A lease of a clock that is ahead takes the place of one that counts, unless it says the very same.
#[tokio::test]
async fn a_lease_from_the_future_denies_unless_it_only_renews_one_that_counts() {
    const NOW: u64 = 1_767_225_600_000;
    const SKEW: u64 = 5_000;
    let key = PrivateKey::generate().unwrap();
    let node_id = NodeId::parse("robot-7").unwrap();
    let signed = |row: &(u64, Status, RolloutState, &str), issued_at_ms: u64| {
        let (serial, status, rollout_state, enrollment_ref) = row.clone();
        let enrollment_ref = EnrollmentRef::parse(enrollment_ref).unwrap();
        let expires_at_ms = issued_at_ms + 60_000;
        let node_id = node_id.clone();
        let lease = Lease { node_id, enrollment_ref, status, rollout_state, serial, issued_at_ms, expires_at_ms };
        Bytes::from(key.seal(gate_core::lease::PAYLOAD_TYPE, json::write(&lease).into_bytes()))
    };
    // An allow, and everything that may come after it: the same, revoked, taken back, another ref; with a newer serial, and
    // with the same, as of a store that was restored.
    let held = (7, Status::Active, RolloutState::None, "fleet-a");
    let mut rows = Vec::new();
    for serial in [7, 8] {
        for status in [Status::Active, Status::Revoked, Status::Unknown("paused".into())] {
            for state in [RolloutState::None, RolloutState::Active, RolloutState::RolledBack] {
                rows.extend(["fleet-a", "fleet-b"].map(|to| (serial, status.clone(), state.clone(), to)));
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut withheld, mut passed_on) = (0, 0);
    for row in &rows {
        // Over, at its end, in the middle, just issued, ahead by what may be.
        for held_at in [NOW - 60_001, NOW - 60_000, NOW - 30_000, NOW, NOW + SKEW, NOW + SKEW + 1] {
            for next_at in [NOW - 1, NOW, NOW + SKEW, NOW + SKEW + 1, NOW + 3_600_000] {
                let (tell, latest) = watch::channel(Told::from(Answer::Unavailable { why: String::new() }));
                let mut renewal = Renewal {
                    client: OrchestratorClient::new("http://127.0.0.1:1", None, None, None).unwrap(),
                    kept: Kept::default(),
                    node_id: node_id.clone(),
                    keys: Some(TrustedKeys::new([key.public().clone()], 1).unwrap()),
                    max_skew_ms: SKEW,
                    tell,
                    wake: watch::channel(()).0,
                    cursor: None,
                    held: None,
                    told: None,
                    file: dir.path().join("robot-7.json"),
                    failing: false,
                };
                let told = || latest.borrow().observation.clone();
                let [first, next] = [signed(&held, held_at), signed(row, next_at)];
                renewal.take(first.clone(), held_at);
                renewal.take(next.clone(), NOW);
                let Observation::Leases(envelopes) = told() else { panic!("{row:?}") };
                let is_early = next_at > NOW + SKEW;
                let held_counts = (NOW - 60_000..=NOW + SKEW).contains(&held_at);
                let is_withheld = *row == held && is_early && held_counts;
                let wanted = if is_withheld { &first } else { &next };
                assert_eq!(envelopes, std::slice::from_ref(wanted), "{row:?} {held_at} {next_at}");
                assert!(!is_withheld || envelopes[0] == first, "what is told is what was told");
                if is_withheld {
                    withheld += 1
                } else {
                    passed_on += 1
                }
                // Once it counts it is told, and what does not hold in between changes nothing of that.
                if is_withheld {
                    renewal.take(Bytes::from_static(b"{}"), NOW);
                    renewal.take(next.clone(), NOW);
                    assert_eq!(told(), Observation::Leases(vec![first.to_vec()]));
                    assert!(renewal.take(next.clone(), next_at - SKEW));
                    assert_eq!(told(), Observation::Leases(vec![next.to_vec()]));
                }
            }
        }
    }
    assert_eq!((withheld, passed_on), (8, rows.len() * 30 - 8));
}

#[tokio::test]
async fn a_feed_that_hangs_is_given_up_in_time_to_renew_the_lease() {
    let (client, served, asked) = server(Feed::Hangs);
    let key = PrivateKey::generate().unwrap();
    *served.lock().unwrap() = lease(&key, 1, Status::Active);
    let (dir, node_id) = (tempfile::tempdir().unwrap(), NodeId::parse("robot-7").unwrap());
    let _source = LeaseSource::start(client, node_id, None, 5_000, dir.path()).await;
    let renewed = async {
        while asked.load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Less than the first answer would otherwise be waited for, and more than the five take.
    assert!(timeout(TOTAL_TIMEOUT, renewed).await.is_ok());
}
