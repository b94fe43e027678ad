//! The exported functions. `docs/src/spec/abi.md` says what each promises.

#![expect(unsafe_code, reason = "exported names, and the one instance that a module without threads has")]
#![expect(missing_docs, reason = "docs/src/spec/abi.md holds it, for the people who cannot read this")]

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use lol_alloc::{AssumeSingleThreaded, FreeListAllocator};

use crate::instance::{ABI, INPUT_BYTES, Instance, MALFORMED};

#[global_allocator]
// SAFETY: the module is built without threads.
static ALLOCATOR: AssumeSingleThreaded<FreeListAllocator> =
    unsafe { AssumeSingleThreaded::new(FreeListAllocator::new()) };

/// There is nobody to tell: the module imports nothing. The host sees a trap.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

// The linker exports a static as a global that holds its address; `cargo xtask wasm` puts the value in its place.
#[unsafe(no_mangle)]
pub static gate_abi_major: u32 = ABI.major;
#[unsafe(no_mangle)]
pub static gate_abi_minor: u32 = ABI.minor;

struct Module {
    instance: Option<Instance>,
    input: Vec<u8>,
    /// Set while a call runs. Still set when the next one comes, the last one trapped.
    busy: bool,
}

struct SingleThreaded(UnsafeCell<Module>);

// SAFETY: the module is built without threads, imports nothing that could call back, and so runs one call at a time.
unsafe impl Sync for SingleThreaded {}

static MODULE: SingleThreaded =
    SingleThreaded(UnsafeCell::new(Module { instance: None, input: Vec::new(), busy: false }));

/// Runs a call on the module. One that trapped before traps for ever: nothing it holds can be believed.
fn enter<T>(call: impl FnOnce(&mut Module) -> T) -> T {
    // SAFETY: no other reference lives: see `SingleThreaded`, and this is the only place that makes one.
    let module = unsafe { &mut *MODULE.0.get() };
    if module.busy {
        core::arch::wasm32::unreachable()
    }
    // SAFETY: a reference. Volatile, since the compiler does not know that a trap leaves the memory to be read.
    unsafe { core::ptr::write_volatile(&raw mut module.busy, true) };
    let result = call(module);
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut module.busy, false) };
    result
}

fn with_instance(call: impl FnOnce(&mut Instance) -> i32) -> i32 {
    enter(|module| call(module.instance.get_or_insert_with(Instance::new)))
}

fn with_input(len: usize, call: fn(&mut Instance, &[u8]) -> i32) -> i32 {
    enter(|module| match module.input.get(..len) {
        Some(input) => call(module.instance.get_or_insert_with(Instance::new), input),
        None => MALFORMED,
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_input(len: usize) -> *mut u8 {
    enter(|module| {
        if len > INPUT_BYTES {
            return core::ptr::null_mut();
        }
        if len > module.input.len() {
            // First, so that there are never two of them. Where there is no room it traps: the address that the host knows
            // leads nowhere then.
            module.input = Vec::new();
            module.input = alloc::vec![0; len];
        }
        module.input.as_mut_ptr()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_output_ptr() -> *const u8 {
    enter(|module| module.instance.get_or_insert_with(Instance::new).output().as_ptr())
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_output_len() -> usize {
    enter(|module| module.instance.get_or_insert_with(Instance::new).output().len())
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_info() -> i32 {
    with_instance(Instance::info)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_configure(len: usize) -> i32 {
    with_input(len, Instance::configure)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_load_bundle(len: usize) -> i32 {
    with_input(len, Instance::load_bundle)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_set_enrollment(len: usize) -> i32 {
    with_input(len, Instance::set_enrollment)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_set_lease(len: usize) -> i32 {
    with_input(len, Instance::set_lease)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_verdict(now_ms: f64) -> i32 {
    with_instance(|instance| instance.verdict(now_ms))
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_decide(len: usize) -> i32 {
    with_input(len, Instance::decide)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_decide_batch(len: usize) -> i32 {
    with_input(len, Instance::decide_batch)
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_explain(now_ms: f64) -> i32 {
    with_instance(|instance| instance.explain(now_ms))
}

#[unsafe(no_mangle)]
pub extern "C" fn gate_verify_signature(len: usize) -> i32 {
    with_input(len, Instance::verify_signature)
}
