//! The verdict allocates nothing. A binary of its own: the allocator counts for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator is unsafe to write; this one only counts")]

mod support;

use gate_core::{
    Answer, Config, Enrollment, EnrollmentRef, Freshness, Gate, Mode, NodeId, RolloutState, Status, Verdict,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};

struct Counting;

thread_local! {
    /// How often this thread has asked for memory.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local `Cell` without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(mut work: impl FnMut()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn no_verdict_allocates() {
    assert!(allocations(|| drop(black_box(vec![1_u8]))) > 0, "the allocator counts");
    let mut gates = Vec::new();
    let node_id = NodeId::parse("robot-7").unwrap();
    for declared in [None, Some("fleet-a"), Some("fleet-b")] {
        for (status, state) in [("active", "active"), ("revoked", "active"), ("active", "failed"), ("?", "?")] {
            let mut gate = Gate::new(Config {
                mode: Mode::Enforce,
                node_id: Some(node_id.clone()),
                bundle_keys: Some(support::trusted(&[1], 1)),
                lease_keys: None,
                freshness: Freshness { max_staleness_ms: 100, max_skew_ms: 0 },
            });
            gates.push(gate.clone());
            gate.load_bundle(&support::small_bundle(declared)).unwrap();
            gates.push(gate.clone());
            gate.set_enrollment(Answer::NotEnrolled { observed_at_ms: 1_000 });
            gates.push(gate.clone());
            gate.set_lease(b"").unwrap_err();
            gates.push(gate.clone());
            let enrollment = Enrollment {
                node_id: node_id.clone(),
                enrollment_ref: EnrollmentRef::parse("fleet-a").unwrap(),
                status: Status::from_word(status),
                rollout_state: RolloutState::from_word(state),
                serial: 1,
            };
            gate.set_enrollment(Answer::Enrolled { enrollment, observed_at_ms: 1_000 });
            gates.push(gate);
        }
    }
    let mut reasons = [0_u32; 11];
    for gate in &gates {
        for now in [999, 1_000, 1_101] {
            let mut verdict = Verdict::Pass;
            assert_eq!(allocations(|| verdict = black_box(gate).verdict(black_box(now))), 0);
            let number = match verdict {
                Verdict::Pass => 0,
                Verdict::Fail(reason) => reason.number(),
            };
            *reasons.get_mut(usize::from(number)).unwrap() += 1;
        }
    }
    // Every verdict but `node_id_unset` was among them.
    assert!(reasons.iter().enumerate().all(|(number, count)| *count > 0 || number == 3), "{reasons:?}");
}
