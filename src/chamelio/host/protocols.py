"""Protocols: loaded, swapped, attached to by agents, reclaimed when their agents do not come back."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from chamelio.host import versions
from chamelio.host.agents import Agent, Agents, Connection, Key
from chamelio.host.delays import Delays
from chamelio.host.model import Protocol, Tenant, Unit, misfit
from chamelio.host.quotas import Accounts
from chamelio.host.state import State
from chamelio.host.tenants import Tenants, check_name
from chamelio.jit.pool import Built
from chamelio.messages import Refusal

ICMP = 1
MODES = ("joint", "separate")


class Protocols:
    """Every change of a tenant's protocols."""

    def __init__(self, state: State, agents: Agents, tenants: Tenants, accounts: Accounts, delays: Delays) -> None:
        self._state, self._agents, self._tenants, self._accounts, self.delays = state, agents, tenants, accounts, delays
        self._loading: Counter[str] = Counter()
        self.busy: Callable[[Key], bool] = lambda key: False  # whether a protocol migrates

    # ---- loading -----------------------------------------------------------------------------------------------------

    async def load(self, tenant: str, wanted: Protocol, content: bytes, options: dict[str, Any], who: str) -> dict[str, Any]:
        """Verify and compile an object, then create the protocol or swap its running version. Raises Refusal.

        `who` asks, for the record.
        """
        state = self._state
        name, (low, high) = wanted.name, wanted.ports
        check_name("protocol", name)
        if not 2 <= wanted.ip_protocol <= 255:
            raise Refusal(
                "usage", f"IP protocol {wanted.ip_protocol} cannot be a tenant's", "use 2..255; ICMP (1) is the provider's"
            )
        if not 0 <= low <= high <= 65535:
            raise Refusal("usage", f"ports {low}..{high} are no range", "use LOW..HIGH within 0..65535")
        owner = state.tenant(tenant)
        if wanted.address and wanted.address not in owner.addresses:
            raise Refusal(
                "denied", f"tenant {tenant} does not have the address {wanted.address}", f"it has {', '.join(owner.addresses)}"
            )
        if name not in owner.protocols:
            self._accounts.admit_protocol(owner)
        about = self.about(content, options, who)
        built, cached = await self.build(owner, name, content, options, about)
        async with state.lock:
            self.check_idle((tenant, name))
            if state.tenants.get(tenant) is not owner:
                raise Refusal("not_found", f"tenant {tenant} was removed meanwhile")
            protocol = msgspec.structs.replace(wanted, address=wanted.address or owner.addresses[0], unit=built.key)
            try:
                done = await self._enter(owner, protocol, built)
            except Refusal as refusal:
                if refusal.code == "unfit" and name in owner.protocols:
                    self._note(owner.protocols[name], about, f"unfit: {refusal.message}")
                    await state.save(owner)
                raise
            finally:
                if state.link.up:
                    await state.sweep_units()
            shown = owner.protocols[name]
            if done["action"] != "unchanged":
                self._note(shown, about, done["action"], state.units[shown.unit])
                await state.save(owner)
        seconds = {} if cached else built.seconds
        return {
            **self._tenants.describe_protocol(owner, shown),
            **done,
            "cached": cached,
            "seconds": {
                "verify": seconds.get("verify", 0.0),
                "compile": seconds.get("compile", 0.0),
                **done["seconds"],
            },
        }

    @staticmethod
    def about(content: bytes, options: dict[str, Any], who: str) -> dict[str, str]:
        """What is remembered of a version, whatever becomes of it."""
        return {"sha": hashlib.sha256(content).hexdigest(), "mode": options["mode"], "who": who}

    def check_idle(self, key: Key) -> None:
        """Raises Refusal while a protocol migrates."""
        if self.busy(key):
            raise Refusal("busy", f"protocol {key[1]} is migrating to another version", "wait for its end, a few seconds at most")

    async def build(
        self, owner: Tenant, name: str, content: bytes, options: dict[str, Any], about: dict[str, str]
    ) -> tuple[Built, bool]:
        """The compiled object, and whether it was there already; what is rejected is remembered. Raises Refusal."""
        try:
            return await self._build(owner, content, options)
        except Refusal as refusal:
            if refusal.code in ("rejected", "malformed", "compiler_crash"):
                await self._note_refused(owner, name, refusal, about)
            raise

    async def _build(self, owner: Tenant, content: bytes, options: dict[str, Any]) -> tuple[Built, bool]:
        """The compiled object, and whether it was there already. Raises Refusal."""
        state, tenant = self._state, owner.name
        if self._loading[tenant] >= state.limits.loads_per_tenant:
            raise Refusal("quota", f"{self._loading[tenant]} protocols of tenant {tenant} are being compiled", "wait for them")
        self._loading[tenant] += 1
        try:
            too_much = self._accounts.may_compile(owner)
            if too_much is None:
                return await state.compiler.compile(tenant, content, options)
            known = await state.compiler.known(tenant, content, options)
            if known is None:
                raise too_much
            return known, True
        finally:
            self._loading[tenant] -= 1
            if not self._loading[tenant]:
                del self._loading[tenant]

    def _note(self, protocol: Protocol, about: dict[str, str], result: str, unit: Unit | None = None) -> None:
        versions.note(protocol, self._state.limits.versions, result=result, unit=unit, **about)

    async def _note_refused(self, owner: Tenant, name: str, refusal: Refusal, about: dict[str, str]) -> None:
        """A version that never ran is part of the history, too."""
        state = self._state
        async with state.lock:
            protocol = owner.protocols.get(name)
            if protocol is not None and state.tenants.get(owner.name) is owner and state.link.up:
                self._note(protocol, about, f"{refusal.code}: {refusal.message}")
                await state.save(owner)

    async def _enter(self, owner: Tenant, protocol: Protocol, built: Built) -> dict[str, Any]:
        """Create the protocol, or let it run a new version. The caller holds the lock. Raises Refusal."""
        old = owner.protocols.get(protocol.name)
        if old is None:
            self._accounts.admit_protocol(owner)
        self._accounts.admit_instance(owner, protocol.name, built.layout, replaced=old)
        unit, fresh = await self._state.have_unit(built)
        await self.delays.admit(owner, unit=unit, instead=protocol.name)
        about = {"unit_shared": not fresh}
        if old is None or old.instance is None:
            started = time.perf_counter()
            protocol.versions = old.versions if old is not None else []
            await self._state.add_instance(owner, protocol)
            owner.protocols[protocol.name] = protocol
            await self._state.save(owner)
            return {"action": "created", "seconds": {"create": time.perf_counter() - started}, **about}
        for field in ("ip_protocol", "address", "ports", "steer"):
            if getattr(old, field) != getattr(protocol, field):
                raise Refusal(
                    "unfit",
                    f"protocol {old.name} runs with {field} {getattr(old, field)}, not {getattr(protocol, field)}",
                    "give the same, or remove the protocol first",
                )
        if old.unit == built.key:
            return {"action": "unchanged", "seconds": {"swap": 0.0}, **about}
        return {"action": "swapped", "seconds": {"swap": await self._swap(owner, old, unit)}, **about}

    async def _swap(self, owner: Tenant, protocol: Protocol, unit: Unit) -> float:
        """Let another unit run a protocol's instance; seconds that took. The caller holds the lock. Raises Refusal."""
        reason = misfit(unit, self._state.units[protocol.unit])
        if reason is not None:
            raise Refusal(
                "unfit",
                f"this version of {protocol.name} does not fit the running one: {reason}",
                "the running version runs on; keep the maps as they are, bring a migration (`python -m chamelio.tenant.agent "
                f"{owner.name} FOLDER --migrate`), or remove the protocol and load it anew",
            )
        swap: float = await self._state.engine.call("instance.move", index=protocol.instance, unit=unit.index)
        protocol.unit = unit.key
        await self._state.save(owner)
        return swap

    async def rollback(self, tenant: str, name: str, number: int | None, who: str) -> dict[str, Any]:
        """Let an earlier version run again, from the compiler's cache: nothing is verified or compiled. Raises Refusal."""
        state = self._state
        async with state.lock:
            self.check_idle((tenant, name))
            owner, protocol = state.protocol(tenant, name)
            version = versions.earlier(protocol, number)
            now = versions.running(protocol)
            action, seconds = "unchanged", 0.0
            if version is not now:
                built = await state.compiler.cached(version.unit)
                if built is None:
                    raise Refusal(
                        "gone",
                        f"version {version.number} of {name} is not in the compiler's cache any more",
                        "load its object again; the running version runs on",
                    )
                self._accounts.admit_instance(owner, name, built.layout, replaced=protocol)
                try:
                    unit, _ = await state.have_unit(built)
                    await self.delays.admit(owner, unit=unit, instead=name)
                    if protocol.instance is not None:
                        seconds = await self._swap(owner, protocol, unit)
                    protocol.unit, action = unit.key, "rolled back"
                    number_now = now.number if now else "?"
                    about = {"sha": version.sha, "mode": version.mode, "who": who}
                    self._note(protocol, about, f"rolled back from version {number_now}", unit)
                    await state.save(owner)
                finally:
                    if state.link.up:
                        await state.sweep_units()
            about_it = self._tenants.describe_protocol(owner, protocol)
        return {**about_it, "action": action, "from": now.number if now else None, "seconds": {"swap": seconds}}

    async def remove(self, tenant: str, name: str, asked_by: Connection) -> None:
        """Remove a protocol. Raises Refusal."""
        state = self._state
        async with state.lock:
            self.check_idle((tenant, name))
            owner, protocol = state.protocol(tenant, name)
            await state.remove_instance(protocol)
            del owner.protocols[name]
            self._agents.cut_off((tenant, name), asked_by=asked_by)
            await state.save(owner)
            await state.sweep_units()

    # ---- agents ------------------------------------------------------------------------------------------------------

    async def attach(
        self, tenant: str, name: str, pid: int, connection: Connection, *, resume: bool
    ) -> tuple[dict[str, Any], list[int]]:
        """Let a connection's process serve a protocol. Returns what it needs, and descriptors: region, then doorbells.

        With `resume` the slow path's rings go on where they are: for an agent that outlived the daemon. Raises Refusal.
        """
        state = self._state
        async with state.lock:
            owner, protocol = state.protocol(tenant, name)
            key = (tenant, name)
            agent = self._agents.of(key)
            if agent is not None:
                raise Refusal("busy", f"process {agent.pid} serves protocol {name} already", "stop it first")
            resumed = protocol.instance is not None and protocol.had_agent
            if protocol.instance is None:
                layout = (await state.unit_of(protocol)).layout
                self._accounts.admit_instance(owner, name, layout, replaced=protocol)
                await state.add_instance(owner, protocol)
            assert protocol.instance is not None
            if not (resume and resumed):
                await state.engine.call("attach", instance=protocol.instance, context=0)
            protocol.had_agent = True
            await state.save(owner)
            about, fds = await state.engine.open("instance.open", index=protocol.instance)
            self._agents.attached(Agent(key, protocol.instance, pid, connection))
        return {**self.attachment(owner, protocol, resumed=resumed), **about}, fds

    def attachment(self, owner: Tenant, protocol: Protocol, *, resumed: bool) -> dict[str, Any]:
        """What an agent is told of its protocol."""
        return {
            "tenant": owner.name,
            "protocol": protocol.name,
            "instance": protocol.instance,
            "address": protocol.address,
            "network": owner.network,
            "ip_protocol": protocol.ip_protocol,
            "ports": list(protocol.ports),
            "protocol_sha": self._state.units[protocol.unit].protocol_sha,
            "directory": str(self._tenants.directory(owner.name)),
            "resumed": resumed,
            "contexts": protocol.contexts,
        }

    async def open_context(self, instance: int, context: int | None, connection: Connection) -> dict[str, Any]:
        """Give an application context to a new application; without a number, the first free one. Raises Refusal."""
        async with self._state.lock:
            owner, protocol = self._served(instance, connection)
            contexts = range(1, self._state.units[protocol.unit].layout.contexts)
            if context is None:
                context = next((c for c in contexts if c not in protocol.contexts), None)
                if context is None:
                    raise Refusal("quota", f"all {len(contexts)} contexts of protocol {protocol.name} are in use", "close one")
            elif context not in contexts:
                raise Refusal("usage", f"context {context} is not within 1..{len(contexts)}")
            if context not in protocol.contexts:
                self._accounts.admit_context(owner)
            await self._state.engine.call("attach", instance=instance, context=context)
            if context not in protocol.contexts:
                protocol.contexts.append(context)
                await self._state.save(owner)
        return {"instance": instance, "context": context}

    async def close_context(self, instance: int, context: int, connection: Connection) -> None:
        """An application is gone. Raises Refusal."""
        async with self._state.lock:
            owner, protocol = self._served(instance, connection)
            if context not in protocol.contexts:
                raise Refusal("not_found", f"context {context} of instance {instance} is not open")
            await self._state.engine.call("detach", instance=instance, context=context)
            protocol.contexts.remove(context)
            await self._state.save(owner)

    def _served(self, instance: int, connection: Connection) -> tuple[Tenant, Protocol]:
        """The protocol behind an instance, if the connection is its agent's. Raises Refusal."""
        for agent in self._agents.served_by(connection):
            if agent.instance == instance:
                return self._state.protocol(*agent.key)
        raise Refusal("denied", f"this connection has not attached to instance {instance}", "`attach` comes first")

    async def reclaim(self, key: Key) -> None:
        """The grace time is over: all that the instance holds goes back. The protocol can be attached to anew."""
        state = self._state
        async with state.lock:
            owner = state.tenants.get(key[0])
            protocol = owner.protocols.get(key[1]) if owner else None
            if owner is None or protocol is None or self._agents.of(key) is not None or not state.link.up:
                return
            if self.busy(key):
                return  # when that has failed, a grace time begins again
            await state.remove_instance(protocol)
            protocol.had_agent = False
            await state.save(owner)

    def await_agents(self) -> None:
        """After the daemon or the engine came back: whoever was served before gets a grace time to return."""
        for tenant in self._state.tenants.values():
            for protocol in tenant.protocols.values():
                if protocol.had_agent and protocol.instance is not None:
                    self._agents.begin_grace((tenant.name, protocol.name))


async def read_object(content: asyncio.Future[bytes], seconds: float) -> bytes:
    """What a descriptor held, if that can be read in time. Raises Refusal."""
    try:
        async with asyncio.timeout(seconds):
            return await content
    except TimeoutError:
        raise Refusal("timeout", f"the object could not be read in {seconds:g} s", "pass a memfd or a local file") from None
