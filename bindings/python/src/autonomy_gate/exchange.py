"""The native host's contract over HTTP/1.1, without sockets: bytes to send, bytes received, an answer."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h11

from .documents import Frames
from .errors import FactsNotLoggedError, MalformedError, RefusedError, UnsupportedError, line

ANSWER_BYTES: Final = 64 * 1024
"""Longest answer that is read."""

TOKEN_BYTES: Final = 4 * 1024
"""Longest token file that is read."""

OTHERS: Final = 0o077
"""Bits of a file's mode that let anybody but its owner in."""

OK: Final = 200
CONFLICT: Final = 409


class HostError(Exception):
    """The native host did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    target: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    body: bytes


HEALTH: Final = Request("GET", "/v1/health")


def look_up(node_id: str) -> Request:
    """Asks what is known of a node."""
    return Request("GET", f"/v1/enrollments/{urllib.parse.quote(node_id, safe='')}")


def append(frames: Frames) -> Request:
    """Hands frames over."""
    return Request("POST", "/v1/frames", f'{{"frames":{frames.json}}}'.encode())


def looked_up(answer: Answer) -> bytes:
    """What the host answered to a look-up, as it came."""
    if answer.status != OK:
        raise HostError(f"the native host answered `{answer.status}`{_said(answer)}")
    return answer.body


def appended(answer: Answer) -> None:
    """Returns when the answer says that the frames are durable."""
    if answer.status == CONFLICT:
        raise FactsNotLoggedError(f"the native host does not have the facts{_said(answer)}")
    if answer.status != OK:
        raise HostError(f"the native host answered `{answer.status}`{_said(answer)}")
    try:
        receipt = json.loads(answer.body)
        first, last = receipt["first_seq"], receipt["last_seq"]
    except (ValueError, TypeError, KeyError) as error:
        raise HostError("the native host answered an append with what is no receipt") from error
    if type(first) is not int or type(last) is not int or not 0 <= first <= last:
        raise HostError(f"the native host gave a receipt from `{first}` to `{last}`")


class Connection:
    """One connection: an exchange at a time, and another one as long as it is `reusable`."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._status = 0
        self._body = bytearray()

    def send(self, request: Request, token: str) -> bytes:
        """The bytes of a request."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._status = 0
        self._body = bytearray()
        headers = [("host", "localhost"), ("authorization", f"Bearer {token}")]
        if request.method == "POST":
            headers += [("content-type", "application/json"), ("content-length", str(len(request.body)))]
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        parts = [
            self._http.send(head),
            self._http.send(h11.Data(data=request.body)),
            self._http.send(h11.EndOfMessage()),
        ]
        return b"".join(part for part in parts if part)

    def receive(self, data: bytes) -> Answer | None:
        """Takes bytes, none of them where the host has hung up, and gives the answer once it is whole."""
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > ANSWER_BYTES:
                        raise HostError(f"the answer is longer than {ANSWER_BYTES} bytes")
                elif isinstance(event, h11.EndOfMessage):
                    return Answer(self._status, bytes(self._body))
                elif event is h11.NEED_DATA:
                    return None
                elif isinstance(event, h11.ConnectionClosed):
                    raise HostError("the native host hung up")
        except h11.RemoteProtocolError as error:
            raise HostError(f"the answer broke off or is not HTTP: {line(error)}") from error

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE


@dataclass(frozen=True, slots=True)
class Address:
    """Where the native host is: a host and a port of loopback, or a Unix socket."""

    host: str = ""
    port: int = 0
    socket: str = ""

    @classmethod
    def parse(cls, url: str | None, socket: str | os.PathLike[str] | None) -> Address:
        """Refuses an address over which the token would be read by others."""
        if (url is None) == (socket is None):
            raise MalformedError("where the native host is must be said once: give `url` or `socket`")
        if socket is not None:
            if os.name != "posix":
                raise UnsupportedError("this system has no Unix sockets: give `url`")
            return cls(socket=os.fspath(socket))
        try:
            parts = urllib.parse.urlsplit(str(url))
            host, port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise MalformedError(f"`{url}` is no address: give one like `http://127.0.0.1:7778`") from error
        if parts.scheme != "http" or parts.path not in ("", "/") or parts.netloc.count("@") or parts.query:
            raise MalformedError(f"`{url}` is no address: give one like `http://127.0.0.1:7778`")
        if not _loopback(host):
            raise RefusedError(
                f"`{url}` is not loopback, and the token would be read on the way: use the node's own host"
            )
        return cls(host, port)


def token_of(token: str | None, token_file: str | os.PathLike[str] | None) -> str:
    """The token, which its file must keep from everybody but its owner."""
    if (token is None) == (token_file is None):
        raise MalformedError("the token must be said once: give `token` or `token_file`")
    if token is None:
        token = _read_token(Path(str(token_file)))
    if not re.fullmatch("[!-~]+", token):
        raise MalformedError("the token is empty or has other than printable characters: give it as the host has it")
    return token


def _read_token(path: Path) -> str:
    with path.open("rb") as file:
        # Of the file that was opened: the name may mean another one by now. Windows has no such bits.
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if os.name == "posix" and mode & OTHERS:
            raise RefusedError(f"others can read `{path}` (mode `{mode:o}`): run `chmod 600` on it")
        return file.read(TOKEN_BYTES).decode("ascii", errors="replace").strip()


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(answer: Answer) -> str:
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, TypeError, KeyError):
        return ""
    return f": {' '.join(error.split())[:300]}" if isinstance(error, str) else ""
