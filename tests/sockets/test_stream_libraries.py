"""Libraries that are built on asyncio's streams, protocols and transports run unmodified."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
import h11
import pytest
import tcp_rigs
from aiohttp import web
from tcp_rigs import PORT, Rig
from test_stream import Notes, close, echo, end, noise, pair

import chamelio

BODY = noise(3_000_000)


@pytest.fixture(params=["model", "handlers"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with (tcp_rigs.model if request.param == "model" else tcp_rigs.world)() as one:
        yield one


# ---- h11 -----------------------------------------------------------------------------------------------------------------------


async def next_event(http: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(65536))
    return event


async def read_body(http: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while isinstance(event := await next_event(http, reader), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return bytes(body)


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What was sent comes back, in chunks; a connection carries many requests."""
    http = h11.Connection(h11.SERVER)
    while isinstance(request := await next_event(http, reader), h11.Request):
        body = await read_body(http, reader)
        headers = [("x-target", request.target), ("transfer-encoding", "chunked")]
        writer.write(http.send(h11.Response(status_code=200, headers=headers)) or b"")
        for at in range(0, len(body), 100_000):
            writer.write(http.send(h11.Data(body[at : at + 100_000])) or b"")
            await writer.drain()
        writer.write(http.send(h11.EndOfMessage()) or b"")
        http.start_next_cycle()
    await close(writer)


def test_h11_serves_and_asks(rig: Rig) -> None:
    async def run() -> None:
        server = await rig.start_server(serve_http)
        reader, writer = await rig.open_connection()
        http = h11.Connection(h11.CLIENT)
        for body in (b"", b"x", BODY, noise(70_000)):
            headers = [("host", "red"), ("content-length", str(len(body)))]
            writer.write(http.send(h11.Request(method="POST", target=f"/{len(body)}", headers=headers)) or b"")
            writer.write(http.send(h11.Data(body)) or b"")
            writer.write(http.send(h11.EndOfMessage()) or b"")
            response = await next_event(http, reader)
            assert response.status_code == 200 and (b"x-target", b"/%d" % len(body)) in list(response.headers)
            assert await read_body(http, reader) == body
            http.start_next_cycle()
        await close(writer)
        server.close()
        await server.wait_closed()

    rig.play(run())


# ---- aiohttp -------------------------------------------------------------------------------------------------------------------


class Connector(aiohttp.BaseConnector):
    """aiohttp's own way to other transports than sockets."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        super().__init__(**options)
        self._rig = rig

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        _, protocol = await chamelio.create_connection(self._factory, req.url.raw_host, req.url.port, **self._rig.client)
        return protocol


async def mirror(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"x-path": request.path})
    await response.prepare(request)
    async for piece in request.content.iter_chunked(10_000):
        await response.write(piece)
    return response


async def talk(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_bytes(message.data[::-1])
    return socket


def test_aiohttp_serves_and_asks(rig: Rig) -> None:
    async def run() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.post("/mirror/{n}", mirror), web.get("/talk", talk)])
        runner = web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        server = await rig.create_server(runner.server)
        base = f"http://{rig.address}:{PORT}"
        async with aiohttp.ClientSession(connector=Connector(rig, limit=20)) as session:

            async def ask(n: int) -> None:
                async with session.post(f"{base}/mirror/{n}", data=BODY[n:]) as response:
                    assert response.status == 200 and response.headers["x-path"] == f"/mirror/{n}"
                    assert await response.read() == BODY[n:]

            await asyncio.gather(*(ask(n) for n in range(0, len(BODY), 100_000)))
            async with session.get(f"{base}/nothing") as response:
                assert response.status == 404
            async with session.ws_connect(f"{base}/talk") as socket:
                for data in (b"abc", BODY):
                    await socket.send_bytes(data)
                    assert await socket.receive_bytes() == data[::-1]
        server.close()
        await runner.cleanup()
        await server.wait_closed()

    rig.play(run())


# ---- TLS -----------------------------------------------------------------------------------------------------------------------


def tls(server: bool) -> ssl.SSLContext:
    """A context that needs no certificates: nobody here is authenticated."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    except ssl.SSLError:
        pytest.skip("this OpenSSL has no TLS without certificates")
    return context


def test_streams_over_tls(rig: Rig) -> None:
    async def run() -> None:
        server = await rig.start_server(echo, ssl=tls(True))
        reader, writer = await rig.open_connection(ssl=tls(False))
        assert writer.get_extra_info("cipher")[0].startswith("AECDH") and writer.get_extra_info("peername") == (rig.address, PORT)

        async def send() -> None:
            for at in range(0, len(BODY), 50_000):
                writer.write(BODY[at : at + 50_000])
                await writer.drain()

        sending = asyncio.ensure_future(send())
        assert await reader.readexactly(len(BODY)) == BODY
        await sending
        await close(writer)
        server.close()
        await server.wait_closed()

    rig.play(run())


def test_a_connection_can_be_made_a_tls_connection(rig: Rig) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server, theirs, ours = await pair(rig)
        ours.transport.write(b"STARTTLS")
        await asyncio.sleep(0.01)
        assert theirs.data == b"STARTTLS"
        both = await asyncio.gather(
            loop.start_tls(theirs.transport, theirs, tls(True), server_side=True),
            loop.start_tls(ours.transport, ours, tls(False)),
        )
        theirs.transport, ours.transport = both
        ours.transport.write(BODY)
        theirs.transport.write(BODY)
        await asyncio.sleep(0.5)
        assert theirs.data == b"STARTTLS" + BODY and ours.data == BODY
        await end(server, ours, theirs)

    rig.play(run())


def test_a_server_that_wants_tls_refuses_what_is_none(rig: Rig) -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        theirs = Notes()
        server = await rig.create_server(lambda: theirs, ssl=tls(True))
        reader, writer = await rig.open_connection()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert theirs.calls == []
        with pytest.raises(ConnectionResetError):
            await close(writer)
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await rig.open_connection(ssl=tls(False))

    rig.play(run())
