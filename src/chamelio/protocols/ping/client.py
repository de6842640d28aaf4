"""What applications use of ping: `await client.ping(address)`."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

from chamelio.sockets.stack import Stack
from chamelio.tenant.rings import Entries


def _number(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, "little")


class Client:
    """An application of a tenant that runs ping."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._requests = stack.region.producer("requests", stack.context)
        self._waiting: dict[int, asyncio.Future[float]] = {}
        self._sequence = 0
        stack.on_entries = self._replied
        stack.listen("replies")

    @classmethod
    async def connect(cls, tenant: str, run: Path | None = None) -> Client:
        """Connect to the tenant's agent. Raises OSError."""
        return cls(await Stack.connect(tenant, "ping", run))

    async def ping(self, address: str, timeout: float = 1.0) -> float:
        """Seconds to there and back. Raises TimeoutError."""
        self._sequence += 1
        answer = self._waiting[self._sequence] = asyncio.get_running_loop().create_future()
        try:
            self._requests.put((_number(self._stack.address), _number(address), self._sequence, 0))
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            self._waiting.pop(self._sequence, None)

    async def totals(self) -> dict[str, int]:
        """What this tenant's handlers have counted."""
        return dict(await self._stack.call("totals"))

    async def mute(self, on: bool = True) -> None:
        """Let this tenant not answer, or answer again."""
        await self._stack.call("mute", on=on)

    def close(self) -> None:
        """Disconnect."""
        self._stack.close()

    def _replied(self, entries: Entries) -> None:
        for _, sequence, took in entries.tolist():
            waiter = self._waiting.get(sequence)
            if waiter is not None and not waiter.done():
                waiter.set_result(took / 1e9)
