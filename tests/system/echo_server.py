"""A tenant's application: an echo server on asyncio's interface. `echo_server.py TENANT PORT`."""

from __future__ import annotations

import asyncio
import sys

from chamelio.sockets import create_datagram_endpoint


class Echo(asyncio.DatagramProtocol):
    def __init__(self, gone: asyncio.Event) -> None:
        self.gone = gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()


async def main(tenant: str, port: int) -> None:
    gone = asyncio.Event()
    transport, _ = await create_datagram_endpoint(lambda: Echo(gone), local_addr=("0.0.0.0", port), tenant=tenant)
    print("serving", *transport.get_extra_info("sockname"), flush=True)
    await gone.wait()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
