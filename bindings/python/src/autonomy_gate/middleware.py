"""A guard before web applications: ASGI with `AsyncGuard`, WSGI with `Guard`.

The permit is in the application's hands under `PERMIT`. A denied request is answered here: 403, or 503 where the decision
could not be written down. A status below 400 says that the tool completed, one from there on that it failed; an answer
that was not given to its end was abandoned.
"""

from __future__ import annotations

import http
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final, Union

from .documents import Outcome
from .errors import Denied, MalformedError, line
from .guard import AsyncGuard, Guard, Permit, outcome_of
from .protocol import ToolCall

PERMIT: Final = "autonomy_gate.permit"
"""Where the permit is in the scope or the environment."""

FAILED: Final = 400
POLICY_VIOLATION: Final = 1008

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

Asked = Union[str, ToolCall]
"""What a request asks for: a tool's name, or a call."""


class GateASGIMiddleware:
    """Asks before an ASGI application, for each request and each WebSocket.

    Args:
        app: The application.
        guard: Who is asked.
        tool: What a request asks for, by its scope.
    """

    def __init__(self, app: ASGIApp, *, guard: AsyncGuard, tool: Callable[[Scope], Asked]) -> None:
        self._app = app
        self._guard = guard
        self._tool = tool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            permit = await self._guard.ask_call(_call(self._tool(scope)))
        except (Denied, MalformedError) as error:
            await _refuse(scope, receive, send, error)
            return
        went = _Went()

        async def watched(message: Message) -> None:
            await send(message)
            went.see(message)

        try:
            await self._app({**scope, PERMIT: permit}, receive, watched)
        except BaseException as error:
            await permit.finish(outcome_of(error))
            raise
        await permit.finish(went.outcome)


class _Went:
    """How a connection went, by what the application sent."""

    def __init__(self) -> None:
        self.outcome: Outcome = "abandoned"
        self._status = 0

    def see(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.outcome = _outcome(self._status)
        elif kind == "websocket.accept":
            self.outcome = "completed"
        elif kind == "websocket.close" and self.outcome == "abandoned":
            # Before it was accepted: the handshake is refused.
            self.outcome = "failed"


async def _refuse(scope: Scope, receive: Receive, send: Send, error: Denied | MalformedError) -> None:
    if scope["type"] == "websocket":
        # Closed before it is accepted: the server answers the handshake with 403.
        await receive()
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    status, body = _refusal(error)
    headers = [(name.encode(), value.encode()) for name, value in _headers(body)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class GateWSGIMiddleware:
    """Asks before a WSGI application.

    Args:
        app: The application.
        guard: Who is asked.
        tool: What a request asks for, by its environment.
    """

    def __init__(self, app: WSGIApp, *, guard: Guard, tool: Callable[[Environ], Asked]) -> None:
        self._app = app
        self._guard = guard
        self._tool = tool

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serves one request."""
        try:
            permit = self._guard.ask_call(_call(self._tool(environ)))
        except (Denied, MalformedError) as error:
            status, body = _refusal(error)
            start_response(f"{status} {http.HTTPStatus(status).phrase}", _headers(body))
            return [body]
        answer = _Answer(permit)

        def started(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            answer.status = int(status.split(" ", 1)[0])
            return start_response(status, headers, *exc_info)

        try:
            answer.body = self._app({**environ, PERMIT: permit}, started)
        except BaseException as error:
            permit.finish(outcome_of(error))
            raise
        return answer


class _Answer:
    """An application's answer, whose end says how the tool went."""

    def __init__(self, permit: Permit) -> None:
        self.status = 0
        self.body: Iterable[bytes] = ()
        self._permit = permit
        self._outcome: Outcome = "abandoned"

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.body
            self._outcome = _outcome(self.status)
        except Exception:
            self._outcome = "failed"
            raise

    def close(self) -> None:
        try:
            if (close := getattr(self.body, "close", None)) is not None:
                close()
        finally:
            self._permit.finish(self._outcome)


def _call(asked: Asked) -> ToolCall:
    # Anything else is malformed: a function that forgot to answer lets nothing through.
    return asked if isinstance(asked, ToolCall) else ToolCall(asked)


def _outcome(status: int) -> Outcome:
    return "completed" if status < FAILED else "failed"


def _refusal(error: Denied | MalformedError) -> tuple[int, bytes]:
    if isinstance(error, Denied):
        return error.status, error.to_json().encode()
    return FAILED, json.dumps({"error": line(error)}).encode()


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [("content-type", "application/json"), ("content-length", str(len(body)))]
