//! Any bytes as calls of the ABI: gate-core natively and the module in wasmtime give the same numbers and outputs.
//!
//! An input is a list of calls: a byte that says which, two bytes of length (little-endian), then so many bytes. A time is the
//! eight bytes of a double. `cargo xtask fuzz` makes the seeds from the corpora.
#![no_main]

use gate_wasm::Instance as Native;
use host_native::wasm::{Engine as _, Export, MODULE, TimedExport, Wasmtime};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ENGINE: LazyLock<Wasmtime> = LazyLock::new(|| Wasmtime::new(MODULE, None).unwrap());

fuzz_target!(|data: &[u8]| {
    let (mut native, mut module) = (Native::new(), ENGINE.instantiate().unwrap());
    let mut rest = data;
    while let Some(([which, low, high], after)) = rest.split_first_chunk::<3>() {
        let (input, after) = after.split_at(after.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        rest = after;
        let answers = match Export::ALL.get(usize::from(which % 9)) {
            Some(export) => (call(&mut native, *export, input), module.call(*export, input).unwrap()),
            None => {
                let now_ms = input.first_chunk::<8>().map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
                let export = if which % 9 == 7 { TimedExport::Verdict } else { TimedExport::Explain };
                let number = match export {
                    TimedExport::Verdict => native.verdict(now_ms),
                    TimedExport::Explain => native.explain(now_ms),
                };
                (number, module.call_at(export, now_ms).unwrap())
            }
        };
        assert_eq!(answers.0, answers.1);
        assert_eq!(native.output(), module.output().unwrap());
    }
});

fn call(native: &mut Native, export: Export, input: &[u8]) -> i32 {
    match export {
        Export::Configure => native.configure(input),
        Export::LoadBundle => native.load_bundle(input),
        Export::SetEnrollment => native.set_enrollment(input),
        Export::SetLease => native.set_lease(input),
        Export::Decide => native.decide(input),
        Export::DecideBatch => native.decide_batch(input),
        Export::VerifySignature => native.verify_signature(input),
    }
}
