"""Attaching to the host: a connection to chameliod that is the agent's life, and what it hands out."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from chamelio.jit.layout import Layout
from chamelio.messages import AsyncChannel, Refusal, close_all, connect, default_run, result_of


class Attachment:
    """What a tenant's agent holds: the instance's layout, region and doorbells, and the connection it lives by."""

    def __init__(self, channel: AsyncChannel, token: str | None, about: dict[str, Any], fds: list[int]) -> None:
        self.channel, self._token = channel, token
        self.about = about
        self.instance: int = about["instance"]
        self.address: str = about["address"]
        self.origin: int = about["origin"]
        self.resumed: bool = about["resumed"]
        self.directory = Path(about["directory"])
        self.layout = msgspec.convert(about["layout"], Layout)
        if len(fds) != 1 + self.layout.contexts:
            close_all(fds)
            raise Refusal("failed", f"{len(fds)} descriptors came with the attachment, not {1 + self.layout.contexts}")
        self.region_fd, *self.bells = fds

    async def call(self, verb: str, **arguments: Any) -> Any:
        """One request to chameliod on our connection. Raises Refusal."""
        if self._token is not None:
            arguments["token"] = self._token
        await self.channel.send({"verb": verb, **arguments})
        result, fds = result_of(await self.channel.receive(), "chameliod")
        close_all(fds)
        return result

    def close(self) -> None:
        """Hang up: the grace time begins."""
        self.channel.close()
        close_all([self.region_fd, *self.bells])


def read_token(run: Path | None, tenant: str) -> str | None:
    """The tenant's token, if this user may read its file."""
    try:
        return ((run or default_run()) / "tenants" / tenant / "token").read_text().strip()
    except OSError:
        return None


async def attach(tenant: str, protocol: str, *, run: Path | None = None) -> Attachment:
    """Attach to a tenant's protocol, with its token where that can be read. Raises Refusal."""
    with connect(run) as blocking:
        sock = socket.socket(fileno=os.dup(blocking.sock.fileno()))
    channel = AsyncChannel(sock, max_fds=64, limit=1 << 22)
    token = read_token(run, tenant)
    proof = {"token": token} if token is not None else {}
    try:
        await channel.send({"verb": "attach", "tenant": tenant, "protocol": protocol, **proof})
        about, fds = result_of(await channel.receive(), "chameliod")
        return Attachment(channel, token, about, fds)
    except BaseException:
        channel.close()
        raise
