"""Migrations: a version whose maps differ takes the place of the running one, without losing what can be carried over.

The tenant's new agent asks for it, on the connection that it will serve the protocol by:

    begin    the new version is verified and compiled; its instance is made beside the running one, which is paused: packets for it
             wait in its backlog. Maps that are the same in both are copied. The agent gets both regions and fills the other maps:
             values directly, what is keyed or timed by ring entries, which the new version's ring hook executes.
    commit   at a round's boundary what is for the old instance is for the new one, packets that wait first. The old one is removed,
             its agent is cut off.

Whatever goes wrong before `commit` (an exception, a crash, the time limit) removes the new instance and lets the old one go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from chamelio.engine.carry import same_form
from chamelio.host import versions
from chamelio.host.agents import Agent, Agents, Connection, Key
from chamelio.host.model import Protocol, Tenant, Unit, misfit
from chamelio.host.protocols import Protocols
from chamelio.host.quotas import Accounts
from chamelio.host.state import State
from chamelio.host.tenants import Tenants
from chamelio.messages import Refusal, close_all


class Migration:
    """One that has begun: from the running instance to another."""

    def __init__(self, key: Key, old: int, new: int, unit: str, about: dict[str, str], pid: int, connection: Connection) -> None:
        self.key, self.old, self.new, self.unit, self.about = key, old, new, unit, about
        self.pid, self.connection = pid, connection
        self.limit: asyncio.Task[None]


def carried(new: Unit, old: Unit) -> list[str]:
    """Maps that mean the same in both versions."""
    before = {m.name: (m, text) for m, text in zip(old.layout.maps, old.types, strict=True)}
    return [
        m.name
        for m, text in zip(new.layout.maps, new.types, strict=True)
        if m.name in before and same_form(before[m.name][0], m) and before[m.name][1] == text
    ]


class Migrations:
    """All that are under way, one for a protocol at most."""

    def __init__(self, state: State, agents: Agents, accounts: Accounts, tenants: Tenants, protocols: Protocols) -> None:
        self._state, self._agents, self._accounts, self._protocols = state, agents, accounts, protocols
        self._all: dict[Key, Migration] = {}
        tenants.removed = self._tenant_removed
        protocols.busy = lambda key: key in self._all

    async def begin(
        self, tenant: str, name: str, content: bytes, options: dict[str, Any], who: str, pid: int, connection: Connection
    ) -> tuple[dict[str, Any], list[int]]:
        """Make the new version's instance beside the running one. Descriptors: as for `attach`, then the old region.

        Raises Refusal.
        """
        state, key = self._state, (tenant, name)
        owner, _ = state.protocol(tenant, name)
        about = self._protocols.about(content, options, who)
        built, _ = await self._protocols.build(owner, name, content, options, about)
        async with state.lock:
            owner, protocol = state.protocol(tenant, name)
            self._protocols.check_idle(key)
            if protocol.instance is None:
                raise Refusal("usage", f"protocol {name} is dormant: there is nothing to migrate", "load the new version")
            old = await state.unit_of(protocol)
            try:
                unit, _ = await state.have_unit(built)
                if misfit(unit, old) is None:
                    raise Refusal("usage", f"this version of {name} fits the running one: nothing has to migrate", "load it")
                self._accounts.admit_instance(owner, name, unit.layout)
                await self._protocols.delays.admit(owner, unit=unit, instead=name)
                migration = await self._prepare(owner, protocol, old, unit, about, pid, connection)
            finally:
                if state.link.up:
                    await state.sweep_units()
            try:
                new, fds = await state.engine.open("instance.open", index=migration.new)
                before, old_fds = await state.engine.open("instance.open", index=migration.old)
            except Refusal:
                await self._abort(migration)
                raise
        close_all(old_fds[1:])
        result = {
            **self._protocols.attachment(owner, protocol, resumed=True),
            "instance": migration.new,
            "contexts": [],
            "protocol_sha": unit.protocol_sha,
            **new,
            "old": {**before, "types": dict(zip([m.name for m in old.layout.maps], old.types, strict=True))},
            "carried": carried(unit, old),
            "seconds": state.limits.migration_seconds,
        }
        return result, [*fds, old_fds[0]]

    async def _prepare(
        self, owner: Tenant, protocol: Protocol, old: Unit, unit: Unit, about: dict[str, str], pid: int, connection: Connection
    ) -> Migration:
        assert protocol.instance is not None
        key = (owner.name, protocol.name)
        new = await self._state.engine.call(
            "instance.prepare",
            tenant=owner.index,
            unit=unit.index,
            address=protocol.address,
            ip_protocol=protocol.ip_protocol,
            network=owner.network,
            ports=protocol.ports,
            steer=protocol.steer,
            label={"tenant": owner.name, "protocol": protocol.name},
            old=protocol.instance,
            carry=carried(unit, old),
        )
        migration = Migration(key, protocol.instance, new, unit.key, about, pid, connection)
        self._all[key] = migration
        self._state.held.add(unit.key)
        migration.limit = asyncio.create_task(self._time_out(migration))
        try:
            await self._state.engine.call("attach", instance=new, context=0)
        except Refusal:
            await self._abort(migration)
            raise
        return migration

    async def commit(self, tenant: str, name: str, connection: Connection) -> dict[str, Any]:
        """Let the new instance take over; the connection is its agent's life from now on. Raises Refusal."""
        state = self._state
        async with state.lock:
            migration = self._all.get((tenant, name))
            if migration is None or migration.connection is not connection:
                raise Refusal("not_found", f"this connection migrates nothing of {name}", "it has taken too long, or never begun")
            owner, protocol = state.protocol(tenant, name)
            try:
                await state.engine.call("instance.replace", old=migration.old, new=migration.new)
            except Refusal:
                await self._abort(migration)
                raise
            self._forget(migration)
            self._agents.cut_off(migration.key, asked_by=connection)
            protocol.instance, protocol.unit, protocol.contexts, protocol.had_agent = migration.new, migration.unit, [], True
            unit = state.units[migration.unit]
            versions.note(protocol, state.limits.versions, result="migrated", unit=unit, **migration.about)
            self._agents.attached(Agent(migration.key, migration.new, migration.pid, connection))
            await state.save(owner)
            await state.sweep_units()
        return {"instance": migration.new, "version": versions.running(protocol).number}  # type: ignore[union-attr]

    async def abort(self, tenant: str, name: str, connection: Connection) -> None:
        """Give up. Raises Refusal."""
        async with self._state.lock:
            migration = self._all.get((tenant, name))
            if migration is not None and migration.connection is connection:
                await self._abort(migration)

    def lost(self, connection: Connection) -> None:
        """A connection has ended: what it has begun will not be committed."""
        for migration in [m for m in self._all.values() if m.connection is connection]:
            migration.limit.cancel()
            migration.limit = asyncio.create_task(self._give_up(migration))

    def _tenant_removed(self, name: str) -> None:
        """Its instances are gone, and others may get their numbers."""
        for migration in [m for m in self._all.values() if m.key[0] == name]:
            self._forget(migration)

    def clear(self) -> None:
        """The engine is gone, and all instances with it."""
        for migration in list(self._all.values()):
            self._forget(migration)

    async def _time_out(self, migration: Migration) -> None:
        await asyncio.sleep(self._state.limits.migration_seconds)
        await self._give_up(migration)

    async def _give_up(self, migration: Migration) -> None:
        async with self._state.lock:
            if self._all.get(migration.key) is migration:
                await self._abort(migration)

    async def _abort(self, migration: Migration) -> None:
        """The new instance goes, the old one goes on. The caller holds the lock."""
        self._forget(migration)
        for verb, index in (("instance.remove", migration.new), ("instance.resume", migration.old)):
            with contextlib.suppress(Refusal):  # it is gone already, with its protocol, its tenant or the engine
                await self._state.engine.call(verb, index=index)
        with contextlib.suppress(Refusal):
            await self._state.sweep_units()
        owner = self._state.tenants.get(migration.key[0])
        protocol = owner.protocols.get(migration.key[1]) if owner else None
        if protocol is not None and protocol.instance == migration.old and protocol.had_agent:
            self._agents.begin_grace(migration.key)  # of an agent that went meanwhile; nothing if there is one

    def _forget(self, migration: Migration) -> None:
        self._all.pop(migration.key, None)
        self._state.held.discard(migration.unit)
        if migration.limit is not asyncio.current_task():
            migration.limit.cancel()
