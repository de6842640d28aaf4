"""Agents: the connection that attached to an instance is the agent's life; when it ends, a grace time begins.

Within the grace time the instance goes on as it is (rings, maps, applications' contexts), and a new `attach` resumes
it. After it the instance is taken out of the engine with everything that it holds.
"""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Awaitable, Callable

Key = tuple[str, str]  # tenant, protocol
MAX_TRACE = 8000  # characters of a traceback that are kept


class Connection(typing.Protocol):
    """What agents live by."""

    def hang_up(self) -> None:
        """End the connection from our side."""


class Agent:
    """One attachment: which process serves a protocol, by which connection."""

    def __init__(self, key: Key, instance: int, pid: int, connection: Connection) -> None:
        self.key, self.instance, self.pid, self.connection = key, instance, pid, connection


class Report(typing.NamedTuple):
    """What an agent says of its slow path: exceptions, and events and packets that found no room; where it hangs, if it does.

    `when`, `hung_since`: on the clock of time.monotonic.
    """

    when: float
    errors: int
    dropped: int
    traceback: str
    hung_since: float | None
    stack: str

    def describe(self, now: float) -> dict[str, typing.Any]:
        """What may be shown: the tenant's own words, without anything that a terminal would obey."""
        hung = self.hung_since is not None
        return {
            "state": "hung" if hung else "failing" if self.errors else "losing" if self.dropped else "ok",
            "errors": self.errors,
            "dropped": self.dropped,
            "hung_s": round(now - self.hung_since, 1) if self.hung_since is not None else None,
            "traceback": printable(self.stack if hung else self.traceback),
        }


def printable(text: str) -> str:
    """Text of a tenant's without control characters, the newest part of it."""
    return "".join(c for c in text[-MAX_TRACE:] if c == "\n" or c.isprintable())


class Agents:
    """All attachments and grace times. `reclaim(key)` is awaited when a grace time is over."""

    def __init__(self, grace_seconds: float, reclaim: Callable[[Key], Awaitable[None]]) -> None:
        self.grace_seconds = grace_seconds
        self._reclaim = reclaim
        self._agents: dict[Key, Agent] = {}
        self._graces: dict[Key, asyncio.Task[None]] = {}
        self._reports: dict[Key, Report] = {}

    def reported(self, key: Key, report: Report) -> None:
        """An agent has said how its slow path is."""
        self._reports[key] = report

    def report(self, key: Key) -> Report | None:
        """What the last agent of a protocol has said last; None: nothing worth a report has happened."""
        return self._reports.get(key)

    def of(self, key: Key) -> Agent | None:
        """Who serves a protocol now."""
        return self._agents.get(key)

    def served_by(self, connection: Connection) -> list[Agent]:
        """What lives by a connection."""
        return [a for a in self._agents.values() if a.connection is connection]

    def in_grace(self, key: Key) -> bool:
        """Whether a protocol's agent is gone and may still come back."""
        return key in self._graces

    def attached(self, agent: Agent) -> None:
        """From now on this agent serves its protocol; a grace time ends."""
        self.forget(agent.key)
        self._agents[agent.key] = agent
        self._reports.pop(agent.key, None)

    def lost(self, connection: Connection) -> None:
        """A connection has ended."""
        for agent in self.served_by(connection):
            del self._agents[agent.key]
            self.begin_grace(agent.key)

    def begin_grace(self, key: Key) -> None:
        """Nobody serves this protocol any more, or not yet again."""
        if key not in self._graces and key not in self._agents:
            self._graces[key] = asyncio.create_task(self._grace(key))

    async def _grace(self, key: Key) -> None:
        await asyncio.sleep(self.grace_seconds)
        # From here on an attach finds the instance gone or waits for its end: `reclaim` holds the lock of changes.
        self._graces.pop(key, None)
        await self._reclaim(key)

    def forget(self, key: Key) -> None:
        """The protocol's instance is gone, or served again: no agent, no grace time."""
        self._agents.pop(key, None)
        task = self._graces.pop(key, None)
        if task is not None:
            task.cancel()

    def cut_off(self, key: Key, *, asked_by: Connection | None = None) -> None:
        """The protocol is removed: forget its agent and hang up, unless it is the one who asked for that."""
        agent = self._agents.get(key)
        self.forget(key)
        self._reports.pop(key, None)
        if agent is not None and agent.connection is not asked_by:
            agent.connection.hang_up()

    def clear(self) -> None:
        """Cut off everybody: what they serve does not exist any more."""
        for key in [*self._agents, *self._graces]:
            self.cut_off(key)
