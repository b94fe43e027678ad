"""A runtime of `cargo xtask test together`: docs/src/spec/conformance.md says what it is given and what it prints."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autonomy_gate import Denied, Gate, Guard, NativeHost

url, token_file, bundle, key, tasks, *nodes = sys.argv[1:]


def call(guard: Guard, node: str) -> str:
    """Makes a call, and says what came of it."""
    began_us = time.time_ns() // 1000
    try:
        with guard.ask("tool.echo") as permit:
            answered = permit.audit_id, "allow"
    except Denied as denied:
        answered = denied.audit_id, denied.reason
    return "\t".join([str(began_us), node, *answered])


with NativeHost(url=url, token_file=token_file) as host, ThreadPoolExecutor(int(tasks)) as pool:
    guards = []
    for node in nodes:
        gate = Gate(bundle=Path(bundle).read_bytes(), trusted_keys=Path(key).read_text(), node_id=node, mode="enforce")
        guard = Guard(gate, source=host, sink=host, look_up_timeout_ms=30_000, append_timeout_ms=30_000)
        guards.append((guard, node))
    print("ready", flush=True)
    for line in sys.stdin:
        calls = [guards[number % len(guards)] for number in range(int(line))]
        for said in pool.map(lambda each: call(*each), calls):
            print(said, flush=True)
