"""The middlewares, before applications that real servers run."""

import asyncio
import contextlib
import http.client
import io
import json
import threading
import wsgiref.simple_server
import wsgiref.validate

import pytest
import uvicorn
from support import ENROLLMENT_REF, NODE_ID, eventually, load, outcomes

from autonomy_gate import (
    PERMIT,
    AsyncGuard,
    AsyncMemoryHost,
    GateASGIMiddleware,
    GateWSGIMiddleware,
    Guard,
    MemoryHost,
    ToolCall,
)

SECRET = "a secret"


def tool(path):
    if path == "/throws":
        raise RuntimeError(SECRET)
    return {"/malformed": "no tool", "/forgets": None}.get(path, ToolCall("tool.echo", params={"path": path}))


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    status = {"/fails": "500 Internal Server Error"}.get(path, "200 OK")
    start_response(status, [("content-type", "text/plain")])
    if path == "/breaks":
        raise RuntimeError(SECRET)
    return [environ[PERMIT].audit_id.encode()]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/breaks":
        raise RuntimeError(SECRET)
    await send({"type": "http.response.start", "status": 500 if path == "/fails" else 200})
    await send({"type": "http.response.body", "body": scope[PERMIT].audit_id.encode()})


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass

    def get_stderr(self):
        return io.StringIO()


@contextlib.contextmanager
def wsgi_server(host):
    guard = Guard(load(), source=host, sink=host)
    gated = GateWSGIMiddleware(wsgi, guard=guard, tool=lambda environ: tool(environ["PATH_INFO"]))
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, gated, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def asgi_server(host):
    guard = AsyncGuard(load(), source=host, sink=host)
    gated = GateASGIMiddleware(asgi, guard=guard, tool=lambda scope: tool(scope["path"]))
    server = uvicorn.Server(uvicorn.Config(gated, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(("serve", "of"), [(wsgi_server, MemoryHost), (asgi_server, AsyncMemoryHost)])
def test_a_server_runs_an_application_with_a_permit_and_answers_what_is_denied(serve, of):
    host = of()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    with serve(host) as port:

        def get(path):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer.status, body.decode()

        status, audit_id = get("/")
        assert status == 200
        eventually(lambda: outcomes(host.frames) == ["completed"])
        assert audit_id == host.frames[-1]["audit_id"]
        assert get("/fails")[0] == 500
        eventually(lambda: len(outcomes(host.frames)) == 2)
        status, body = get("/breaks")
        assert (status, SECRET in body) == (500, False)
        eventually(lambda: outcomes(host.frames) == ["completed", "failed", "failed"])

        before = len(host.frames)
        assert get("/malformed")[0] == 400
        assert get("/forgets")[0] == 400
        status, body = get("/throws")
        assert (status, SECRET in body) == (500, False)
        assert len(host.frames) == before

        host.revoke(NODE_ID)
        status, body = get("/")
        assert status == 403
        assert json.loads(body) == {
            "decision": "deny",
            "reason": "attestation: enrollment_revoked",
            "policy_ref": None,
            "audit_id": host.frames[-1]["audit_id"],
        }
        host.fault = OSError("disk full")
        status, body = get("/")
        assert (status, json.loads(body)["reason"]) == (503, "audit: wal_unavailable")


@pytest.fixture
def host():
    host = MemoryHost()
    host.enroll(NODE_ID, ENROLLMENT_REF)
    return host


def call_wsgi(host, app, *, read=None):
    """Serves one request as a server does that reads so many parts."""
    guard = Guard(load(), source=host, sink=host)
    gated = GateWSGIMiddleware(app, guard=guard, tool=lambda _: "tool.echo")
    answer = gated({}, lambda *_: None)
    try:
        parts = iter(answer)
        return list(parts) if read is None else [next(parts) for _ in range(read)]
    finally:
        answer.close()


def test_wsgi_what_is_not_read_to_its_end_is_abandoned(host):
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            closed.append(True)

    def app(_, start_response):
        start_response("200 OK", [])
        return Body()

    assert call_wsgi(host, app) == [b"a", b"b"]
    assert call_wsgi(host, app, read=1) == [b"a"]
    assert outcomes(host.frames) == ["completed", "abandoned"]
    assert closed == [True, True]


def test_wsgi_a_body_that_breaks_failed(host):
    def app(_, start_response):
        start_response("200 OK", [])
        yield b"a"
        raise OSError(SECRET)

    with pytest.raises(OSError, match=SECRET):
        call_wsgi(host, app)
    assert outcomes(host.frames) == ["failed"]


def test_wsgi_keeps_to_its_rules(host):
    def app(_, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"a"]

    guard = Guard(load(), source=host, sink=host)
    gated = GateWSGIMiddleware(wsgiref.validate.validator(app), guard=guard, tool=lambda _: "tool.echo")
    checked = wsgiref.validate.validator(gated)
    environ = {"QUERY_STRING": ""}
    wsgiref.util.setup_testing_defaults(environ)
    for _ in range(2):
        answer = checked(dict(environ), lambda *_: lambda _: None)
        assert b"".join(answer)
        answer.close()
        host.revoke(NODE_ID)


def call_asgi(app, kind, *, revoked=False):
    """Serves one connection, and gives what was sent and what was written down."""
    host = AsyncMemoryHost()
    host.enroll(NODE_ID, ENROLLMENT_REF, status="revoked" if revoked else "active")
    sent = []

    async def main():
        async def receive():
            return {"type": f"{kind}.connect"}

        async def send(message):
            sent.append(message)

        guard = AsyncGuard(load(), source=host, sink=host)
        gated = GateASGIMiddleware(app, guard=guard, tool=lambda _: "tool.echo")
        await gated({"type": kind}, receive, send)

    asyncio.run(main())
    return sent, outcomes(host.frames)


def test_asgi_a_websocket_is_asked_for_and_closed_when_it_is_denied():
    async def app(scope, receive, send):
        assert scope[PERMIT].audit_id
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def refuses(_, receive, send):
        await receive()
        await send({"type": "websocket.close"})

    assert call_asgi(app, "websocket")[1] == ["completed"]
    assert call_asgi(refuses, "websocket")[1] == ["failed"]
    sent, wrote = call_asgi(app, "websocket", revoked=True)
    assert (sent, wrote) == ([{"type": "websocket.close", "code": 1008}], [])


def test_asgi_what_is_not_sent_to_its_end_is_abandoned():
    async def app(*connection):
        send = connection[-1]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    assert call_asgi(app, "http")[1] == ["abandoned"]
