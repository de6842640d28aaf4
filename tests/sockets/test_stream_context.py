"""What streams ask of the handlers, and what becomes of them when rings fill, buffers move, and agents and engines go."""

from __future__ import annotations

import asyncio
import errno
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tcp_rigs
from tcp_model import Model
from tcp_rigs import PORT, Rig
from test_stream import Notes, close, echo, end, noise, pair

import chamelio
from chamelio.sockets import stream_context, stream_transport
from chamelio.sockets.stream_context import ABORT, CLOSE, CONNECT, GROW, READ, SEND, SHUT, TRIES, Arena, Damaged
from chamelio.toolchain import PACKAGE

MIB = 1 << 20


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tcp_rigs.model() as one:
        yield one


def asked(rig: Rig, kind: int) -> list[tuple[int, ...]]:
    """The entries of a kind that the engine has taken."""
    assert isinstance(rig.place, Model)
    return [entry for entry in rig.place.entries if entry[0] == kind]


def test_constants_are_those_of_the_contract() -> None:
    header = (PACKAGE / "protocols" / "tcp" / "tcp.h").read_text()
    defined = {name: int(value) for name, value in re.findall(r"#define TCP_(\w+) (\d+)", header)}
    names = ("SEND", "READ", "SHUT", "CLOSE", "ABORT", "GROW", "CONNECT")
    names += ("CONNECTED", "ACCEPTED", "DATA", "FIN", "WRITABLE", "ENDED", "GROWN")
    assert {name: getattr(stream_context, name) for name in names} == {name: defined[name] for name in names}
    names = ("NOTIFY", "BUFFER", "BUFFER_MAX")
    assert {name: getattr(stream_transport, name) for name in names} == {name: defined[name] for name in names}
    for struct, fields in (("entry", stream_context.ENTRY), ("event", stream_context.EVENT)):
        body = re.search(rf"struct tcp_{struct} {{(.*?)}};", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL), re.DOTALL)
        assert body is not None
        assert tuple(re.findall(r"(\w+)[,;]", body.group(1))) == fields


# ---- entries -------------------------------------------------------------------------------------------------------------------


def test_what_is_written_in_one_turn_goes_together(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        for i in range(50):
            ours.transport.write(b"%d," % i)
        await asyncio.sleep(0.01)
        assert theirs.data == b"".join(b"%d," % i for i in range(50))
        assert len(asked(rig, SEND)) == 1
        ours.transport.write(b"last")
        ours.transport.write_eof()
        await asyncio.sleep(0.01)
        assert len(asked(rig, SEND)) == 1, "the FIN says where the bytes end"
        assert len(asked(rig, SHUT)) == 1
        await end(server, ours, theirs)

    rig.play(run())


def test_much_data_of_a_connection_is_given_to_it_at_once(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        ours.transport.write(noise(3 * MIB))
        await asyncio.sleep(0.1)
        assert len(theirs.data) == 3 * MIB
        pieces = theirs.calls.count("data")
        assert pieces < len(theirs.data) / 10_000, "20,000 bytes at most come in a step of the model, 10,000 on average"
        assert len(asked(rig, READ)) < 3 * MIB / 32768
        await end(server, ours, theirs)

    rig.play(run())


def test_send_buffers_grow_as_they_are_needed(rig: Rig) -> None:
    async def run() -> None:
        server, theirs, ours = await pair(rig)
        ours.transport.write(bytes(512))
        await asyncio.sleep(0.01)
        assert asked(rig, GROW) == []
        ours.transport.write(bytes(513))
        await asyncio.sleep(0.01)
        sizes = [entry[6] for entry in asked(rig, GROW)]
        assert sizes == [65536]
        for _ in range(100):
            ours.transport.write(bytes(1000))
            await asyncio.sleep(0.001)
        assert len(asked(rig, GROW)) == 1, "little at a time needs no more"
        ours.transport.write(bytes(30 * MIB))
        await asyncio.sleep(1)
        sizes = [entry[6] for entry in asked(rig, GROW)]
        assert sizes == [65536, 262144, MIB, 4 * MIB]
        assert len(theirs.data) == 512 + 513 + 100_000 + 30 * MIB
        await end(server, ours, theirs)

    rig.play(run())


def test_a_send_buffer_that_cannot_grow_is_used_as_it_is(rig: Rig) -> None:
    assert isinstance(rig.place, Model)
    pool = rig.place.tx[0]

    async def run() -> None:
        server, theirs, ours = await pair(rig)
        pool.refuse = True
        data = noise(200_000)
        ours.transport.write(data)
        while len(theirs.data) < len(data):
            await asyncio.sleep(0.01)
        assert theirs.data == data
        assert 1 <= len(asked(rig, GROW)) < 10, "it is not asked again all the time"
        pool.refuse = False
        await asyncio.sleep(stream_transport.NO_GROWTH_MAX_S)
        ours.transport.write(noise(MIB))
        await asyncio.sleep(0.1)
        assert len(theirs.data) == len(data) + MIB
        assert asked(rig, GROW)[-1][6] >= 65536 and pool.next > 65536
        await end(server, ours, theirs)

    rig.play(run())


def test_a_full_ring_delays_what_is_asked_and_loses_nothing(rig: Rig) -> None:
    model = rig.place
    assert isinstance(model, Model)
    slots = model.rings[0][1].slots

    async def run() -> None:
        server, theirs, ours = await pair(rig)
        model.stalled = True
        attempts = [asyncio.ensure_future(rig.open_connection(81)) for _ in range(slots + 500)]
        await asyncio.sleep(0.01)
        assert model.rings[0][1].ready == slots
        for _ in range(10):
            ours.transport.write(b"waits for room")
            await asyncio.sleep(0.001)
        ours.transport.close()
        await asyncio.sleep(0.1)
        assert not ours.lost.is_set(), "the engine does not have it yet"
        model.stalled = False
        assert {type(e) for e in await asyncio.gather(*attempts, return_exceptions=True)} == {ConnectionRefusedError}
        await theirs.lost.wait()
        assert theirs.data == b"waits for room" * 10
        await end(server, ours, theirs)
        assert Counter(entry[0] for entry in model.entries)[CONNECT] == slots + 501

    rig.play(run())


def test_numbers_of_connections_are_given_back(rig: Rig) -> None:
    async def run() -> None:
        server = await rig.start_server(echo)
        for abort in (False, True) * 5:
            _, writer = await rig.open_connection()
            writer.write(b"x")
            await writer.drain()
            if abort:
                writer.transport.abort()
            await close(writer)
        with pytest.raises(ConnectionRefusedError):
            await rig.open_connection(81)
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.1)
        assert isinstance(rig.place, Model) and rig.place.conns == {}
        given = Counter(entry[1:3] for entry in rig.place.entries if entry[0] in (CLOSE, ABORT))
        assert len(given) == 21 and set(given.values()) == {1}

    rig.play(run())


def test_connections_that_come_before_the_answer_to_listen_are_served(rig: Rig) -> None:
    """And those that come when nobody serves any more are reset."""
    model = rig.place
    assert isinstance(model, Model)

    async def run() -> None:
        keep = await rig.start_server(echo, 81)  # the context stays
        context = keep._context
        call = context.stack.call

        async def slow(verb: str, **arguments: Any) -> Any:
            answer = await call(verb, **arguments)
            await asyncio.sleep(0.1)
            return answer

        context.stack.call = slow
        serving = asyncio.ensure_future(rig.start_server(echo, 0))
        await asyncio.sleep(0.05)
        assert not serving.done()
        (port,) = set(model.listeners) - {81}
        reader, writer = await rig.open_connection(port)
        writer.write(b"early")
        await asyncio.sleep(0.01)
        server = await serving
        assert await reader.readexactly(5) == b"early"
        await close(writer)

        context.stack.call = slow
        listeners = dict(model.listeners)
        server.close()
        model.listeners.update(listeners)
        reader, writer = await rig.open_connection(port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        model.listeners.pop(port, None)
        with pytest.raises(ConnectionResetError):
            await close(writer)
        await server.wait_closed()
        keep.close()
        await keep.wait_closed()

    rig.play(run())


# ---- buffers that move -------------------------------------------------------------------------------------------------------


class Moving:
    """A table of places in which a buffer moves at certain looks."""

    def __init__(self, looks: dict[int, tuple[int, int]], whole: bytearray, data: bytes) -> None:
        self.looks, self.whole, self.data, self.count = looks, whole, data, 0
        self.place = (0, 64)

    def __getitem__(self, i: int) -> int:
        self.count += 1
        if self.count in self.looks:
            offset, size = self.place
            self.whole[offset : offset + size] = bytes(size)  # somebody else's now
            self.place = offset, size = self.looks[self.count]
            if size:
                self.whole[offset : offset + size] = self.data * (size // len(self.data))
        return self.place[i % 2]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_read_from_a_buffer_that_moves_is_what_was_in_it(seed: int) -> None:
    rng = random.Random(seed)
    whole, data = bytearray(4096), rng.randbytes(64)
    whole[:64] = data
    looks: dict[int, tuple[int, int]] = {}
    for look in sorted(rng.sample(range(1, 30), 6)):
        looks[look] = rng.choice([(0, 0), (1024, 64), (2048, 128), (512, 256)])
    looks[30] = (1024, 1024)
    arena = Arena.__new__(Arena)
    arena._bytes = memoryview(whole)
    pos = rng.randrange(64)
    expected = (data + data)[pos : pos + 40]
    arena._places = Moving(dict(looks), whole, data)  # type: ignore[assignment]
    assert arena.read(0, pos, 40) == expected
    whole[:64] = data
    arena._places = Moving(dict(looks), whole, data)  # type: ignore[assignment]
    target = bytearray(40)
    arena.read_into(0, pos, memoryview(target))
    assert target == expected


@pytest.mark.parametrize("place", [(0, 0), (0, 32), (4090, 64), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_a_place_that_cannot_be_is_an_error(place: tuple[int, int]) -> None:
    arena = Arena.__new__(Arena)
    arena._bytes = memoryview(bytearray(4096))
    arena._places = memoryview(bytearray(b"".join(n.to_bytes(4, "little") for n in place))).cast("I")
    with pytest.raises(Damaged):
        arena.read(0, 10, 40)
    with pytest.raises(Damaged):
        arena.read_into(0, 10, memoryview(bytearray(40)))
    assert not arena.write(0, 10, bytes(40))
    assert TRIES > 1


# ---- when others go ------------------------------------------------------------------------------------------------------------


async def three(rig: Rig) -> tuple[Any, Notes, Notes, asyncio.Future[Any]]:
    """A server, both ends of a connection to it, and an attempt at another one that hangs."""
    server, theirs, ours = await pair(rig)
    attempt = asyncio.ensure_future(chamelio.open_connection("10.0.0.77", PORT, **rig.client))
    await asyncio.sleep(0.001)
    return server, theirs, ours, attempt


async def everybody_is_told(server: Any, theirs: Notes, ours: Notes, attempt: asyncio.Future[Any], why: str) -> None:
    with pytest.raises(ConnectionResetError, match=why):
        await attempt
    for note in (theirs, ours):
        await note.lost.wait()
        assert isinstance(note.error, ConnectionResetError) and why in str(note.error)
        note.transport.write(b"to nobody")
        note.transport.close()
        note.transport.abort()
    assert not server.is_serving()
    await server.wait_closed()
    await asyncio.sleep(0.1)
    assert theirs.calls.count("lost") == ours.calls.count("lost") == 1


def test_when_the_engine_goes_everybody_is_told(rig: Rig) -> None:
    model = rig.place
    assert isinstance(model, Model)

    async def run() -> None:
        server, theirs, ours, attempt = await three(rig)
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0.001)
        model.kill_engine()
        await everybody_is_told(server, theirs, ours, attempt, "engine")
        with pytest.raises(ConnectionResetError):
            await serving

    model.play(run())


def test_when_a_ring_is_damaged_everybody_is_told(rig: Rig) -> None:
    model = rig.place
    assert isinstance(model, Model)

    async def outbound() -> None:
        parts = await three(rig)
        model.events[0][1].words[0] = 0x12345678
        parts[2].transport.write(b"x")
        model._ring(1)
        await everybody_is_told(*parts, "producer index")

    async def inbound() -> None:
        parts = await three(rig)
        model.rings[0][1].words[16] = 0x12345678
        model.stalled = True
        parts[2].transport.write(b"x")
        await everybody_is_told(*parts, "consumer index")

    model.play(outbound())
    for conn in list(model.conns.values()):
        conn.held = False
        model.reset(conn)
    model.play(inbound())


def test_when_the_agent_goes_for_good_everybody_is_told(rig: Rig) -> None:
    model = rig.place
    assert isinstance(model, Model)

    async def run() -> None:
        parts = await three(rig)
        await model.kill_agent()
        await everybody_is_told(*parts, "agent")

    model.play(run())


def test_connections_and_servers_outlive_an_agent_that_is_replaced(rig: Rig) -> None:
    model = rig.place
    assert isinstance(model, Model)

    async def run() -> None:
        server, theirs, ours = await pair(rig)
        await model.kill_agent()
        ours.transport.write(b"meanwhile")
        await asyncio.sleep(0.1)
        assert theirs.data == b"meanwhile"
        model.listeners.clear()
        model.resumed = True
        model.start()
        await asyncio.sleep(0.1)
        assert list(model.listeners) == [PORT]
        _, writer = await rig.open_connection()
        await close(writer)
        await end(server, ours, theirs)

    rig.play(run())


def test_a_new_agent_that_does_not_serve_a_port_ends_its_server(rig: Rig) -> None:
    model = rig.place
    assert isinstance(model, Model)

    async def run() -> None:
        server, theirs, ours = await pair(rig)
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0.001)
        await model.kill_agent()
        model.resumed = True
        model.start()
        model.agent.runtime.slow_path.services.ports = (1000, 2000)
        with pytest.raises(OSError) as caught:
            await serving
        assert caught.value.errno == errno.EACCES
        model.listeners.clear()
        await end(server, ours, theirs)

    rig.play(run())


# ---- everything at once --------------------------------------------------------------------------------------------------------


class Chaos(Notes):
    """Does what comes to mind, and checks that it is called in an order that asyncio allows."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(keep_open=rng.random() < 0.5)
        self.rng = rng

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert not self.calls
        super().connection_made(transport)
        self.act()

    def data_received(self, data: bytes) -> None:
        assert data and self.transport.is_reading() and not {"eof", "lost"} & set(self.calls)
        super().data_received(data)
        self.act()

    def eof_received(self) -> bool:
        assert self.transport.is_reading() and not {"eof", "lost"} & set(self.calls)
        return super().eof_received()

    def resume_writing(self) -> None:
        assert "lost" not in self.calls
        super().resume_writing()
        self.act()

    def connection_lost(self, exc: Exception | None) -> None:
        assert "lost" not in self.calls
        assert exc is None or isinstance(exc, ConnectionResetError)
        super().connection_lost(exc)

    def act(self) -> None:
        rng, transport = self.rng, self.transport
        for _ in range(rng.randrange(3)):
            what = rng.randrange(40)
            if what < 10 and not transport.is_closing() and not transport._eof:
                transport.write(bytes(int(rng.paretovariate(0.4)) % 300_000))
            elif what < 14:
                transport.pause_reading()
            elif what < 20:
                transport.resume_reading()
            elif what == 20:
                transport.write_eof()
            elif what == 21:
                transport.close()
            elif what == 22:
                transport.abort()


@pytest.mark.parametrize("where", ["model", "handlers", "handlers and a bad wire"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_applications_do_each_call_comes_in_order(seed: int, where: str) -> None:
    rng = random.Random(seed)

    async def run(rig: Rig) -> None:
        everybody: list[Chaos] = []

        def make() -> Chaos:
            everybody.append(Chaos(rng))
            return everybody[-1]

        server = await rig.create_server(make)
        await asyncio.gather(*(rig.create_connection(make) for _ in range(60)))
        for _ in range(300):
            for one in everybody:
                if "lost" not in one.calls and one.transport is not None:
                    one.act()
            await asyncio.sleep(rng.expovariate(10_000))
        for one in everybody:
            one.transport.close()
        await asyncio.sleep(0.2)
        server.abort_clients()
        for one in everybody:
            one.transport.abort()
        server.close()
        await server.wait_closed()
        # Of a connection that is aborted at once the server may never hear when the wire is bad.
        assert len(everybody) == 120 or ("bad" in where and len(everybody) > 110)
        for one in everybody:
            assert one.calls.count("lost") == 1

    bad = {"fault": f"loss=2%,dup=2%,reorder=5%,delay=50us..200us,seed={seed + 1}"} if "bad" in where else {}
    with (tcp_rigs.model if where == "model" else tcp_rigs.world)(cores=1 + seed % 3, seed=seed, **bad) as rig:
        rig.play(run(rig))


def test_nothing_names_the_model_in_the_product() -> None:
    for path in Path(stream_context.__file__).parent.glob("stream*.py"):
        assert "model" not in path.read_text()
