"""A server whose one endpoint moves an arm, if the gate lets it.

Run `autonomy host serve`, then this with its arguments, then ask:

    python server.py --bundle bundle.tar --key release.pub.pem --node-id robot-7 --token-file host.token
    curl -X POST 127.0.0.1:8080/arm/move
"""

from __future__ import annotations

import argparse
import socketserver
import wsgiref.simple_server
from collections.abc import Iterable
from pathlib import Path

from autonomy_gate import PERMIT, Gate, GateWSGIMiddleware, Guard, NativeHost, ToolCall
from autonomy_gate.middleware import Environ, StartResponse


def move(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Runs with a permit: the decision is on disk."""
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"moved {environ[PERMIT].audit_id}\n".encode()]


def tool(environ: Environ) -> ToolCall:
    """What a request asks for: `POST /arm/move` is `post.arm.move`."""
    path = environ["PATH_INFO"].strip("/").replace("/", ".")
    return ToolCall(f"{environ['REQUEST_METHOD'].lower()}.{path}", params={"query": environ["QUERY_STRING"]})


class Threads(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """A thread a request: the guard is for all of them."""

    daemon_threads = True


def main() -> None:
    """Serves until it is interrupted."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bundle", type=Path, required=True)
    arguments.add_argument("--key", type=Path, required=True, help="who may sign bundles, as PEM")
    arguments.add_argument("--node-id", required=True)
    arguments.add_argument("--host", default="http://127.0.0.1:7778", help="where `autonomy host serve` listens")
    arguments.add_argument("--token-file", type=Path, required=True)
    arguments.add_argument("--port", type=int, default=8080)
    given = arguments.parse_args()
    gate = Gate(
        bundle=given.bundle.read_bytes(),
        trusted_keys=given.key.read_text(),
        node_id=given.node_id,
        mode="enforce",
    )
    with NativeHost(url=given.host, token_file=given.token_file) as host:
        app = GateWSGIMiddleware(move, guard=Guard(gate, source=host, sink=host), tool=tool)
        with wsgiref.simple_server.make_server("127.0.0.1", given.port, app, server_class=Threads) as server:
            print(f"http://127.0.0.1:{server.server_port}", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main()
