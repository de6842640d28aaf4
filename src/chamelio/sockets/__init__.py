"""What applications use: asyncio's own interfaces here, and a small C library in `c/`."""

from __future__ import annotations

from chamelio.sockets.datagram import DatagramTransport, create_datagram_endpoint
from chamelio.sockets.stream import Server, create_connection, create_server, open_connection, start_server
from chamelio.sockets.stream_transport import StreamTransport

__all__ = [
    "DatagramTransport",
    "Server",
    "StreamTransport",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "open_connection",
    "start_server",
]
