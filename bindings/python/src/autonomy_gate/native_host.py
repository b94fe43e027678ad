"""Look-ups and durable appends at the native host of this machine (`autonomy host serve`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
import time
from collections import deque
from types import TracebackType
from typing import Final, Generic, Protocol, TypeVar

from .documents import Frames
from .exchange import (
    HEALTH,
    OK,
    Address,
    Answer,
    Connection,
    HostError,
    Request,
    append,
    appended,
    look_up,
    looked_up,
    token_of,
)

HEALTH_TIMEOUT_S = 2.0

RECEIVE_BYTES = 64 * 1024

IDLE_CONNECTIONS: Final = 64
"""Most connections that are kept for the next calls."""


class _Closable(Protocol):
    def usable(self) -> bool: ...

    def close(self) -> None: ...


_Kept = TypeVar("_Kept", bound=_Closable)


class _Idle(Generic[_Kept]):
    """The connections that are kept. The one that was used last is taken first, so that the host closes the oldest.

    Threads share it without a lock, which a process that forks could inherit locked: what is looked at is taken out.
    """

    def __init__(self) -> None:
        self._connections: deque[_Kept] = deque()

    def take(self) -> _Kept | None:
        """The one that was used last of those that are usable; closes those that are not."""
        while (connection := self.pop()) is not None:
            if connection.usable():
                return connection
            connection.close()
        return None

    def keep(self, connection: _Kept) -> None:
        """Keeps it, and closes the oldest: those that are not usable any more, and those that are too many."""
        with contextlib.suppress(IndexError):
            while not (oldest := self._connections.popleft()).usable():
                oldest.close()
            self._connections.appendleft(oldest)
        self._connections.append(connection)
        with contextlib.suppress(IndexError):
            while len(self._connections) > IDLE_CONNECTIONS:
                self._connections.popleft().close()

    def pop(self) -> _Kept | None:
        """The one that was used last, usable or not."""
        with contextlib.suppress(IndexError):
            return self._connections.pop()
        return None


class NativeHost:
    """A source and a sink for `Guard`, over HTTP on loopback or a Unix socket. Any number of threads may share it.

    It keeps up to 64 connections for reuse. A look-up whose connection the host has closed meanwhile is asked once more on a
    new one. An append is never sent twice: it may be in the log. There are no proxies and no redirects.

    Args:
        url: Like `http://127.0.0.1:7778`: without TLS, on a loopback address alone.
        socket: The path of a Unix socket, in place of `url`.
        token_file: A file that holds the token and that nobody else can read.
        token: The token, in place of `token_file`.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        socket: str | os.PathLike[str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> None:
        self._address = Address.parse(url, socket)
        self._token = token_of(token, token_file)
        self._idle: _Idle[_Socket] = _Idle()

    def look_up(self, node_id: str, timeout_s: float) -> bytes:
        """What the host answered, as it came."""
        return looked_up(self._ask(look_up(node_id), timeout_s))

    def append(self, frames: Frames, timeout_s: float) -> None:
        """Returns when the host says that the frames are durable."""
        appended(self._ask(append(frames), timeout_s))

    def health(self, timeout_s: float = HEALTH_TIMEOUT_S) -> bool:
        """Whether the host takes frames."""
        try:
            return self._ask(HEALTH, timeout_s).status == OK
        except (HostError, OSError):
            return False

    def close(self) -> None:
        """Closes the connections that are kept."""
        while (connection := self._idle.pop()) is not None:
            connection.close()

    def __enter__(self) -> NativeHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Request, timeout_s: float) -> Answer:
        deadline = time.monotonic() + timeout_s
        try:
            if (kept := self._idle.take()) is not None:
                try:
                    return self._exchange(kept, request, deadline)
                except TimeoutError:
                    raise
                except (HostError, OSError):
                    if request.method != "GET":
                        raise
            return self._exchange(_Socket(self._address, deadline), request, deadline)
        except TimeoutError:
            raise TimeoutError(f"the native host took longer than {timeout_s * 1000:.0f} ms") from None

    def _exchange(self, connection: _Socket, request: Request, deadline: float) -> Answer:
        try:
            answer = connection.exchange(request, self._token, deadline)
        except BaseException:
            connection.close()
            raise
        if connection.http.reusable:
            self._idle.keep(connection)
        else:
            connection.close()
        return answer


class _Socket:
    """A connection of its own, each exchange with a deadline for the whole of it."""

    def __init__(self, address: Address, deadline: float) -> None:
        self._process = os.getpid()
        self.http = Connection()
        if address.socket:
            self._socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            try:
                self._socket.settimeout(_left(deadline))
                self._socket.connect(address.socket)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = sockets.create_connection((address.host, address.port), timeout=_left(deadline))
            self._socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)

    def exchange(self, request: Request, token: str, deadline: float) -> Answer:
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(self.http.send(request, token))
        while True:
            self._socket.settimeout(_left(deadline))
            answer = self.http.receive(self._socket.recv(RECEIVE_BYTES))
            if answer is not None:
                return answer

    def usable(self) -> bool:
        """Whether nothing came unasked: the host hung up, or is out of step."""
        # A process that forked has the connections of its parent: answers there are not its own.
        if self._process != os.getpid():
            return False
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, sockets.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class AsyncNativeHost:
    """A source and a sink for `AsyncGuard`: `NativeHost` for the tasks of one event loop. The arguments are the same."""

    def __init__(
        self,
        *,
        url: str | None = None,
        socket: str | os.PathLike[str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> None:
        self._address = Address.parse(url, socket)
        self._token = token_of(token, token_file)
        self._idle: _Idle[_Stream] = _Idle()

    async def look_up(self, node_id: str) -> bytes:
        """What the host answered, as it came."""
        return looked_up(await self._ask(look_up(node_id)))

    async def append(self, frames: Frames) -> None:
        """Returns when the host says that the frames are durable."""
        appended(await self._ask(append(frames)))

    async def health(self, timeout_s: float = HEALTH_TIMEOUT_S) -> bool:
        """Whether the host takes frames."""
        try:
            return (await asyncio.wait_for(self._ask(HEALTH), timeout_s)).status == OK
        except (HostError, OSError, asyncio.TimeoutError):
            return False

    async def close(self) -> None:
        """Closes the connections that are kept."""
        while (connection := self._idle.pop()) is not None:
            connection.close()
            await connection.closed()

    async def __aenter__(self) -> AsyncNativeHost:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, request: Request) -> Answer:
        if (kept := self._idle.take()) is not None:
            try:
                return await self._exchange(kept, request)
            except (HostError, OSError):
                if request.method != "GET":
                    raise
        return await self._exchange(await _Stream.open(self._address), request)

    async def _exchange(self, connection: _Stream, request: Request) -> Answer:
        try:
            answer = await connection.exchange(request, self._token)
        except BaseException:
            connection.close()
            raise
        if connection.http.reusable:
            self._idle.keep(connection)
        else:
            connection.close()
        return answer


class _Stream:
    """A connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http = Connection()
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: Address) -> _Stream:
        if address.socket:
            return cls(*await asyncio.open_unix_connection(address.socket))
        return cls(*await asyncio.open_connection(address.host, address.port))

    async def exchange(self, request: Request, token: str) -> Answer:
        self._writer.write(self.http.send(request, token))
        await self._writer.drain()
        while True:
            answer = self.http.receive(await self._reader.read(RECEIVE_BYTES))
            if answer is not None:
                return answer

    def usable(self) -> bool:
        """Whether the host has not hung up."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        try:
            await self._writer.wait_closed()
        except OSError:
            return
