"""What hostile clients of the API may do to the daemon: nothing but be refused."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chamelio.messages import Channel, Refusal, decode, encode, receive_once
from host.rig import Host, descriptors, wait_until


def raw(host: Host) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5.0)
    sock.connect(os.fspath(host.run / "api.sock"))
    return sock


@pytest.fixture(scope="module")
def strict() -> Iterator[Host]:
    """A daemon with little patience and little room."""
    limits = {"frame_seconds": 0.3, "object_bytes": 4096, "connections": 20}
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        host = Host(Path(directory) / "run", limits=limits)
        host.start()
        yield host
        host.stop()


def reply(sock: socket.socket) -> dict[str, Any] | None:
    """The next reply's object, None when the daemon has hung up."""
    frame = Channel(sock, timeout=5.0).receive()
    return decode(frame.payload) if frame else None


def code_of(message: dict[str, Any] | None) -> str:
    assert message is not None
    return str(message["error"]["code"])


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def open_in(host: Host) -> int:
    assert host.process is not None
    return descriptors(host.process.pid)


NONSENSE = {
    "not JSON": b"\xff\xfe\x00",
    "not UTF-8": b'{"verb":"\xff"}',
    "an array": b"[]",
    "a number": b"1",
    "nothing": b"",
    "half an object": b'{"verb":',
    "no verb": b"{}",
    "a verb that is a number": b'{"verb": 1}',
    "an unknown verb": b'{"verb": "tenant.destroy"}',
    "a private name": b'{"verb": "__class__"}',
    "deep arrays": b'{"verb":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep argument": b'{"verb": "tenant.show", "tenant":' + b"[" * 900 + b"]" * 900 + b"}",
    "an unknown argument": b'{"verb": "ping", "pong": 1}',
    "a missing argument": b'{"verb": "tenant.show"}',
    "a wrong type": b'{"verb": "tenant.show", "tenant": 7}',
    "a token that is no text": b'{"verb": "ping", "token": {}}',
    "a huge number": b'{"verb": "tenant.add", "name": "x", "addresses": ["10.0.0.77"], "weight": 1e400}',
    "a huge weight": b'{"verb": "tenant.add", "name": "x", "addresses": ["10.0.0.77"], "weight": 99999999999999999999}',
    "a path as a name": b'{"verb": "tenant.add", "name": "../../x", "addresses": ["10.0.0.77"]}',
    "a name with a zero byte": b'{"verb": "tenant.add", "name": "x\\u0000", "addresses": ["10.0.0.77"]}',
    "no address": b'{"verb": "tenant.add", "name": "x", "addresses": []}',
    "a bad address": b'{"verb": "tenant.add", "name": "x", "addresses": ["10.0.0"]}',
}


@pytest.mark.fault(26)
@pytest.mark.parametrize("payload", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_refused_in_words_and_the_connection_goes_on(host: Host, payload: bytes) -> None:
    with raw(host) as sock:
        sock.sendall(framed(payload))
        message = reply(sock)
        assert message is not None and set(message) == {"error"}
        error = message["error"]
        assert error["code"] in ("usage", "engine") and error["message"] and error["exit"] in (1, 2)
        assert "Traceback" not in error["message"] and len(error["message"]) < 500
        sock.sendall(encode({"verb": "ping"}))
        assert "ok" in (reply(sock) or {})
    assert host.call("tenant.list") == []


@pytest.mark.fault(26)
def test_a_message_that_is_too_long_is_refused_before_it_is_read(host: Host) -> None:
    with raw(host) as sock:
        sock.sendall(struct.pack(">I", 10 << 20) + b'{"verb": "ping"')
        message = reply(sock)
        assert code_of(message) == "usage" and "10485760" in str(message)
        assert reply(sock) is None


@pytest.mark.fault(26)
def test_half_a_message_and_silence_ends_after_a_while_and_delays_nobody(strict: Host) -> None:
    host = strict
    for part in (b"\0", b"\0\0\0\x20", framed(b'{"verb": "ping"}')[:-1]):
        with raw(host) as sock:
            sock.sendall(part)
            started = time.monotonic()
            assert host.call("ping")["provider"]
            assert time.monotonic() - started < 0.25
            message = reply(sock)
            assert code_of(message) == "timeout" and "half a message" in str(message)


def test_silence_from_the_start_ends_too(make_host: Any) -> None:
    host: Host = make_host(limits={"idle_seconds": 0.2})
    with raw(host) as sock:
        assert reply(sock) is None


def test_requests_in_pieces_and_in_one_piece_are_answered_in_order(host: Host) -> None:
    with raw(host) as sock:
        for i in range(len(data := encode({"verb": "ping"}))):
            sock.sendall(data[i : i + 1])
        assert "ok" in (reply(sock) or {})
        sock.sendall(encode({"verb": "ping"}) + encode({"verb": "nothing"}) + encode({"verb": "ping"}))
        channel = Channel(sock, timeout=5.0)
        answers = [decode(frame.payload) for _ in range(3) if (frame := channel.receive())]
        assert ["ok" in a for a in answers] == [True, False, True]


@pytest.mark.fault(26)
def test_surplus_descriptors_are_closed(host: Host) -> None:
    before = open_in(host)
    devnull = os.open(os.devnull, os.O_RDONLY)
    with raw(host) as sock:
        for count in (1, 2, 5, 253):
            socket.send_fds(sock, [encode({"verb": "ping"})], [devnull] * count)
            assert code_of(reply(sock)) == "usage"
        for at in (3, 10):  # descriptors that come with the middle of a frame
            data = encode({"verb": "ping"})
            sock.sendall(data[:at])
            socket.send_fds(sock, [data[at:]], [devnull] * 3)
            assert code_of(reply(sock)) == "usage"
        socket.send_fds(sock, [encode({"verb": "ping"})[:9]], [devnull])  # and half a message with one
    os.close(devnull)
    assert wait_until(lambda: open_in(host) <= before), (before, open_in(host))


@pytest.mark.fault(26)
def test_descriptors_that_cannot_be_objects_are_refused(strict: Host, tmp_path: Path) -> None:
    host = strict
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(4097))
    (tmp_path / "plain").write_bytes(b"{}")
    opened = {
        "a directory": os.open(tmp_path, os.O_RDONLY),
        "a pipe": os.open(tmp_path / "fifo", os.O_RDWR),
        "a device": os.open("/dev/zero", os.O_RDONLY),
        "too large": os.open(tmp_path / "large", os.O_RDONLY),
        "write only": os.open(tmp_path / "plain", os.O_WRONLY),
        "a path": os.open(tmp_path / "plain", os.O_PATH),
    }
    with host.connect() as channel:
        for what, fd in opened.items():
            with pytest.raises(Refusal) as refusal:
                channel.call("protocol.load", [fd], tenant="a", name="x", ip_protocol=17)
            assert refusal.value.code == "usage", what
            os.close(fd)
        with pytest.raises(Refusal, match="takes 1 descriptors, 0 came"):
            channel.call("protocol.load", tenant="a", name="x", ip_protocol=17)


@pytest.mark.fault(26)
def test_too_many_connections_are_told_so_and_the_daemon_recovers(strict: Host) -> None:
    host = strict
    before = open_in(host)
    refused_before = host.call("status")["connections"]["refused"]
    socks = [raw(host) for _ in range(120)]
    refused = 0
    for sock in socks[20:]:
        data, _, _ = receive_once(sock, 4096, 0)
        refused += code_of(msgspec.json.decode(data[4:])) == "quota"
    assert refused == 100
    for sock in socks:
        sock.close()
    assert wait_until(lambda: open_in(host) <= before)  # connections of the test before may still have been closing
    status = host.call("status")
    assert (status["connections"]["now"], status["connections"]["refused"] - refused_before) == (1, 100)


@pytest.mark.fault(26)
def test_a_client_that_does_not_take_its_replies_is_cut_off(strict: Host) -> None:
    host = strict
    with raw(host) as sock:
        sock.settimeout(0.2)
        request = encode({"verb": "nothing"}) * 1000
        with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
            for _ in range(200):
                sock.sendall(request)
        assert host.call("ping")["provider"]
        assert wait_until(lambda: host.call("status")["connections"]["now"] == 1)
