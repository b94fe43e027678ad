"""What the tests share: the corpora, a small server of the native host's contract, and both guards as one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import platform
import re
import socket
import socketserver
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path

from autonomy_gate import (
    AsyncGuard,
    AsyncMemoryHost,
    AsyncNativeHost,
    Gate,
    Guard,
    MemoryHost,
    NativeHost,
)

ROOT = Path(__file__).resolve().parents[3]
AUTONOMY = os.environ.get("AUTONOMY", "autonomy")
ENGINE = f"wasmtime {version('wasmtime')}, CPython {platform.python_version()}"
NODE_ID = "robot-7"
TOKEN = "s3cret-token"
# For what is not slow on purpose: a machine that is busy with other things must not count as a fault.
PATIENCE_MS = 60_000
PATIENT = {"look_up_timeout_ms": PATIENCE_MS, "append_timeout_ms": PATIENCE_MS}


def corpus(name):
    return json.loads((ROOT / "tests/corpus" / f"{name}.json").read_text(encoding="utf-8"))


def unpack(segments):
    return b"".join(bytes(s) if isinstance(s, int) else base64.b64decode(s) for s in segments)


def good_bundle():
    """The first bundle of the corpus that is accepted."""
    bundles = corpus("bundles")
    case = next(case for case in bundles["bundles"] if "accepted" in case)
    keys = [bundles["keys"][name] for name in case["keys"]]
    return {"bundle": unpack(case["tar"]), "trusted_keys": keys, "threshold": case["threshold"]}, case["accepted"]


GOOD, ACCEPTED = good_bundle()
ENROLLMENT_REF = ACCEPTED["enrollment_ref"]


def now_ms():
    return time.time_ns() // 1_000_000


def load(**over):
    return Gate(**{**GOOD, "node_id": NODE_ID, "mode": "enforce", **over})


def enrolled(**over):
    row = {
        "node_id": NODE_ID,
        "enrollment_ref": ENROLLMENT_REF,
        "status": "active",
        "rollout_state": "<none>",
        "serial": 1,
    }
    return {"answer": "enrolled", "enrollment": {**row, **over}, "observed_at_ms": now_ms()}


class Threads:
    """`Guard`, as a side of what both guards must do."""

    def __init__(self):
        self.hosts = []

    def guard(self, gate, **options):
        return Guard(gate, **options)

    def ask(self, guard, tool="tool.echo", **options):
        return guard.ask(tool, **options)

    def finish(self, permit, outcome="completed"):
        permit.finish(outcome)

    def run(self, guard, doing, tool="tool.echo"):
        with guard.ask(tool) as permit:
            doing(permit)

    def memory_host(self):
        return MemoryHost()

    def native_host(self, **options):
        self.hosts.append(NativeHost(**options))
        return self.hosts[-1]

    def health(self, host):
        return host.health(PATIENCE_MS / 1000)

    def healths(self, host, calls):
        """That many calls at once."""
        with ThreadPoolExecutor(calls) as threads:
            return list(threads.map(lambda _: self.health(host), range(calls)))

    def source(self, answer):
        """A source of a function."""

        class Source:
            def look_up(self, node_id, timeout_s):
                return answer(node_id)

        return Source()

    def sink(self, append):
        """A sink of a function."""

        class Sink:
            def append(self, frames, timeout_s):
                return append(frames)

        return Sink()

    def close(self):
        for host in self.hosts:
            host.close()


class Tasks(Threads):
    """`AsyncGuard`, on a loop of its own."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def guard(self, gate, **options):
        return AsyncGuard(gate, **options)

    def ask(self, guard, tool="tool.echo", **options):
        async def ask():
            return await guard.ask(tool, **options)

        return self.loop.run_until_complete(ask())

    def finish(self, permit, outcome="completed"):
        self.loop.run_until_complete(permit.finish(outcome))

    def run(self, guard, doing, tool="tool.echo"):
        async def run():
            async with guard.ask(tool) as permit:
                doing(permit)

        self.loop.run_until_complete(run())

    def memory_host(self):
        return AsyncMemoryHost()

    def native_host(self, **options):
        self.hosts.append(AsyncNativeHost(**options))
        return self.hosts[-1]

    def health(self, host):
        return self.loop.run_until_complete(host.health(PATIENCE_MS / 1000))

    def healths(self, host, calls):
        async def healths():
            return await asyncio.gather(*(host.health(PATIENCE_MS / 1000) for _ in range(calls)))

        return self.loop.run_until_complete(healths())

    def source(self, answer):
        class Source:
            async def look_up(self, node_id):
                return answer(node_id)

        return Source()

    def sink(self, append):
        class Sink:
            async def append(self, frames):
                return append(frames)

        return Sink()

    def close(self):
        for host in self.hosts:
            self.loop.run_until_complete(host.close())
        # What was dropped is closed by the loop.
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@contextlib.contextmanager
def kept_port():
    """A port of loopback that no other process is given until the block ends, also while nothing listens on it."""
    with socket.socket() as kept:
        # With it the server may bind the port as well: of the sockets that have it one may listen, and this one never does.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


class Handler(BaseHTTPRequestHandler):
    """One connection to `Contract`; what a fault is given to answer with."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        self.disable_nagle_algorithm = self.server.address_family == socket.AF_INET
        super().setup()

    def log_message(self, *_):
        pass

    def address_string(self):
        return ""

    def handle(self):
        self.server.contract._connections.append(self.connection)
        with contextlib.suppress(ConnectionError):
            super().handle()

    def serve(self):
        contract = self.server.contract
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        contract.requests.append((self.command, self.path, dict(self.headers), body))
        if contract.fault is None or not contract.fault(self):
            contract.answer(self, body)

    do_GET = do_POST = serve  # noqa: N815 - as http.server wants it

    def say(self, status, document):
        self.raw(status, json.dumps(document).encode())

    def raw(self, status, body, length=None, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def hold(self):
        """Says nothing until the server stops."""
        self.server.contract._stopped.wait(30)
        self.close_connection = True


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, contract, family, address):
        self.contract, self.address_family = contract, family
        super().__init__(address, Handler)


class Contract:
    """A small server of the native host's contract, at a path or a port. While `fault` is set, it answers in its place.

    A fault takes the handler and gives true when it has answered; else the request is answered as it should be.
    """

    def __init__(self, place):
        self.frames, self.facts, self.requests = [], set(), []
        self.fault = None
        self.token = TOKEN
        self.enrolled = True
        self.sequence = 0
        if isinstance(place, int):
            self.where = {"url": f"http://127.0.0.1:{place}"}
            self._listens = socket.AF_INET, ("127.0.0.1", place)
        else:
            self.where = {"socket": place}
            self._listens = socket.AF_UNIX, os.fspath(place)
        self._connections = []
        self.start()

    def start(self):
        """Listens, also once it was stopped."""
        self._stopped = threading.Event()
        self._server = Server(self, *self._listens)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, handler, body):
        if handler.headers.get("authorization") != f"Bearer {self.token}":
            return handler.say(401, {"error": "the token is wrong"})
        if handler.path == "/v1/health":
            return handler.say(200, {"status": "ok"})
        if handler.path == f"/v1/enrollments/{NODE_ID}":
            absent = {"answer": "not_enrolled", "observed_at_ms": now_ms()}
            return handler.say(200, enrolled() if self.enrolled else absent)
        frames = json.loads(body)["frames"]
        facts = {frame["attrs"]["id"] for frame in frames if frame["kind"] == "autonomy.facts"} | self.facts
        if any(frame["attrs"]["facts"] not in facts for frame in frames if frame["kind"] == "autonomy.decision"):
            return handler.say(409, {"error": "the facts are not in the log"})
        self.facts = facts
        self.frames += frames
        first, self.sequence = self.sequence + 1, self.sequence + len(frames)
        return handler.say(200, {"first_seq": first, "last_seq": self.sequence})

    def stop(self):
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def descriptors(self):
        """How many of this process's descriptors are connections to it, also those that it has closed."""
        peers, kind = [], (self._listens[0], socket.SOCK_STREAM)
        for path in Path("/dev/fd").iterdir():
            # Most descriptors are no connections.
            with contextlib.suppress(OSError), socket.fromfd(int(path.name), *kind) as connection:
                peers.append(connection.getpeername())
        return peers.count(self._listens[1])

    def posts(self):
        return [request for request in self.requests if request[0] == "POST"]


def kinds(frames):
    return [frame["kind"].removeprefix("autonomy.") for frame in frames]


def eventually(true):
    """Waits until it is true: an action is written after the answer was given."""
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def outcomes(frames):
    return [frame["attrs"]["outcome"] for frame in frames if frame["kind"] == "autonomy.action"]


def why(frames):
    """Why the enrollment is unavailable, by the facts that were logged last."""
    return [f for f in frames if f["kind"] == "autonomy.facts"][-1]["attrs"]["facts"]["enrollment"]["why"]


@contextlib.contextmanager
def serving(arguments, says, **options):
    """Runs a program until the block ends, once it has said that it listens; gives what it said of where, and its process."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            for line in process.stdout:
                if found := re.search(says, line):
                    break
            else:
                raise AssertionError(f"{arguments} ended")
            yield found[1], process
        finally:
            process.terminate()


@contextlib.contextmanager
def host(place, port=0, file_kib=None):
    """`autonomy host serve`, as `serving` gives it. No file of it may grow beyond `file_kib`, which is to it as a full disk."""
    program = [AUTONOMY, "--home", str(place / "home"), "host", "serve", "--listen", f"127.0.0.1:{port}"]
    if file_kib is not None:
        program = ["bash", "-c", f'ulimit -f {file_kib}; exec "$0" "$@"', *program]
    env = {**os.environ, "AUTONOMY_HOST_TOKEN_FILE": "host.token"}
    with serving(program, r"listening on (http://\S+)", cwd=place, env=env) as served:
        yield served
