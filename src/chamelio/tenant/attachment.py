"""Attaching to the host: a connection to chameliod that is the agent's life, and what it hands out.

When chameliod dies, the engine and with it the instance live on: `keep` attaches to its successor. When the engine dies, or the
protocol is removed, the instance is gone for good.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from chamelio.jit.layout import Layout
from chamelio.messages import AsyncChannel, Frame, Refusal, close_all, connect, default_run, memfd, result_of
from chamelio.tenant.migration import Migration, prepare

REATTACH_S = 0.1  # between attempts to find a successor of a chameliod that has gone
TRANSIENT = ("no_daemon", "engine_down", "engine", "gone", "timeout")  # refusals that pass by themselves


class Attachment:
    """What a tenant's agent holds: the instance's layout, region and doorbells, and the connection it lives by."""

    def __init__(self, channel: AsyncChannel, run: Path | None, token: str | None, about: dict[str, Any], fds: list[int]) -> None:
        self.run, self._token = run, token
        self.about = about
        self.tenant: str = about["tenant"]
        self.protocol: str = about["protocol"]
        self.instance: int = about["instance"]
        self.address: str = about["address"]
        self.origin: int = about["origin"]
        self.resumed: bool = about["resumed"]
        self.directory = Path(about["directory"])
        self.layout = msgspec.convert(about["layout"], Layout)
        self.region_fd, *bells = fds
        self.bells, self.wake = bells[: self.layout.contexts], bells[self.layout.contexts :]
        if not self.wake:
            close_all(fds)
            raise Refusal("failed", f"{len(fds)} descriptors came with the attachment, too few for {self.layout.contexts} contexts")
        self._listen(channel)

    def _listen(self, channel: AsyncChannel) -> None:
        self.channel = channel
        self._replies: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._reader = asyncio.create_task(self._read(channel, self._replies, self._lost))

    @staticmethod
    async def _read(channel: AsyncChannel, replies: asyncio.Queue[Frame | None], lost: asyncio.Event) -> None:
        """Replies as they come: who reads all the time notices at once when the other side goes."""
        try:
            while (frame := await channel.receive()) is not None:
                replies.put_nowait(frame)
        except (Refusal, OSError):
            pass
        lost.set()
        replies.put_nowait(None)

    async def call(self, verb: str, **arguments: Any) -> Any:
        """One request to chameliod on our connection, one at a time. Raises Refusal, OSError."""
        if self._lost.is_set():
            raise Refusal("no_daemon", "chameliod has gone", "it can be started again while the engine runs on")
        if self._token is not None:
            arguments["token"] = self._token
        await self.channel.send({"verb": verb, **arguments})
        result, fds = result_of(await self._replies.get(), "chameliod")
        close_all(fds)
        return result

    async def keep(self, on_return: Callable[[list[int]], Awaitable[None]]) -> None:
        """Stay attached, also to chameliod's successors, for as long as the instance is ours.

        `on_return` is awaited with the application contexts that the successor believes to be open. Raises Refusal when the
        protocol is not ours any more.
        """
        while True:
            await self._lost.wait()
            self.channel.close()
            try:
                channel, about, fds = await _attach(self.tenant, self.protocol, self.run, self._token, resume=True)
            except Refusal as refusal:
                if refusal.code not in TRANSIENT:
                    raise
                await asyncio.sleep(REATTACH_S)
                continue
            same = bool(fds) and os.path.sameopenfile(fds[0], self.region_fd)
            close_all(fds)
            if not same:
                channel.close()
                return
            self._listen(channel)
            await on_return(about["contexts"])

    @property
    def proof(self) -> dict[str, Any]:
        """Arguments of a request about this protocol on another connection: whose it is, and the token."""
        about = {"tenant": self.tenant, "protocol": self.protocol}
        return {**about, "token": self._token} if self._token is not None else about

    def close(self) -> None:
        """Hang up: the grace time begins."""
        self._reader.cancel()
        self.channel.close()
        close_all([self.region_fd, *self.bells, *self.wake])


def read_token(run: Path | None, tenant: str) -> str | None:
    """The tenant's token, if this user may read its file."""
    try:
        return ((run or default_run()) / "tenants" / tenant / "token").read_text().strip()
    except OSError:
        return None


async def _attach(
    tenant: str, protocol: str, run: Path | None, token: str | None, *, resume: bool
) -> tuple[AsyncChannel, dict[str, Any], list[int]]:
    return await _ask(run, {"verb": "attach", "tenant": tenant, "protocol": protocol, "resume": resume}, token)


async def _ask(
    run: Path | None, request: dict[str, Any], token: str | None, fds: Sequence[int] = ()
) -> tuple[AsyncChannel, dict[str, Any], list[int]]:
    """The first request on a new connection to chameliod: the connection, the result and its descriptors. Raises Refusal."""
    with connect(run) as blocking:
        sock = socket.socket(fileno=os.dup(blocking.sock.fileno()))
    channel = AsyncChannel(sock, max_fds=64, limit=1 << 22)
    proof = {"token": token} if token is not None else {}
    try:
        await channel.send({**request, **proof}, fds)
        about, received = result_of(await channel.receive(), "chameliod")
    except OSError as error:
        channel.close()
        raise Refusal("gone", f"chameliod has gone: {error}", "try again") from None
    except BaseException:
        channel.close()
        raise
    return channel, about, received


async def migrate(
    tenant: str, name: str, content: bytes, convert: Callable[[Migration], None], *, run: Path | None = None
) -> Attachment:
    """Let a version with other maps take the place of the running one: `convert` fills its maps. Raises Refusal.

    Whatever `convert` raises, the old version runs on.
    """
    token = read_token(run, tenant)
    about = {"tenant": tenant, "protocol": name}
    fd = memfd("chamelio-object", content)
    try:
        channel, begun, fds = await _ask(run, {"verb": "migration.begin", **about}, token, [fd])
    finally:
        os.close(fd)
    try:
        migration = prepare(begun, fds, content)
        close_all([fds.pop()])
        attachment = Attachment(channel, run, token, begun, fds)
        convert(migration)
        migration.settle()
        await attachment.call("migration.commit", **about)
    except BaseException:
        channel.close()  # which gives the migration up
        raise
    return attachment


async def attach(tenant: str, protocol: str, *, run: Path | None = None) -> Attachment:
    """Attach to a tenant's protocol, with its token where that can be read. Raises Refusal."""
    token = read_token(run, tenant)
    channel, about, fds = await _attach(tenant, protocol, run, token, resume=False)
    try:
        return Attachment(channel, run, token, about, fds)
    except BaseException:
        channel.close()
        raise
