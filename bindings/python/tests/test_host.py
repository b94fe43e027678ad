"""`autonomy host serve`, the real one: killed, and started again where it was."""

import os
import signal

import pytest
from support import NODE_ID, host

from autonomy_gate import Denied, Gate, Reason


@pytest.mark.parametrize("mode", ["off", "advisory", "enforce"])
def test_calls_are_allowed_again_once_a_killed_host_is_back(side, node, mode):
    place, autonomy = node
    gate = Gate(
        bundle=(place / "bundle.tar").read_bytes(),
        trusted_keys=(place / "release.pub.pem").read_text(),
        node_id=NODE_ID,
        mode=mode,
    )
    ran, guard, listen = [], None, "127.0.0.1:0"
    for _ in range(3):
        with host(place, listen) as (url, process):
            if guard is None:
                listen = url.removeprefix("http://")
                native = side.native_host(url=url, token_file=place / "host.token")
                guard = side.guard(gate, source=native, sink=native)
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
