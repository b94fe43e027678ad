"""`autonomy host serve`, the real one: killed, out of disk, and started again where it was."""

import os
import re
import signal

import pytest
from support import NODE_ID, PATIENT, host, kept_port

from autonomy_gate import Denied, Gate, Reason


def node_gate(place, mode="enforce"):
    return Gate(
        bundle=(place / "bundle.tar").read_bytes(),
        trusted_keys=(place / "release.pub.pem").read_text(),
        node_id=NODE_ID,
        mode=mode,
    )


@pytest.mark.parametrize("mode", ["off", "advisory", "enforce"])
def test_calls_are_allowed_again_once_a_killed_host_is_back(side, node, mode):
    place, autonomy = node
    ran = []
    with kept_port() as port:
        native = side.native_host(url=f"http://127.0.0.1:{port}", token_file=place / "host.token")
        guard = side.guard(node_gate(place, mode), source=native, sink=native, **PATIENT)
        for _ in range(3):
            with host(place, port) as (_, process):
                side.run(guard, lambda permit: ran.append(permit.audit_id))
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            for _ in range(3):
                with pytest.raises(Denied) as caught:
                    side.run(guard, lambda _: pytest.fail("it ran"))
                assert (caught.value.reason, caught.value.status) == (Reason.WAL_UNAVAILABLE, 503)
    assert len(set(ran)) == 3
    autonomy("wal", "verify")
    for audit_id in ran:
        assert "outcome=allow" in autonomy("audit", "get", audit_id)


@pytest.mark.fault("disk_full")
def test_on_a_full_disk_a_call_is_denied_and_nothing_that_ran_is_missing(side, node):
    place, autonomy = node
    ran = []

    def run(guard, calls=1):
        # Not finished: it is a decision that finds no room.
        ran.extend(side.ask(guard).audit_id for _ in range(calls))

    with kept_port() as port:
        native = side.native_host(url=f"http://127.0.0.1:{port}", token_file=place / "host.token")
        guard = side.guard(node_gate(place), source=native, sink=native, **PATIENT)
        with host(place, port, file_kib=64) as (_, process):
            with pytest.raises(Denied) as full:
                run(guard, calls=1_000)
            assert (full.value.reason, full.value.status) == (Reason.WAL_UNAVAILABLE, 503)
            # Before it ended, the host said why.
            assert re.search("`503`: .*ulimit -f", str(full.value.__cause__))
            assert len(ran) > 10
            process.wait()
        with pytest.raises(Denied) as gone:
            run(guard)
        assert (gone.value.reason, gone.value.status) == (Reason.WAL_UNAVAILABLE, 503)
        with host(place, port):
            run(guard)
    autonomy("wal", "verify")
    log = autonomy("wal", "inspect", "--output", "json")
    assert all(audit_id in log for audit_id in ran)
    denied = [full.value.audit_id, gone.value.audit_id]
    assert not any(audit_id in log for audit_id in denied)
