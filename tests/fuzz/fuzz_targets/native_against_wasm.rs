//! Any bytes as calls of the ABI: gate-core natively and the module in an interpreter give the same numbers and outputs, and so
//! does a gate that was told the same and has decided nothing before.
//!
//! An input is a list of calls: a byte that says which, two bytes of length (little-endian), then so many bytes; a byte 1 among
//! those of a decision stands for the id of the facts of the last one, which nobody guesses. A time is the eight bytes of a double.
//! `cargo xtask fuzz` makes the seeds from the corpora.
#![no_main]

use gate_wasm::Instance as Native;
use libfuzzer_sys::fuzz_target;
use std::{ops::Range, sync::LazyLock};
use wasmi::{Engine, Linker, Memory, Module, Store};

static MODULE: LazyLock<Module> =
    LazyLock::new(|| Module::new(&Engine::default(), include_bytes!("../../../gate-wasm/gate.wasm")).unwrap());

type Take = fn(&mut Native, &[u8]) -> i32;

/// The exports that take an input, and what each is natively.
const WITH_INPUT: [(&str, Take); 7] = [
    ("gate_configure", Native::configure),
    ("gate_load_bundle", Native::load_bundle),
    ("gate_set_enrollment", Native::set_enrollment),
    ("gate_set_lease", Native::set_lease),
    ("gate_decide", Native::decide),
    ("gate_decide_batch", Native::decide_batch),
    ("gate_verify_signature", Native::verify_signature),
];

/// Those of them that tell the gate something: the others leave it as it was.
const TELLING: Range<usize> = 0..4;

/// Those that decide.
const DECIDING: Range<usize> = 4..6;

/// What stands before the id of the facts in a decision.
const FACTS: &[u8] = b"\"facts\":\"";

type Ask = fn(&mut Native, f64) -> i32;

/// Those that take a time.
const AT_A_TIME: [(&str, Ask); 2] =
    [("gate_verdict", |gate, now_ms| gate.verdict(now_ms)), ("gate_explain", Native::explain)];

fuzz_target!(|data: &[u8]| {
    let (mut native, mut module) = (Native::new(), Interpreted::new());
    let (mut rest, mut told, mut facts) = (data, Vec::<(Take, Vec<u8>)>::new(), Vec::new());
    while let Some(([which, low, high], after)) = rest.split_first_chunk::<3>() {
        let (input, after) = after.split_at(after.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        rest = after;
        let which = usize::from(*which) % (WITH_INPUT.len() + AT_A_TIME.len());
        let with_facts = input.split(|byte| *byte == 1 && DECIDING.contains(&which)).collect::<Vec<_>>().join(&facts[..]);
        let input = &with_facts[..];
        let answers = match WITH_INPUT.get(which) {
            Some((export, take)) => (take(&mut native, input), module.take(export, input)),
            None => {
                let now_ms = input.first_chunk::<8>().map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
                let (export, ask) = AT_A_TIME[which - WITH_INPUT.len()];
                (ask(&mut native, now_ms), module.call::<f64, i32>(export, now_ms))
            }
        };
        assert_eq!(answers.0, answers.1);
        assert_eq!(native.output(), module.output());
        match WITH_INPUT.get(which) {
            Some((_, take)) if TELLING.contains(&which) => told.push((*take, input.to_vec())),
            Some((_, decide)) => {
                let mut new = Native::new();
                for (take, input) in &told {
                    take(&mut new, input);
                }
                assert_eq!(answers.0, decide(&mut new, input));
                assert_eq!(native.output(), new.output());
            }
            None => {}
        }
        if let Some(at) = native.output().windows(FACTS.len()).position(|bytes| bytes == FACTS) {
            facts = native.output()[at + FACTS.len()..].iter().copied().take_while(|byte| *byte != b'"').collect();
        }
    }
});

/// The module. A trap is a finding, as every panic here is.
struct Interpreted {
    store: Store<()>,
    instance: wasmi::Instance,
    memory: Memory,
}

impl Interpreted {
    fn new() -> Self {
        let mut store = Store::new(MODULE.engine(), ());
        let instance = Linker::new(MODULE.engine()).instantiate_and_start(&mut store, &MODULE).unwrap();
        let memory = instance.get_memory(&store, "memory").unwrap();
        Self { store, instance, memory }
    }

    fn call<P: wasmi::WasmParams, R: wasmi::WasmResults>(&mut self, export: &str, parameters: P) -> R {
        self.instance.get_typed_func::<P, R>(&self.store, export).unwrap().call(&mut self.store, parameters).unwrap()
    }

    fn take(&mut self, export: &str, input: &[u8]) -> i32 {
        let length = u32::try_from(input.len()).unwrap();
        let place: u32 = self.call("gate_input", length);
        self.memory.write(&mut self.store, place as usize, input).unwrap();
        self.call(export, length)
    }

    fn output(&mut self) -> &[u8] {
        let (at, length): (u32, u32) = (self.call("gate_output_ptr", ()), self.call("gate_output_len", ()));
        &self.memory.data(&self.store)[at as usize..][..length as usize]
    }
}
