//! A second engine for the module, of another family: wasmi interprets. What wasmtime and it agree on is the module's doing.

use host_native::wasm::{Engine, Export, Instance, TimedExport, WasmError};
use wasmi::{Linker, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, TypedFunc};

pub(crate) struct Wasmi {
    module: Module,
    /// Most memory of an instance.
    memory_bytes: usize,
}

impl Wasmi {
    pub(crate) fn new(module: &[u8]) -> Self {
        Self::within(module, usize::MAX)
    }

    pub(crate) fn within(module: &[u8], memory_bytes: usize) -> Self {
        Self { module: Module::new(&wasmi::Engine::default(), module).unwrap(), memory_bytes }
    }
}

impl Engine for Wasmi {
    fn instantiate(&self) -> Result<Box<dyn Instance>, WasmError> {
        let limits = StoreLimitsBuilder::new().memory_size(self.memory_bytes).build();
        let mut store = Store::new(self.module.engine(), limits);
        store.limiter(|limits| limits);
        let linker = Linker::new(self.module.engine());
        let instance = linker.instantiate_and_start(&mut store, &self.module).map_err(failed)?;
        Ok(Box::new(WasmiInstance {
            memory: instance.get_memory(&store, "memory").unwrap(),
            output_ptr: instance.get_typed_func(&store, "gate_output_ptr").unwrap(),
            output_len: instance.get_typed_func(&store, "gate_output_len").unwrap(),
            instance,
            store,
        }))
    }
}

struct WasmiInstance {
    store: Store<StoreLimits>,
    instance: wasmi::Instance,
    memory: Memory,
    output_ptr: TypedFunc<(), u32>,
    output_len: TypedFunc<(), u32>,
}

impl Instance for WasmiInstance {
    fn abi_major(&mut self) -> Result<i32, WasmError> {
        let global = self.instance.get_global(&self.store, "gate_abi_major").unwrap();
        Ok(global.get(&self.store).i32().unwrap())
    }

    fn call(&mut self, export: Export, input: &[u8]) -> Result<i32, WasmError> {
        let len = u32::try_from(input.len()).unwrap();
        let place = self.instance.get_typed_func::<u32, u32>(&self.store, "gate_input").unwrap();
        let at = place.call(&mut self.store, len).map_err(failed)?;
        if at == 0 {
            return Err(WasmError::TooLarge(input.len()));
        }
        self.memory.write(&mut self.store, at as usize, input).unwrap();
        let function = self.instance.get_typed_func::<u32, i32>(&self.store, export.name()).unwrap();
        function.call(&mut self.store, len).map_err(failed)
    }

    fn call_at(&mut self, export: TimedExport, now_ms: f64) -> Result<i32, WasmError> {
        let function = self.instance.get_typed_func::<f64, i32>(&self.store, export.name()).unwrap();
        function.call(&mut self.store, now_ms).map_err(failed)
    }

    fn output(&mut self) -> Result<&[u8], WasmError> {
        let at = self.output_ptr.call(&mut self.store, ()).map_err(failed)? as usize;
        let len = self.output_len.call(&mut self.store, ()).map_err(failed)? as usize;
        Ok(&self.memory.data(&self.store)[at..at + len])
    }
}

fn failed(error: wasmi::Error) -> WasmError {
    WasmError::Trap(error.to_string())
}
