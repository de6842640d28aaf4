"""HTTP libraries, unmodified, serve 100 MB by `chamelio.start_server` and `create_server`; curl and http.client fetch it."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
from aiohttp import web

import chamelio
from system.tcp_rig import LIMIT, OURS, TENANT, Line, Linux, close, digest, pieces, serving

pytestmark = pytest.mark.root

LENGTH = 100_000_000
PIECE = 1 << 18


def body() -> Any:
    """The answer, in parts."""
    for part in pieces(LENGTH):
        for at in range(0, len(part), PIECE):
            yield bytes(part[at : at + PIECE])


@asynccontextmanager
async def by_h11(line: Line) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = h11.Connection(h11.SERVER)
        while True:
            while (event := conversation.next_event()) is h11.NEED_DATA:
                conversation.receive_data(await reader.read(LIMIT))
            if not isinstance(event, h11.Request):
                break
            while not isinstance(conversation.next_event(), h11.EndOfMessage):
                conversation.receive_data(await reader.read(LIMIT))
            headers = [("content-length", str(LENGTH))]
            writer.write(conversation.send(h11.Response(status_code=200, headers=headers)) or b"")
            for part in body():
                writer.write(conversation.send(h11.Data(part)) or b"")
                await writer.drain()
            writer.write(conversation.send(h11.EndOfMessage()) or b"")
            conversation.start_next_cycle()
        await close(writer)

    async with serving(line.ours, serve) as port:
        yield port


@asynccontextmanager
async def by_aiohttp(line: Line) -> AsyncIterator[int]:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(LENGTH)})
        await response.prepare(request)
        for part in body():
            await response.write(part)
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    assert runner.server is not None
    server = await chamelio.create_server(runner.server, tenant=TENANT, run=line.stage.run)
    try:
        yield server.port
    finally:
        server.close()
        await runner.cleanup()


def by_curl(linux: Linux, port: int) -> tuple[int, str]:
    got, length = hashlib.sha256(), 0
    child = linux.where.popen("curl", "-s", "-S", "--fail", f"http://{OURS}:{port}/", stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child:
        while data := child.stdout.read(LIMIT):
            length += len(data)
            got.update(data)
    assert child.returncode == 0
    return length, got.hexdigest()


def by_http_client(linux: Linux, port: int) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        connection = http.client.HTTPConnection(OURS, port, timeout=30)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200
        got, length = hashlib.sha256(), 0
        while data := response.read(LIMIT):
            length += len(data)
            got.update(data)
        connection.close()
        return length, got.hexdigest()

    return linux.where.call(fetch)


SERVERS = {"h11": by_h11, "aiohttp": by_aiohttp}
CLIENTS = {"curl": by_curl, "http.client": by_http_client}


async def fetched(line: Line, server: Any, client: Callable[[Linux, int], tuple[int, str]]) -> None:
    async with server(line) as port:
        assert await asyncio.to_thread(client, line.linux, port) == (LENGTH, digest(LENGTH))


def need(client: str) -> None:
    if client == "curl" and not shutil.which("curl"):
        pytest.skip("there is no curl")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_hundred_megabytes(line: Line, server: str, client: str) -> None:
    need(client)
    asyncio.run(fetched(line, SERVERS[server], CLIENTS[client]))


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("aiohttp", "curl"),
        ("h11", "http.client"),
        pytest.param("aiohttp", "http.client", marks=pytest.mark.long),
        pytest.param("h11", "curl", marks=pytest.mark.long),
    ],
)
def test_a_hundred_megabytes_through_loss_and_reordering(lossy: Line, server: str, client: str) -> None:
    need(client)
    before = lossy.linux.counted("TCPOFOQueue")
    asyncio.run(fetched(lossy, SERVERS[server], CLIENTS[client]))
    assert lossy.linux.counted("TCPOFOQueue") > before + 100, "segments came out of order"
