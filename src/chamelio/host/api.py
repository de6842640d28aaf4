"""The API socket: who may connect, how long and how much, and from a frame to its reply.

Whoever connects is known by the kernel's word (SO_PEERCRED). The daemon's own user and root are the provider, unless
they show a tenant's token, with which they are that tenant. Another user is the tenants that were added with its uid,
or shows a token. The provider's own token, `$RUN/provider.token`, makes anybody the provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from chamelio.host.state import unknown
from chamelio.host.verbs import VERBS, Caller, OfTenant, Result, Verb
from chamelio.messages import AsyncChannel, Credentials, Frame, Refusal, close_all, credentials, decode, encode

if TYPE_CHECKING:
    from chamelio.host.daemon import Daemon

MAX_TAKEN = 4  # descriptors that we let the kernel install for one frame; the rest never become ours
ACCEPT_PAUSE_SECONDS = 0.1  # when we are out of descriptors

log = logging.getLogger("chameliod.api")


class Connection:
    """One client."""

    def __init__(self, channel: AsyncChannel, who: Credentials) -> None:
        self.channel, self.who = channel, who

    def hang_up(self) -> None:
        """End it; whoever waits for a request finds that there will be none."""
        self.channel.close()


class Api:
    """Accepts connections and answers requests."""

    def __init__(self, daemon: Daemon, provider_token: str) -> None:
        self._daemon, self._provider_token = daemon, provider_token
        self._limits = daemon.state.limits
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._by_uid: Counter[int] = Counter()
        self._accepting: asyncio.Task[None] | None = None
        self.refused = 0

    def start(self, listener: socket.socket) -> None:
        """Accept from now on."""
        self._accepting = asyncio.create_task(self._accept(listener))

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("a connection could not be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            try:
                who = credentials(sock)
            except OSError:
                sock.close()
                continue
            reason = self._too_many(who)
            if reason is not None:
                self.refused += 1
                self._turn_away(sock, reason)
                continue
            limits = self._limits
            channel = AsyncChannel(sock, limit=limits.message_bytes, max_fds=MAX_TAKEN, frame_seconds=limits.frame_seconds)
            connection = Connection(channel, who)
            self._by_uid[who.uid] += 1
            task = asyncio.create_task(self._serve(connection))
            self._connections[connection] = task

    def _too_many(self, who: Credentials) -> Refusal | None:
        limits = self._limits
        remedy = "close connections that are not needed"
        if len(self._connections) >= limits.connections:
            return Refusal("quota", f"the daemon has {limits.connections} connections, all that it takes", remedy)
        if who.uid != os.getuid() and self._by_uid[who.uid] >= limits.connections_per_uid:
            return Refusal("quota", f"user {who.uid} has {limits.connections_per_uid} connections, all that one may", remedy)
        return None

    @staticmethod
    def _turn_away(sock: socket.socket, reason: Refusal) -> None:
        """Say why, if that takes no time, and hang up."""
        with sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.send(encode({"error": reason.describe()}), socket.MSG_NOSIGNAL)

    async def _serve(self, connection: Connection) -> None:
        channel, agents = connection.channel, self._daemon.agents
        try:
            while True:
                served = bool(agents.served_by(connection))
                frame = await channel.receive(None if served else self._limits.idle_seconds)
                if frame is None:
                    return
                reply, fds = await self.answer(connection, frame)
                try:
                    await channel.send(reply, fds)
                finally:
                    close_all(fds)
        except Refusal as error:  # the stream cannot be followed any more: say so, hang up
            with contextlib.suppress(OSError):
                await channel.send({"error": error.describe()})
        except OSError:  # gone, silent for too long, or it does not take its replies
            pass
        except asyncio.CancelledError:
            pass
        finally:
            channel.close()
            del self._connections[connection]
            self._by_uid[connection.who.uid] -= 1
            if not self._by_uid[connection.who.uid]:
                del self._by_uid[connection.who.uid]
            self._daemon.migrations.lost(connection)
            agents.lost(connection)

    async def answer(self, connection: Connection, frame: Frame) -> tuple[dict[str, Any], list[int]]:
        """The reply to a request and its descriptors, to be closed after sending. The request's are closed here."""
        try:
            verb, arguments, caller = self._understand(connection, frame)
            result = await verb.run(self._daemon, arguments, caller, frame.fds)
        except Refusal as error:
            return {"error": error.describe()}, []
        except Exception as error:
            log.exception("a request failed")
            refusal = Refusal("internal", f"the daemon failed: {type(error).__name__}: {error}", "its log has more")
            return {"error": refusal.describe()}, []
        finally:
            close_all(frame.fds)
        if isinstance(result, Result):
            return {"ok": result.value}, result.fds
        return {"ok": result}, []

    def _understand(self, connection: Connection, frame: Frame) -> tuple[Verb, Any, Caller]:
        """The verb, its arguments and who asks. Raises Refusal."""
        if frame.truncated:
            raise Refusal("usage", f"more than {MAX_TAKEN} descriptors came with one message", "send those that the verb takes")
        request = decode(frame.payload)
        name, token = request.pop("verb", None), request.pop("token", None)
        if not isinstance(name, str):
            raise Refusal("usage", "the request names no verb", 'send {"verb": ..., ...}')
        caller = self._recognise(connection, token)
        verb = VERBS.get(name)
        if verb is None:
            error = unknown("verb", name[:60], VERBS)
            raise Refusal("usage", error.message, error.remedy)
        if verb.who == "provider" and not caller.provider:
            raise Refusal("denied", f"{name} is for the provider only", "ask whoever runs this host")
        try:
            arguments = msgspec.convert(request, verb.arguments)
        except (msgspec.ValidationError, RecursionError) as error:
            raise Refusal("usage", f"{name}: {error}", f"arguments are {', '.join(verb.arguments.__struct_fields__)}") from None
        if len(frame.fds) != verb.fds:
            raise Refusal("usage", f"{name} takes {verb.fds} descriptors, {len(frame.fds)} came")
        if isinstance(arguments, OfTenant) and not caller.may(arguments.tenant):
            raise Refusal("denied", f"you are not tenant {arguments.tenant[:40]!r}", "show its token, or be its user")
        return verb, arguments, caller

    def _recognise(self, connection: Connection, token: Any) -> Caller:
        who = connection.who
        if token is None:
            provider = who.uid in (0, os.getuid())
            tenants = [t.name for t in self._daemon.tenants.of_user(who)]
            return Caller(who, provider, tenants, connection)
        if not isinstance(token, str):
            raise Refusal("usage", "the token is no text")
        if hmac.compare_digest(token.encode("utf-8", "replace"), self._provider_token.encode()):
            return Caller(who, True, [], connection)
        tenant = self._daemon.tenants.by_token(token)
        if tenant is None:
            raise Refusal("denied", "nobody has this token", "it is in the tenant's directory, in the file `token`")
        return Caller(who, False, [tenant.name], connection)

    async def stop(self) -> None:
        """Accept nothing more, end all connections."""
        tasks = [self._accepting] if self._accepting else []
        tasks += self._connections.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
