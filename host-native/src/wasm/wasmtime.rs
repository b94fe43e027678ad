//! The module in wasmtime: compiled once, kept compiled on disk, its instances pooled and their memories copied on write.

use std::{path::Path, thread, time::Duration};
use wasmtime::{
    Config, EngineWeak, Global, InstancePre, Linker, Memory, Module, OptLevel, PoolingAllocationConfig, Store,
    StoreLimits, StoreLimitsBuilder, Strategy, TypedFunc, Val,
};

use super::{Engine, Export, Instance, TimedExport, WasmError, cache};

/// How many instances there are at most: a gate has one, and a matrix has one for each bundle.
const INSTANCES: u32 = 128;

/// Most memory of an instance, in bytes: enough for the largest bundle.
const MEMORY_BYTES: usize = 192 * 1024 * 1024;

/// Of address space, all that a 32-bit address can reach: then no access has to be checked.
const WHOLE_RESERVATION: u64 = 1 << 32;

/// Between two looks at how long a call has run.
const TICK: Duration = Duration::from_millis(100);

/// How long a call may take: a decision takes microseconds, this is for a defect. In ticks.
const CALL_TICKS: u64 = 20;

/// How long it may take to hash and verify the largest bundle, on a slow machine. In ticks.
const BUNDLE_TICKS: u64 = 600;

/// The module, compiled by Cranelift for this machine.
pub struct Wasmtime {
    instances: InstancePre<StoreLimits>,
    from_cache: bool,
}

impl Wasmtime {
    /// Compiles a module, or takes it from the cache: a directory of this user's alone, made where it is missing. What
    /// was compiled from another module, by another version, or for another processor is compiled again; so is what is
    /// damaged.
    ///
    /// # Errors
    /// The module is none that this engine can run.
    pub fn new(module: &[u8], cache: Option<&Path>) -> Result<Self, WasmError> {
        // Where addresses are scarce, as with 39 bits of them, each access is checked instead: the same answers, later.
        let engine = wasmtime::Engine::new(&config(WHOLE_RESERVATION))
            .or_else(|_| wasmtime::Engine::new(&config(MEMORY_BYTES as u64)))
            .map_err(refused)?;
        let cached = cache.and_then(|directory| cache::read(directory, &engine, module));
        let from_cache = cached.is_some();
        let compiled = match cached {
            Some(compiled) => compiled,
            None => {
                let compiled = Module::new(&engine, module).map_err(refused)?;
                if let Some(directory) = cache {
                    cache::write(directory, &engine, module, &compiled);
                }
                compiled
            }
        };
        // The module imports nothing, so there is nothing to link.
        let instances = Linker::new(&engine).instantiate_pre(&compiled).map_err(refused)?;
        tick(engine.weak()).map_err(|error| WasmError::Module(format!("no thread watches over its calls: {error}")))?;
        Ok(Self { instances, from_cache })
    }

    /// Whether it came from the cache.
    pub fn is_from_cache(&self) -> bool {
        self.from_cache
    }
}

impl std::fmt::Debug for Wasmtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wasmtime").field("from_cache", &self.from_cache).finish_non_exhaustive()
    }
}

impl Engine for Wasmtime {
    fn instantiate(&self) -> Result<Box<dyn Instance>, WasmError> {
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY_BYTES).trap_on_grow_failure(false).build();
        let mut store = Store::new(self.instances.module().engine(), limits);
        store.limiter(|limits| limits);
        store.set_epoch_deadline(CALL_TICKS);
        let instance = self.instances.instantiate(&mut store).map_err(refused)?;
        let missing = |name: &str| WasmError::Module(format!("it has no `{name}` as the contract wants it"));
        let memory = instance.get_memory(&mut store, "memory").ok_or_else(|| missing("memory"))?;
        let abi_major = instance.get_global(&mut store, "gate_abi_major");
        macro_rules! export {
            ($name:expr) => {
                instance.get_typed_func(&mut store, $name).map_err(|_| missing($name))?
            };
        }
        let mut with_input = Vec::with_capacity(Export::ALL.len());
        for export in Export::ALL {
            with_input.push(export!(export.name()));
        }
        Ok(Box::new(WasmtimeInstance {
            memory,
            abi_major,
            input: export!("gate_input"),
            output_ptr: export!("gate_output_ptr"),
            output_len: export!("gate_output_len"),
            verdict: export!(TimedExport::Verdict.name()),
            explain: export!(TimedExport::Explain.name()),
            with_input,
            store,
            buffer: Buffer { at: 0, bytes: 0 },
        }))
    }
}

struct WasmtimeInstance {
    store: Store<StoreLimits>,
    memory: Memory,
    abi_major: Option<Global>,
    input: TypedFunc<u32, u32>,
    output_ptr: TypedFunc<(), u32>,
    output_len: TypedFunc<(), u32>,
    verdict: TypedFunc<f64, i32>,
    explain: TypedFunc<f64, i32>,
    /// Each at the place of its [`Export`].
    with_input: Vec<TypedFunc<u32, i32>>,
    /// It stays where it is until more is asked for.
    buffer: Buffer,
}

#[derive(Clone, Copy)]
struct Buffer {
    at: usize,
    bytes: usize,
}

impl Instance for WasmtimeInstance {
    fn abi_major(&mut self) -> Result<i32, WasmError> {
        match self.abi_major.map(|global| global.get(&mut self.store)) {
            Some(Val::I32(major)) => Ok(major),
            _ => Err(WasmError::Module("it has no `gate_abi_major` as the contract wants it".into())),
        }
    }

    fn call(&mut self, export: Export, input: &[u8]) -> Result<i32, WasmError> {
        let ticks = if export == Export::LoadBundle { BUNDLE_TICKS } else { CALL_TICKS };
        self.store.set_epoch_deadline(ticks);
        let len = u32::try_from(input.len()).map_err(|_| WasmError::TooLarge(input.len()))?;
        if input.len() > self.buffer.bytes {
            let at = self.input.call(&mut self.store, len).map_err(trap)?;
            if at == 0 {
                return Err(WasmError::TooLarge(input.len()));
            }
            self.buffer = Buffer { at: at as usize, bytes: input.len() };
        }
        let Buffer { at, .. } = self.buffer;
        let place = self.memory.data_mut(&mut self.store).get_mut(at..).and_then(|rest| rest.get_mut(..input.len()));
        place.ok_or_else(|| WasmError::Trap("its input lies outside of its memory".into()))?.copy_from_slice(input);
        let function = self.with_input.get(export as usize);
        let function = function.ok_or_else(|| WasmError::Trap(format!("`{}` is missing", export.name())))?;
        function.call(&mut self.store, len).map_err(trap)
    }

    fn call_at(&mut self, export: TimedExport, now_ms: f64) -> Result<i32, WasmError> {
        self.store.set_epoch_deadline(CALL_TICKS);
        let function = match export {
            TimedExport::Verdict => &self.verdict,
            TimedExport::Explain => &self.explain,
        };
        function.call(&mut self.store, now_ms).map_err(trap)
    }

    fn output(&mut self) -> Result<&[u8], WasmError> {
        let at = self.output_ptr.call(&mut self.store, ()).map_err(trap)? as usize;
        let len = self.output_len.call(&mut self.store, ()).map_err(trap)? as usize;
        let output = self.memory.data(&self.store).get(at..).and_then(|rest| rest.get(..len));
        output.ok_or_else(|| WasmError::Trap("its output lies outside of its memory".into()))
    }
}

/// What the contract lets the module need, and nothing more. Each memory has `reservation` bytes of address space.
fn config(reservation: u64) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES)
        .max_memory_size(MEMORY_BYTES);
    // Kept from one instance to the next instead of being given back to the system.
    pool.linear_memory_keep_resident(256 * 1024);
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);
    config.allocation_strategy(pool).memory_init_cow(true);
    config.memory_reservation(reservation);
    config.epoch_interruption(true);
    config.wasm_relaxed_simd(false).wasm_simd(false);
    config
}

/// Counts time for calls that do not end, as long as the engine lives.
fn tick(engine: EngineWeak) -> std::io::Result<()> {
    let watch = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("gate-wasm-epoch".into()).spawn(watch).map(drop)
}

fn refused(error: impl Into<wasmtime::Error>) -> WasmError {
    WasmError::Module(line(&error.into()))
}

fn trap(error: impl Into<wasmtime::Error>) -> WasmError {
    WasmError::Trap(line(&error.into()))
}

/// The cause alone: wasmtime's own text draws the module's stack over several lines.
fn line(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => gate_core::text::line(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gate::Core,
        wasm::{Gate, MODULE},
    };
    use gate_core::{Freshness, Mode};
    use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Instant};

    #[test]
    fn the_compiled_module_is_kept_and_made_again_where_it_does_not_hold() {
        let home = tempfile::tempdir().unwrap();
        let cache = home.path().join("cache/wasm");
        let from_cache = |module: &[u8]| Wasmtime::new(module, Some(&cache)).unwrap().is_from_cache();
        assert!(!from_cache(MODULE));
        assert!(from_cache(MODULE));
        let kept = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        let whole = fs::read(&kept).unwrap();
        for damage in [0, DAMAGED_DIGEST, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[damage] ^= 1;
            fs::write(&kept, bytes).unwrap();
            assert!(!from_cache(MODULE), "byte {damage}");
            assert!(from_cache(MODULE), "it is made again");
        }
        for length in [0, 31, 32, whole.len() - 1] {
            fs::write(&kept, &whole[..length]).unwrap();
            assert!(!from_cache(MODULE), "{length} bytes");
        }
        // Another module is another file: an empty custom section at its end.
        assert!(!from_cache(&[MODULE, &[0, 2, 1, b'x']].concat()));
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
        assert!(from_cache(MODULE));
        for (path, mode) in [(&kept, 0o602), (&kept, 0o620), (&cache, 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(!from_cache(MODULE), "{mode:o}: others can write it");
            fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
        }
        // A cache that cannot be is none.
        fs::write(home.path().join("file"), "").unwrap();
        let nowhere = home.path().join("file/cache");
        assert!(!Wasmtime::new(MODULE, Some(&nowhere)).unwrap().is_from_cache());
    }

    const DAMAGED_DIGEST: usize = 31;

    /// A module with the ABI's exports, whose `gate_configure` does this.
    fn doctored(major: i32, configure: &str) -> Vec<u8> {
        doctored_at(major, Export::Configure, configure)
    }

    /// One of whose exports does this. `gate_verdict` gives what that has put into `$asked`.
    fn doctored_at(major: i32, doctored: Export, does: &str) -> Vec<u8> {
        let takes_input: String = Export::ALL
            .iter()
            .map(|export| {
                let does = if *export == doctored { does } else { "i32.const 0" };
                format!("(func (export \"{}\") (param i32) (result i32) {does})", export.name())
            })
            .collect();
        let takes_time: String = [TimedExport::Verdict, TimedExport::Explain]
            .iter()
            .map(|export| format!("(func (export \"{}\") (param f64) (result i32) global.get $asked)", export.name()))
            .collect();
        let text = format!(
            "(module (memory (export \"memory\") 1) (global (export \"gate_abi_major\") i32 (i32.const {major}))
               (global $asked (mut i32) (i32.const 0))
               (func (export \"gate_input\") (param i32) (result i32) i32.const 1024)
               (func (export \"gate_output_ptr\") (result i32) i32.const 0)
               (func (export \"gate_output_len\") (result i32) i32.const -1)
               {takes_input} {takes_time})"
        );
        wat::parse_str(text).unwrap()
    }

    fn gate(module: &[u8]) -> Result<Gate, WasmError> {
        let config = gate_core::Config {
            mode: Mode::Enforce,
            node_id: None,
            bundle_keys: None,
            lease_keys: None,
            freshness: Freshness::default(),
        };
        Wasmtime::new(module, None).and_then(|engine| Gate::new(Arc::new(engine), &config))
    }

    fn refused_by(module: &[u8]) -> WasmError {
        gate(module).unwrap_err()
    }

    #[test]
    fn a_module_that_is_not_what_the_contract_says_is_refused() {
        for (module, message) in [
            (b"\0asm".to_vec(), "the engine cannot run the module ("),
            (wat::parse_str("(module)").unwrap(), "the engine cannot run the module (it has no `memory` as the"),
            (wat::parse_str("(module (import \"a\" \"b\" (func)))").unwrap(), "the engine cannot run the module ("),
            (
                wat::parse_str("(module (memory (export \"memory\") 1))").unwrap(),
                "the engine cannot run the module (it has no `gate_configure` as the contract wants it): take the module",
            ),
            (
                doctored(2, "i32.const 0"),
                "the module's ABI has major version 2, this host speaks 1: take the module of this version",
            ),
        ] {
            let error = refused_by(&module).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_call_that_does_not_end_takes_too_much_or_lies_about_its_output_is_a_trap() {
        let begun = Instant::now();
        let error = refused_by(&doctored(1, "(loop (br 0)) i32.const 0")).to_string();
        assert!(error.starts_with("the module failed (") && error.contains("interrupt"), "{error}");
        assert!(begun.elapsed() >= TICK * u32::try_from(CALL_TICKS - 1).unwrap());
        // 4,096 pages are 256 MiB: there are none, and the module sees it.
        let grown =
            doctored(1, "(i32.eq (memory.grow (i32.const 4096)) (i32.const -1)) (if (then unreachable)) i32.const 0");
        assert!(matches!(refused_by(&grown), WasmError::Trap(why) if why.contains("unreachable")));
        let error = refused_by(&doctored(1, "i32.const -1")).to_string();
        assert!(error.contains("its output lies outside of its memory"), "{error}");
    }

    #[test]
    fn a_decision_that_does_not_end_or_takes_too_much_is_none_and_a_new_instance_takes_over() {
        for (does, why) in [
            ("(global.set $asked (i32.const 1)) (loop (br 0)) i32.const 0", "interrupt"),
            (
                "(global.set $asked (i32.const 1))
                 (loop (br_if 0 (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable",
                "unreachable",
            ),
        ] {
            let mut gate = gate(&doctored_at(1, Export::Decide, does)).unwrap();
            let call = gate_core::Call {
                audit_id: gate_core::AuditId::parse("a-1").unwrap(),
                tool: gate_core::ToolName::parse("tool.echo").unwrap(),
                policy: gate_core::PolicyAnswer {
                    policy_ref: None,
                    reason: gate_core::reason::Policy::Allowed,
                    detail: None,
                },
            };
            let Err(none) = Core::decide(&mut gate, call, 1_000, None) else { panic!("it decided: {does}") };
            assert!(none.to_string().contains(why), "{none}");
            // The old one has `$asked` set.
            assert_eq!(gate.verdict(1_000).unwrap(), gate_core::Verdict::Pass);
        }
    }

    #[test]
    fn what_is_too_large_to_be_told_does_not_leave_the_answer_before_it() {
        let mut gate = gate(MODULE).unwrap();
        gate.set_enrollment(&gate_core::Answer::NotEnrolled { observed_at_ms: 1_000 }).unwrap();
        let too_large = "an input of `71303168` bytes is larger than the module takes: send less";
        let why = |gate: &mut Gate| {
            let enrollment = gate.explain(1_000).unwrap().facts.enrollment;
            let gate_core::facts::EnrollmentFact::Unavailable { why } = enrollment else { panic!("{enrollment:?}") };
            why
        };
        assert_eq!(gate.set_lease(&vec![b' '; 68 * 1024 * 1024]).unwrap_err().to_string(), too_large);
        assert_eq!(why(&mut gate), too_large);
        gate.set_enrollment(&gate_core::Answer::NotEnrolled { observed_at_ms: 1_000 }).unwrap();
        let answer = gate_core::Answer::Unavailable { why: "x".repeat(68 * 1024 * 1024) };
        let error = gate.set_enrollment(&answer).unwrap_err();
        assert!(matches!(error, WasmError::TooLarge(bytes) if bytes > 68 * 1024 * 1024), "{error}");
        assert_eq!(why(&mut gate), error.to_string());
        // What is too large to be loaded is no reason to doubt the instance.
        gate.set_enrollment(&gate_core::Answer::NotEnrolled { observed_at_ms: 1_000 }).unwrap();
        assert!(matches!(gate.load_bundle(&vec![0; 68 * 1024 * 1024]).unwrap_err(), WasmError::TooLarge(_)));
    }

    #[test]
    fn what_another_version_or_for_another_processor_was_compiled_is_compiled_again() {
        let home = tempfile::tempdir().unwrap();
        let place = |engine: &wasmtime::Engine| cache::place(home.path(), engine, MODULE);
        let ours = wasmtime::Engine::new(&config(WHOLE_RESERVATION)).unwrap();
        let mut version = config(WHOLE_RESERVATION);
        version.module_version(wasmtime::ModuleVersionStrategy::Custom("0.0.1".into())).unwrap();
        let version = wasmtime::Engine::new(&version).unwrap();
        // Of a named target nothing is known but what is said, as of a processor that has less.
        let mut processor = config(WHOLE_RESERVATION);
        processor.target(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH)).unwrap();
        let processor = wasmtime::Engine::new(&processor).unwrap();
        assert_eq!(place(&ours), place(&wasmtime::Engine::new(&config(WHOLE_RESERVATION)).unwrap()));
        assert_ne!(place(&version), place(&ours));
        assert_ne!(place(&processor), place(&ours));
        // Even where it has our name.
        let compiled = Module::new(&version, MODULE).unwrap();
        cache::write(home.path(), &version, MODULE, &compiled);
        fs::rename(place(&version), place(&ours)).unwrap();
        let from_cache = || Wasmtime::new(MODULE, Some(home.path())).unwrap().is_from_cache();
        assert!(!from_cache());
        assert!(from_cache(), "it is made again");
    }
}
