"""gate.wasm in wasmtime: one instance of the decision, behind calls that take and give bytes.

`wasmtime.Func.__call__` asks for the function's type and allocates its values anew in each call: a decision takes three
calls, and they would cost several times the decision. Here the types are checked once, when an instance is made, and a
call is one call of wasmtime's C API, through the library that the package `wasmtime` has loaded. `pyproject.toml` holds
that package to the versions this was tested with.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from importlib import resources
from threading import Lock
from typing import Any, ClassVar, Final

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime._instance import InstanceExports

from .errors import MalformedError, RefusedError, UnsupportedError, line
from .fork import told_of_forks
from .reasons import REASONS_DIGEST

ABI_MAJOR: Final = 1
REFUSED: Final = -2

FUNCTIONS: Final = {
    "gate_input": "i32",
    "gate_output_ptr": "",
    "gate_output_len": "",
    "gate_info": "",
    "gate_configure": "i32",
    "gate_load_bundle": "i32",
    "gate_set_enrollment": "i32",
    "gate_set_lease": "i32",
    "gate_verdict": "f64",
    "gate_decide": "i32",
    "gate_decide_batch": "i32",
    "gate_explain": "f64",
    "gate_verify_signature": "i32",
}
"""The functions that are called, each with the type of its argument. All give an `i32`."""

INPUT_BYTES: Final = 8 * 1024
"""Room for any call: a longer input asks for more."""

MEMORY_BYTES: Final = 192 * 1024 * 1024
"""Most memory of an instance: enough for the largest bundle."""

OWN_MODULE: Final = "use the gate.wasm that comes with this package"

# The interpreter's lock stays taken where a call is as short as taking it again would be, and where another thread
# could otherwise run for a whole switch interval in between. Reading a bundle lets go of it.
_SIGNATURE: Final = (ctypes.c_void_p,) * 4 + (ctypes.c_size_t, ctypes.c_void_p)
_call = ctypes.PYFUNCTYPE(*_SIGNATURE)(("wasmtime_func_call_unchecked", ffi.dll))
_call_unlocked = ctypes.CFUNCTYPE(*_SIGNATURE)(("wasmtime_func_call_unchecked", ffi.dll))


class Module:
    """A compiled module: any number of instances, in any number of threads, may share it."""

    _own: ClassVar[Module | None] = None
    _compiling: ClassVar = Lock()

    @classmethod
    def own(cls) -> Module:
        """The one that comes with this package, compiled once in a process."""
        with cls._compiling:
            if cls._own is None:
                cls._own = cls(resources.files(__package__).joinpath("gate.wasm").read_bytes())
            return cls._own

    @classmethod
    def forked(cls) -> None:
        """A process that forked while another thread compiled has that thread's lock, and nobody who frees it."""
        cls._compiling = Lock()

    def __init__(self, wasm: bytes) -> None:
        config = wasmtime.Config()
        config.memory_may_move = False
        # Threads that compile would be lost in a process that forks, and the next to compile there would wait for them.
        config.parallel_compilation = False
        self.engine = wasmtime.Engine(config)
        try:
            self.compiled = wasmtime.Module(self.engine, wasm)
        except wasmtime.WasmtimeError as error:
            raise UnsupportedError(f"what was given as the module is none ({line(error)}): {OWN_MODULE}") from error
        for imported in self.compiled.imports:
            name = f"{imported.module}.{imported.name}"
            raise UnsupportedError(f"the module imports `{name}`, and gate.wasm imports nothing: {OWN_MODULE}")


told_of_forks(Module)


class Instance:
    """One instance. It serves one call at a time: who calls sees to that.

    What it refuses is a `GateError`. Anything else that is raised is a trap, and the instance is then gone.
    """

    def __init__(self, module: Module, configuration: bytes) -> None:
        self._store = wasmtime.Store(module.engine)
        self._store.set_limits(memory_size=MEMORY_BYTES)
        exports = wasmtime.Instance(self._store, module.compiled, []).exports(self._store)
        _check_version(self._store, exports)
        memory = exports.get("memory")
        if not isinstance(memory, wasmtime.Memory):
            raise UnsupportedError(f"the module has no memory: {OWN_MODULE}")
        self._memory = memory
        # The engine's memories never move.
        self._base = ctypes.addressof(memory.data_ptr(self._store).contents)
        self._memory_bytes = memory.data_len(self._store)
        # The argument of a call, and then its result.
        self._slot = ffi.wasmtime_val_raw_t()
        self._functions = {name: self._bind(exports, name, of) for name, of in FUNCTIONS.items()}
        self._output_ptr = self._functions["gate_output_ptr"]
        self._output_len = self._functions["gate_output_len"]
        self._decide = self._functions["gate_decide"]
        self._verdict = self._functions["gate_verdict"]
        self._input_ptr = 0
        self._input_bytes = 0
        self._reserve(INPUT_BYTES)
        self._ask("gate_configure", configuration)
        if (reasons := json.loads(self.info())["reasons"]) != REASONS_DIGEST:
            known = f"this package knows `{REASONS_DIGEST}`"
            raise UnsupportedError(f"the module's reasons are `{reasons}` and {known}: {OWN_MODULE}")

    @property
    def memory_bytes(self) -> int:
        """How much memory the instance holds."""
        return self._memory.data_len(self._store)

    # The functions of docs/src/spec/abi.md, by their names.

    def info(self) -> bytes:  # noqa: D102
        return self._done(self._functions["gate_info"]())

    def load_bundle(self, tar: bytes) -> bytes:  # noqa: D102
        return self._ask("gate_load_bundle", tar)

    def set_enrollment(self, answer: bytes) -> None:  # noqa: D102
        self._tell("gate_set_enrollment", answer)

    def set_lease(self, envelope: bytes) -> None:  # noqa: D102
        self._tell("gate_set_lease", envelope)

    def verdict(self, now_ms: float) -> int:
        """0, the number of a reason, or below 0 for what is no time."""
        self._slot.f64 = now_ms
        return self._verdict()

    def decide(self, call: bytes) -> tuple[int, str]:
        """0 or the number of the reason, and the decision."""
        self._send(call)
        number = self._decide()
        if number < 0:
            self._done(number)
        return number, self._output().decode()

    def decide_batch(self, calls: bytes) -> tuple[int, bytes]:
        """How many lines, and the lines."""
        self._send(calls)
        count = self._functions["gate_decide_batch"]()
        if count < 0:
            self._done(count)
        return count, self._output()

    def explain(self, now_ms: float) -> bytes:  # noqa: D102
        self._slot.f64 = now_ms
        return self._done(self._functions["gate_explain"]())

    def verify_signature(self, key_signature_message: bytes) -> None:  # noqa: D102
        self._ask("gate_verify_signature", key_signature_message)

    def _tell(self, function: str, given: bytes) -> None:
        try:
            self._send(given)
        except MalformedError:
            # There is no room for it, and what was told before must not stand: no text at all is told in its place.
            self._slot.i32 = 0
            self._functions["gate_set_enrollment"]()
            raise
        self._done(self._functions[function]())

    def _ask(self, function: str, given: bytes) -> bytes:
        self._send(given)
        return self._done(self._functions[function]())

    def _done(self, number: int) -> bytes:
        output = self._output()
        if number == 0:
            return output
        error = json.loads(output)["error"]
        raise RefusedError(error) if number == REFUSED else MalformedError(error)

    def _send(self, given: bytes) -> None:
        """Writes the input, and its length where the call looks for it."""
        size = len(given)
        if size > self._input_bytes:
            self._reserve(size)
        ctypes.memmove(self._base + self._input_ptr, given, size)
        self._slot.i32 = size

    def _reserve(self, size: int) -> None:
        """Asks for room. The buffer moves only when more is asked for than ever before."""
        self._slot.i32 = min(size, 0x7FFF_FFFF)
        pointer = self._functions["gate_input"]() & 0xFFFF_FFFF
        if pointer == 0:
            raise MalformedError(f"an input of `{size}` bytes is larger than the gate takes: send less")
        self._check(pointer, size)
        self._input_ptr = pointer
        self._input_bytes = size

    def _output(self) -> bytes:
        pointer = self._output_ptr() & 0xFFFF_FFFF
        size = self._output_len() & 0xFFFF_FFFF
        self._check(pointer, size)
        return ctypes.string_at(self._base + pointer, size)

    def _check(self, pointer: int, size: int) -> None:
        """Memory only grows: what lay inside of it once still does."""
        if pointer + size > self._memory_bytes:
            self._memory_bytes = self.memory_bytes
            if pointer + size > self._memory_bytes:
                raise RuntimeError(f"the module points to `{pointer}` to `{pointer + size}`, outside of its memory")

    def _bind(self, exports: InstanceExports, name: str, argument: str) -> Callable[[], int]:
        """The function as one call of the C API, which checks no types: they are checked here."""
        function = exports.get(name)
        if not isinstance(function, wasmtime.Func):
            raise UnsupportedError(f"the module has no `{name}`: {OWN_MODULE}")
        of = function.type(self._store)
        if (" ".join(map(str, of.params)), " ".join(map(str, of.results))) != (argument, "i32"):
            raise UnsupportedError(f"the module's `{name}` takes or gives something else: {OWN_MODULE}")
        call = _call_unlocked if name == "gate_load_bundle" else _call
        slot = self._slot
        trap = ctypes.c_void_p()
        handle = function._func
        context = ctypes.cast(self._store._context(), ctypes.c_void_p).value
        addresses = (ctypes.addressof(handle), ctypes.addressof(slot), 1, ctypes.addressof(trap))

        # `handle` is kept alive by its own name here: nothing else holds what its address points to.
        def bound(_handle: Any = handle) -> int:
            if (error := call(context, *addresses)) or trap:
                _raise(error, trap)
            return slot.i32

        return bound


def _check_version(store: wasmtime.Store, exports: InstanceExports) -> None:
    major = exports.get("gate_abi_major")
    found = major.value(store) if isinstance(major, wasmtime.Global) else "none"
    if found != ABI_MAJOR:
        raise UnsupportedError(f"the module's ABI is `{found}` and this package speaks `{ABI_MAJOR}`: {OWN_MODULE}")


def _raise(error: int | None, trap: ctypes.c_void_p) -> None:
    """What the C API gave is owned here: wasmtime's exceptions free it."""
    if error:
        raise wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
    given = ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t))
    trap.value = None
    raise wasmtime.Trap._from_ptr(given)
