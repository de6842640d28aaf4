"""Streams and transports of TCP do as asyncio's over sockets do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import tcp_rigs
from tcp_rigs import PORT, Rig

import chamelio


@pytest.fixture(params=["model", "model, 3 cores", "handlers", "handlers, 2 cores"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    where, _, cores = request.param.partition(", ")
    with (tcp_rigs.model if where == "model" else tcp_rigs.world)(cores=int(cores[:1] or 1)) as one:
        yield one


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()
    writer.close()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


class Notes(asyncio.Protocol):
    """Notes all that it is told."""

    def __init__(self, keep_open: bool = False) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.keep_open = keep_open
        self.transport: Any = None
        self.error: Exception | None = None
        self.lost = asyncio.Event()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.ended.set()
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc
        self.lost.set()


async def pair(rig: Rig, server: Notes | None = None, client: Notes | None = None) -> tuple[Any, Notes, Notes]:
    """A server and a connection to it, with what notes both ends."""
    theirs, ours = server or Notes(), client or Notes()
    made = await rig.create_server(lambda: Notes() if theirs.transport else theirs)
    await rig.create_connection(lambda: ours)
    while theirs.transport is None:
        await asyncio.sleep(0.001)
    return made, theirs, ours


async def end(server: Any, *notes: Notes) -> None:
    """Close everything; each was told once."""
    for note in notes:
        note.transport.close()
        await note.lost.wait()
    server.close()
    await server.wait_closed()
    for note in notes:
        assert note.calls.count("made") == note.calls.count("lost") == 1 and note.calls[-1] == "lost"


# ---- bytes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1460, 1921, 65_536, 65_537, 1 << 20, 20_000_000])
def test_every_byte_arrives_in_both_directions(rig: Rig, length: int) -> None:
    async def run() -> None:
        server = await rig.start_server(echo)
        reader, writer = await rig.open_connection()
        data = noise(length)

        async def send() -> None:
            for at in range(0, length, 1 << 18):
                writer.write(data[at : at + (1 << 18)])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        assert hashlib.sha256(await reader.read()).digest() == hashlib.sha256(data).digest()
        await sending
        await close(writer)
        server.close()
        await server.wait_closed()

    rig.play(run())


@pytest.mark.parametrize("seed", range(4))
def test_writes_of_all_sizes_and_kinds_are_one_stream(rig: Rig, seed: int) -> None:
    rng = random.Random(seed)

    async def run() -> None:
        server = await rig.start_server(echo)
        reader, writer = await rig.open_connection()
        sent = bytearray()

        async def send() -> None:
            for _ in range(300):
                data = bytearray(rng.randbytes(int(rng.paretovariate(0.5)) % 30_000))
                sent.extend(data)
                choice = rng.randrange(5)
                if choice == 0:
                    writer.writelines([data[:100], b"", memoryview(bytes(data))[100:]])
                elif choice == 1:
                    writer.write(memoryview(data))
                elif choice == 2:
                    writer.write(bytes(data))
                else:
                    writer.write(data)
                data[:] = bytes(len(data))  # it is ours again
                if rng.random() < 0.3:
                    await writer.drain()
                if rng.random() < 0.2:
                    await asyncio.sleep(rng.expovariate(1000))
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        got = await reader.read()
        await sending
        assert got == sent
        await close(writer)
        server.close()
        await server.wait_closed()

    rig.play(run())


class Buffered(asyncio.BufferedProtocol):
    """Takes data into a buffer of its own, which it resizes."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.buffer = bytearray(10)
        self.ended = asyncio.Event()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self.buffer[:nbytes]
        self.buffer += bytes(nbytes)

    def eof_received(self) -> None:
        self.ended.set()


def test_a_buffered_protocol_gets_data_in_its_own_buffer(rig: Rig) -> None:
    async def run() -> None:
        theirs = Buffered()
        server = await rig.create_server(lambda: theirs)
        _, writer = await rig.open_connection()
        data = noise(300_000)
        writer.write(data)
        await close(writer)
        await theirs.ended.wait()
        assert theirs.got == data
        server.close()
        await server.wait_closed()

    rig.play(run())


def test_a_protocol_can_be_replaced_between_two_pieces_of_data(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        other = Notes()
        ours.transport.write(b"first")
        await asyncio.sleep(0.01)
        theirs.transport.set_protocol(other)
        assert theirs.transport.get_protocol() is other
        other.transport = theirs.transport
        ours.transport.write(b"second")
        await asyncio.sleep(0.01)
        assert (theirs.data, other.data) == (b"first", b"second")
        ours.transport.close()
        await other.lost.wait()
        server.close()
        await server.wait_closed()

    rig.play(run())


def test_a_thousand_connections_at_once(rig: Rig) -> None:
    async def run() -> None:
        server = await rig.start_server(echo, backlog=2000)

        async def one(seed: int) -> None:
            reader, writer = await rig.open_connection()
            data = noise(5000, seed)
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            await close(writer)

        await asyncio.gather(*(one(i) for i in range(1000)))
        server.close()
        await server.wait_closed()

    rig.play(run())


# ---- flow control --------------------------------------------------------------------------------------------------------------


def test_a_writer_is_paused_while_nobody_reads(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        theirs.transport.pause_reading()
        assert not theirs.transport.is_reading()
        transport, data = ours.transport, noise(100_000)
        assert transport.get_write_buffer_limits() == (16_384, 65_536)
        transport.set_write_buffer_limits(high=200_000)
        written = 0
        while "pause" not in ours.calls:
            transport.write(data)
            written += len(data)
            await asyncio.sleep(0.01)
        assert transport.get_write_buffer_size() > 200_000 and not theirs.data
        theirs.transport.resume_reading()
        while "resume" not in ours.calls:
            await asyncio.sleep(0.001)
        assert transport.get_write_buffer_size() <= 50_000
        await asyncio.sleep(0.1)
        assert theirs.data == data * (written // len(data)) and transport.get_write_buffer_size() == 0
        await end(server, ours, theirs)

    rig.play(run())


def test_what_nobody_reads_waits_at_the_sender(rig: Rig) -> None:
    total = 30_000_000

    async def run() -> None:
        reading = asyncio.Event()

        async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reading.wait()
            got = 0
            while data := await reader.read(100_000):
                got += len(data)
            writer.write(got.to_bytes(4, "big"))
            writer.close()

        server = await rig.start_server(later)
        reader, writer = await rig.open_connection()

        async def send() -> None:
            for _ in range(total // 100_000):
                writer.write(bytes(100_000))
                await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        await asyncio.sleep(1)
        assert not sending.done()
        reading.set()
        assert int.from_bytes(await reader.readexactly(4), "big") == total
        await sending
        await close(writer)
        server.close()
        await server.wait_closed()

    rig.play(run())


# ---- the end -------------------------------------------------------------------------------------------------------------------


def test_closing_delivers_what_was_written_before(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        ours.transport.write(noise(3_000_000))
        ours.transport.close()
        assert ours.transport.is_closing()
        ours.transport.write(b"too late")
        await ours.lost.wait()
        await theirs.lost.wait()
        assert theirs.data == noise(3_000_000)
        assert (ours.error, theirs.error) == (None, None)
        await end(server, ours, theirs)

    rig.play(run())


def test_a_half_closed_connection_carries_data_the_other_way(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig, Notes(keep_open=True), Notes(keep_open=True))
        assert ours.transport.can_write_eof()
        ours.transport.write(b"question")
        ours.transport.write_eof()
        with pytest.raises(RuntimeError, match=r"write\(\) after write_eof\(\)"):
            ours.transport.write(b"more")
        await theirs.ended.wait()
        assert theirs.data == b"question" and not theirs.transport.is_closing()
        theirs.transport.write(noise(500_000))
        await asyncio.sleep(0.2)
        assert ours.data == noise(500_000)
        theirs.transport.write_eof()
        await ours.ended.wait()
        await asyncio.sleep(0.1)
        assert "lost" not in ours.calls + theirs.calls, "it is for the application to close"
        await end(server, ours, theirs)
        assert (ours.error, theirs.error) == (None, None)

    rig.play(run())


def test_the_end_of_data_closes_a_connection_that_nobody_keeps_open(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        ours.transport.close()
        await theirs.lost.wait()
        assert theirs.calls == ["made", "eof", "lost"] and theirs.error is None
        await end(server, ours)

    rig.play(run())


def test_aborting_resets_the_connection(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        ours.transport.write(noise(10_000_000))
        ours.transport.abort()
        assert ours.transport.get_write_buffer_size() == 0
        await theirs.lost.wait()
        assert ours.error is None and isinstance(theirs.error, ConnectionResetError)
        theirs.transport.write(b"to nobody")
        theirs.transport.abort()
        await end(server, ours, theirs)

    rig.play(run())


def test_a_writer_whose_peer_is_gone_is_told_though_it_does_not_read(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        for note in (ours, theirs):
            note.transport.pause_reading()
        theirs.transport.write(noise(10_000_000))
        await asyncio.sleep(0.01)
        ours.transport.abort()
        await theirs.lost.wait()
        assert isinstance(theirs.error, ConnectionResetError)
        await end(server, ours, theirs)

    rig.play(run())


def test_what_came_before_a_reset_can_be_read(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        theirs.transport.pause_reading()
        ours.transport.write(b"last words")
        await asyncio.sleep(0.1)
        ours.transport.abort()
        await asyncio.sleep(0.1)
        assert "lost" not in theirs.calls
        theirs.transport.resume_reading()
        await theirs.lost.wait()
        assert theirs.data == b"last words" and isinstance(theirs.error, ConnectionResetError)
        await end(server, ours, theirs)

    rig.play(run())


def test_writing_to_a_connection_that_was_reset_loses_it(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        theirs.transport.pause_reading()
        ours.transport.write(b"unread")
        await asyncio.sleep(0.1)
        ours.transport.abort()
        await asyncio.sleep(0.1)
        theirs.transport.write(b"?")
        await theirs.lost.wait()
        assert isinstance(theirs.error, ConnectionResetError)
        await end(server, ours, theirs)

    rig.play(run())


@pytest.mark.parametrize("call", ["connection_made", "data_received", "eof_received"])
def test_a_protocol_that_fails_loses_its_connection_alone(rig: Rig, call: str) -> None:
    class Failing(Notes):
        pass

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    setattr(Failing, call, fail)

    async def run() -> None:
        problems: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        failing = Failing()
        server = await rig.create_server(lambda: failing)
        reader, writer = await rig.open_connection()
        writer.write(b"x")
        writer.write_eof()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await failing.lost.wait()
        assert isinstance(failing.error, ZeroDivisionError)
        assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError]
        with pytest.raises(ConnectionResetError):
            await close(writer)
        server.close()
        await server.wait_closed()
        loop.set_exception_handler(handler)

    rig.play(run())


def test_a_silent_peer_that_is_there_stays_connected(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        await ours.transport.keep_alive(idle=1, interval=1, count=3)
        await asyncio.sleep(20)
        theirs.transport.write(b"still here")
        await asyncio.sleep(0.1)
        assert ours.data == b"still here"
        await end(server, ours, theirs)
        with pytest.raises(OSError):
            await ours.transport.keep_alive()

    rig.play(run())


# ---- opening -------------------------------------------------------------------------------------------------------------------


def test_errors_of_connecting_are_asyncios(rig: Rig) -> None:
    async def run() -> None:
        with pytest.raises(ConnectionRefusedError):
            await rig.open_connection(81)
        with pytest.raises(OSError) as caught:
            await chamelio.open_connection("10.0.0.77", PORT, **rig.client)
        assert isinstance(caught.value, TimeoutError) or caught.value.errno == errno.EHOSTUNREACH
        for port, local in ((0, 0), (65536, 0), (80, 65536), (80, -1)):
            with pytest.raises(OSError, match="not both ports"):
                await rig.open_connection(port, local_port=local)

    rig.play(run())


def test_a_factory_that_fails_leaves_nothing_open(rig: Rig) -> None:
    def fail() -> asyncio.Protocol:
        raise ZeroDivisionError

    async def run() -> None:
        theirs = Notes()
        server = await rig.create_server(lambda: theirs)
        with pytest.raises(ZeroDivisionError):
            await rig.create_connection(fail)
        await theirs.lost.wait()
        assert isinstance(theirs.error, ConnectionResetError)
        server.close()
        await server.wait_closed()

    rig.play(run())


def test_attempts_that_are_given_up_leave_nothing_open(rig: Rig) -> None:
    async def run() -> None:
        notes: list[Notes] = []

        def note() -> Notes:
            notes.append(Notes())
            return notes[-1]

        server = await rig.create_server(note)
        for wait in (0, 1e-6, 20e-6, 30e-6, 40e-6, 60e-6, 1e-4):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(chamelio.open_connection("10.0.0.77", PORT, **rig.client), wait)
            attempt = asyncio.ensure_future(rig.open_connection())
            await asyncio.sleep(wait)
            if not attempt.cancel():
                (await attempt)[1].close()
        await asyncio.sleep(0.1)
        assert all(n.lost.is_set() for n in notes)
        server.close()
        await server.wait_closed()
        await asyncio.sleep(12)

    rig.play(run())


def test_a_local_port_can_be_chosen(rig: Rig) -> None:
    async def run() -> None:
        peers = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peers.append(writer.get_extra_info("peername")[1])
            await close(writer)

        server = await rig.start_server(connected)
        for port in range(5000, 5010):
            reader, writer = await rig.open_connection(local_port=port)
            assert writer.get_extra_info("sockname")[1] == port
            await reader.read()
            await close(writer)
        assert peers == list(range(5000, 5010))
        server.close()
        await server.wait_closed()

    rig.play(run())


def test_both_ends_know_their_addresses(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        ask = ours.transport.get_extra_info
        assert ask("peername") == (rig.address, PORT) == theirs.transport.get_extra_info("sockname")
        assert ask("sockname") == theirs.transport.get_extra_info("peername")
        assert ask("socket") is None and ask("sslcontext", 7) == 7
        assert ask("tcp_info")["generation"] == ours.transport.generation
        await end(server, ours, theirs)
        assert ask("tcp_info") is None

    rig.play(run())


def test_the_tenant_can_come_from_the_environment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.delenv("CHAMELIO_TENANT", raising=False)
        with pytest.raises(OSError, match="CHAMELIO_TENANT"):
            await chamelio.open_connection(rig.address, PORT)
        monkeypatch.setenv("CHAMELIO_TENANT", rig.client["tenant"])
        with pytest.raises(ConnectionRefusedError):
            await chamelio.open_connection(rig.address, PORT, run=rig.client["run"])

    rig.play(run())


def test_importing_the_package_loads_no_sockets() -> None:
    program = "import sys, chamelio; assert not {'numpy', 'asyncio', 'chamelio.sockets'} & set(sys.modules); chamelio.start_server"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert "start_server" in dir(chamelio)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        chamelio.nothing  # noqa: B018


# ---- servers -------------------------------------------------------------------------------------------------------------------


def test_a_server_serves_any_port_and_says_which(rig: Rig) -> None:
    async def run() -> None:
        async with await rig.start_server(echo, 0) as server:
            assert server.is_serving() and server.sockets[0].getsockname() == (rig.address, server.port)
            reader, writer = await rig.open_connection(server.port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            with pytest.raises(OSError, match="in use"):
                await rig.start_server(echo, server.port)
            await close(writer)
        assert not server.is_serving() and server.sockets == ()
        with pytest.raises(ConnectionRefusedError):
            await rig.open_connection(server.port)
        with pytest.raises(RuntimeError, match="is closed"):
            await server.start_serving()

    rig.play(run())


def test_a_server_is_at_the_tenants_address(rig: Rig) -> None:
    async def run() -> None:
        for host in (None, "", "0.0.0.0", rig.address):
            server = await chamelio.start_server(echo, host, PORT, **rig.server)
            server.close()
            await server.wait_closed()
            await asyncio.sleep(0.01)
        with pytest.raises(OSError, match=r"not 10\.0\.0\.77") as caught:
            await chamelio.start_server(echo, "10.0.0.77", PORT, **rig.server)
        assert caught.value.errno == errno.EADDRNOTAVAIL

    rig.play(run())


def test_a_server_serves_when_it_is_told_to_and_until_it_is_cancelled(rig: Rig) -> None:
    async def run() -> None:
        server = await rig.start_server(echo, start_serving=False)
        with pytest.raises(ConnectionRefusedError):
            await rig.open_connection()
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0.01)
        reader, writer = await rig.open_connection()
        with pytest.raises(RuntimeError, match="already"):
            await server.serve_forever()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        await close(writer)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()

    rig.play(run())


def test_connections_outlive_the_server_that_accepted_them(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0.05)
        theirs.transport.write(b"still here")
        await asyncio.sleep(0.05)
        assert ours.data == b"still here" and not waiting.done()
        server.close_clients()
        await waiting
        await end(server, ours)

    rig.play(run())


def test_files_are_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: Any, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    async def run() -> None:
        server, theirs, ours = await pair(rig)
        with tempfile.TemporaryFile() as file:
            file.write(noise(2_000_000))
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(loop, "run_in_executor", at_once)  # threads live in real time
            sent = await loop.sendfile(theirs.transport, file, 1000)
        assert sent == 1_999_000
        await asyncio.sleep(0.1)
        assert ours.data == noise(2_000_000)[1000:]
        await end(server, ours, theirs)

    rig.play(run())
