//! A host without an operating system: it gives the gate its facts and asks for the verdict.

#![no_std]

use gate_core::{Answer, Config, Freshness, Gate, Mode, NodeId, TrustedKeys, Verdict};

/// The verdict on a bundle and an answer, as firmware would ask for it.
pub fn verdict(node_id: NodeId, keys: TrustedKeys, bundle: &[u8], answer: Answer, now_ms: u64) -> Verdict {
    let mut gate = Gate::new(Config {
        mode: Mode::Enforce,
        node_id: Some(node_id),
        bundle_keys: Some(keys),
        lease_keys: None,
        freshness: Freshness::default(),
    });
    gate.set_enrollment(answer);
    match gate.load_bundle(bundle) {
        Ok(_) | Err(_) => gate.verdict(now_ms),
    }
}
