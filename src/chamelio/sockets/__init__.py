"""What applications use: asyncio's own interfaces here, and a small C library in `c/`."""

from __future__ import annotations

from chamelio.sockets.datagram import DatagramTransport, create_datagram_endpoint

__all__ = ["DatagramTransport", "create_datagram_endpoint"]
