"""The native host over HTTP: what is sent, what is kept, what is refused before it is tried."""

import contextlib
import os
import socket
import threading

import pytest
from support import PATIENT, TOKEN, Contract, kinds, load

from autonomy_gate import AsyncNativeHost, Denied, MalformedError, NativeHost, Reason, RefusedError


def guarded(side, host):
    return side.guard(load(), source=host, sink=host, **PATIENT)


def test_a_call_over_http(side, contract):
    host = side.native_host(**contract.where, token=TOKEN)
    assert side.health(host) is True
    guard = guarded(side, host)
    permit = side.ask(guard)
    side.finish(permit)
    assert kinds(contract.frames) == ["facts", "decision", "action"]
    post = contract.posts()[0]
    assert post[2]["content-type"] == "application/json"
    assert post[3].startswith(b'{"frames":[{"kind":"autonomy.facts",')
    contract.enrolled = False
    with pytest.raises(Denied) as caught:
        side.ask(guard)
    assert caught.value.reason is Reason.NOT_ENROLLED


def test_connections_are_kept(side, contract):
    guard = guarded(side, side.native_host(**contract.where, token=TOKEN))
    for _ in range(10):
        side.ask(guard)
    assert len(contract._connections) == 1


BURST = 200


def after_a_burst(side, contract):
    """A host that has had that many calls at once, and one more; gives the connection of that one, as the far end has it."""
    host = side.native_host(**contract.where, token=TOKEN)
    barrier = threading.Barrier(BURST)
    contract.fault = lambda _: barrier.wait() and False
    assert all(side.healths(host, BURST))
    assert len(contract._connections) == BURST
    last = []
    contract.fault = lambda handler: last.append(handler.connection)
    assert side.health(host)
    assert len(contract._connections) == BURST
    return host, last[0]


def test_a_burst_leaves_no_more_than_64_connections(side, contract):
    after_a_burst(side, contract)
    assert 1 < contract.descriptors() <= 64


def test_connections_of_a_burst_that_the_host_has_closed_do_not_stay(side, contract):
    host, last = after_a_burst(side, contract)
    for connection in contract._connections:
        if connection is not last:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    assert side.health(host)
    assert side.health(host)
    assert contract.descriptors() == 1
    assert len(contract._connections) == BURST


def test_a_process_that_forked_makes_connections_of_its_own(contract, monkeypatch):
    with NativeHost(**contract.where, token=TOKEN) as host:
        assert host.health()
        monkeypatch.setattr("os.getpid", lambda: 0)
        assert host.health()
        assert host.health()
    assert len(contract._connections) == 2


def test_a_connection_that_was_closed_meanwhile_is_no_failure(side, contract):
    guard = guarded(side, side.native_host(**contract.where, token=TOKEN))

    def close_after(handler):
        handler.close_connection = handler.command == "POST"

    contract.fault = close_after
    for _ in range(10):
        side.ask(guard)
    assert all(frame["kind"] in ("autonomy.facts", "autonomy.decision") for frame in contract.frames)


def test_a_look_up_on_a_dead_connection_is_asked_once_more(side, contract):
    guard = guarded(side, side.native_host(**contract.where, token=TOKEN))
    side.ask(guard)
    fresh = len(contract._connections)

    def hang_up(handler):
        if handler.command == "GET" and len(contract._connections) == fresh:
            handler.hang_up()
            return True
        return False

    contract.fault = hang_up
    side.ask(guard)
    assert len(contract._connections) == fresh + 1


def test_a_host_that_is_down_is_not_healthy(side, contract):
    host = side.native_host(**contract.where, token=TOKEN)
    contract.stop()
    assert side.health(host) is False


def test_a_unix_socket_and_a_token_that_nobody_else_can_read(side, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    token_file.chmod(0o640)
    contract = Contract(tmp_path / "host.sock")
    try:
        with pytest.raises(RefusedError, match=r"mode `640`.*chmod 600"):
            side.native_host(**contract.where, token_file=token_file)
        token_file.chmod(0o600)
        side.ask(guarded(side, side.native_host(**contract.where, token_file=token_file)))
        assert kinds(contract.frames) == ["facts", "decision"]
    finally:
        contract.stop()


@pytest.mark.parametrize("host", [NativeHost, AsyncNativeHost])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"url": "http://10.0.0.1:7778"}, RefusedError, "not loopback"),
        ({"url": "http://127.0.0.1.example.org"}, RefusedError, "not loopback"),
        ({"url": "http://[::ffff:10.0.0.1]"}, RefusedError, "not loopback"),
        ({"url": "http://localhost@10.0.0.1"}, MalformedError, "no address"),
        ({"url": "http://127.0.0.1:7778/v1"}, MalformedError, "no address"),
        ({"url": "http://127.0.0.1:x"}, MalformedError, "no address"),
        ({"url": "https://127.0.0.1"}, MalformedError, "no address"),
        ({"url": "no address"}, MalformedError, "no address"),
        ({}, MalformedError, "give `url` or `socket`"),
        ({"url": "http://127.0.0.1:1", "socket": "s"}, MalformedError, "give `url` or `socket`"),
        ({"url": "http://127.0.0.1:1", "token": None}, MalformedError, "give `token` or `token_file`"),
        ({"url": "http://127.0.0.1:1", "token_file": "f"}, MalformedError, "give `token` or `token_file`"),
        ({"url": "http://127.0.0.1:1", "token": "two\nlines"}, MalformedError, "the token"),
        ({"url": "http://127.0.0.1:1", "token": ""}, MalformedError, "the token"),
    ],
)
def test_options_that_would_leak_the_token_or_mean_nothing_are_refused(host, options, error, words):
    with pytest.raises(error, match=words):
        host(**{"token": TOKEN, **options})


def test_a_token_file_without_a_token_is_refused(tmp_path):
    empty = tmp_path / "empty"
    descriptor = os.open(empty, os.O_CREAT | os.O_WRONLY, 0o600)
    os.close(descriptor)
    with pytest.raises(MalformedError, match="the token"):
        NativeHost(url="http://127.0.0.1:1", token_file=empty)
    with pytest.raises(FileNotFoundError):
        NativeHost(url="http://127.0.0.1:1", token_file=tmp_path / "absent")


@pytest.mark.parametrize("url", ["http://[::1]:7778", "http://localhost:7778", "http://127.1.2.3", "http://127.0.0.1/"])
def test_addresses_of_loopback_are_taken(url):
    NativeHost(url=url, token=TOKEN)
