"""Tenants: who they are, what they may have, and where on disk they find their token and put their sockets."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from chamelio.host import versions
from chamelio.host.agents import Agents
from chamelio.host.delays import Delays
from chamelio.host.model import Protocol, Tenant, Unit, describe_memory, memory
from chamelio.host.quotas import Accounts, Changes
from chamelio.host.state import State
from chamelio.messages import Credentials, Refusal

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
TOKEN_FILE = "token"
MAX_ADDRESSES = 16


def check_name(what: str, name: str) -> None:
    """Names become file names and metric labels. Raises Refusal."""
    if not NAME.fullmatch(name):
        raise Refusal(
            "usage",
            f"{name[:40]!r} cannot be the name of a {what}",
            "names have 1 to 32 of a-z, 0-9, '-' and '_', and begin with a letter or digit",
        )


class Tenants:
    """Adding, removing, showing and recognising tenants."""

    def __init__(self, state: State, agents: Agents, accounts: Accounts, delays: Delays) -> None:
        self._state, self._agents, self._accounts, self._delays = state, agents, accounts, delays
        self.removed: Callable[[str], None] = lambda name: None  # called when a tenant's instances are gone

    def directory(self, name: str) -> Path:
        """The tenant's own directory below the run directory."""
        return self._state.run / "tenants" / name

    async def add(
        self, name: str, addresses: list[str], weight: int, uid: int | None, network: int, delay_us: int, quotas: Changes
    ) -> dict[str, Any]:
        """A new tenant. Raises Refusal."""
        state = self._state
        check_name("tenant", name)
        if not 1 <= len(addresses) <= MAX_ADDRESSES:
            raise Refusal("usage", f"a tenant has 1 to {MAX_ADDRESSES} addresses, not {len(addresses)}")
        for address in addresses:
            try:
                ipaddress.IPv4Address(address)
            except ValueError:
                raise Refusal("usage", f"{address!r} is not an IPv4 address", "write it as 10.0.0.2") from None
        async with state.lock:
            if name in state.tenants:
                raise Refusal("exists", f"tenant {name} exists already", "choose another name, or `chamelio tenant rm` it")
            tenant = Tenant(
                name=name,
                weight=weight,
                addresses=addresses,
                token=secrets.token_hex(32),
                uid=uid,
                network=network,
                quotas=quotas.applied(state.limits.quotas),
                delay_us=delay_us,
            )
            await self._delays.admit(tenant)
            await state.enter_tenant(tenant)
            try:
                token = self._make_directory(tenant)
            except OSError as error:
                await state.engine.call("tenant.remove", index=tenant.index)
                raise Refusal("failed", f"the directory of tenant {name} cannot be made: {error}") from None
            state.tenants[name] = tenant
        return {**self.describe(tenant), "token_file": str(token)}

    def _make_directory(self, tenant: Tenant) -> Path:
        """Its directory and token file, which belong to the tenant's user. Raises OSError."""
        directory = self.directory(tenant.name)
        directory.parent.mkdir(mode=0o711, exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        token = directory / TOKEN_FILE
        fd = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(tenant.token + "\n")
        if tenant.uid is not None and os.geteuid() == 0:
            os.chown(token, tenant.uid, -1)
            os.chown(directory, tenant.uid, -1)
        return token

    async def remove(self, name: str) -> None:
        """Remove a tenant with all its protocols; its agents are disconnected. Raises Refusal."""
        state = self._state
        async with state.lock:
            tenant = state.tenant(name)
            await state.engine.call("tenant.remove", index=tenant.index)
            del state.tenants[name]
            self._accounts.compiler.forget(name)
            self.removed(name)
            for protocol in tenant.protocols:
                self._agents.cut_off((name, protocol))
            await state.sweep_units()
        with contextlib.suppress(OSError):
            shutil.rmtree(self.directory(name))

    async def set_quotas(self, name: str, weight: int | None, delay_us: int | None, quotas: Changes) -> dict[str, Any]:
        """Change a tenant's share, promise and quotas; what it has already it keeps. Raises Refusal."""
        state = self._state
        async with state.lock:
            tenant = state.tenant(name)
            changed = quotas.applied(tenant.quotas)
            wanted = msgspec.structs.replace(
                tenant,
                weight=tenant.weight if weight is None else weight,
                delay_us=tenant.delay_us if delay_us is None else delay_us,
            )
            await self._delays.admit(wanted)
            tenant.delay_us = wanted.delay_us
            if weight is not None:
                await state.engine.call("tenant.weight", index=tenant.index, weight=weight)
                tenant.weight = weight
            if changed.frames != tenant.quotas.frames:
                await state.engine.call("tenant.frames", index=tenant.index, frame_quota=changed.frames)
            tenant.quotas = changed
            await state.save(tenant)
        return self.describe(tenant)

    async def set_weight(self, name: str, weight: int) -> dict[str, Any]:
        """Change a tenant's share. Raises Refusal."""
        state = self._state
        async with state.lock:
            tenant = state.tenant(name)
            await self._delays.admit(msgspec.structs.replace(tenant, weight=weight))
            await state.engine.call("tenant.weight", index=tenant.index, weight=weight)
            tenant.weight = weight
            await state.save(tenant)
        return self.describe(tenant)

    # ---- who asks ----------------------------------------------------------------------------------------------------

    def by_token(self, token: str) -> Tenant | None:
        """Whose token this is. Takes the same time wherever it differs."""
        found = None
        for tenant in self._state.tenants.values():
            if hmac.compare_digest(tenant.token.encode(), token.encode("utf-8", "surrogatepass")):
                found = tenant
        return found

    def of_user(self, who: Credentials) -> list[Tenant]:
        """The tenants that a user proves to be by being that user."""
        return [t for t in self._state.tenants.values() if t.uid is not None and t.uid == who.uid]

    # ---- looking -----------------------------------------------------------------------------------------------------

    def describe(self, tenant: Tenant, frames: int | None = None) -> dict[str, Any]:
        """What may be shown of a tenant; never its token. `frames`: that wait in its backlogs now, where that was asked."""
        return {
            "name": tenant.name,
            "addresses": tenant.addresses,
            "network": tenant.network,
            "weight": tenant.weight,
            "delay_us": tenant.delay_us or None,
            "uid": tenant.uid,
            "quotas": self._accounts.describe(tenant, frames),
            "directory": str(self.directory(tenant.name)),
            "protocols": [self.describe_protocol(tenant, p) for p in tenant.protocols.values()],
        }

    def describe_protocol(self, tenant: Tenant, protocol: Protocol) -> dict[str, Any]:
        """What may be shown of a protocol. `agent` is the process that serves it."""
        key = (tenant.name, protocol.name)
        agent = self._agents.of(key)
        if agent is not None:
            state = "attached"
        elif self._agents.in_grace(key):
            state = "grace"
        else:
            state = "loaded" if protocol.instance is not None else "dormant"
        unit = self._state.units.get(protocol.unit)
        now = versions.running(protocol)
        report = self._agents.report(key)
        return {
            "tenant": tenant.name,
            "name": protocol.name,
            "version": now.number if now else None,
            "state": state,
            "ip_protocol": protocol.ip_protocol,
            "address": protocol.address,
            "ports": list(protocol.ports),
            "steer": protocol.steer,
            "instance": protocol.instance,
            "agent": agent.pid if agent else None,
            "slow_path": report.describe(time.monotonic()) if report else {"state": "ok"},
            "contexts": protocol.contexts,
            "unit": protocol.unit,
            **(self._describe_unit(unit) if unit else {}),
        }

    def _describe_unit(self, unit: Unit) -> dict[str, Any]:
        hooks = ("rx", "ring", "tx", "timer")
        return {
            "mode": unit.mode,
            "protocol_sha": unit.protocol_sha,
            "instructions": unit.instructions,
            "cold_cycles": dict(zip(hooks, unit.cold, strict=False)),
            "warm_cycles": dict(zip(hooks, unit.warm, strict=False)),
            "maps": [m.name for m in unit.layout.maps],
            "memory_bytes": memory(unit.layout, self._state.cores),
            "memory": describe_memory(unit.layout, self._state.cores),
            "seconds": unit.seconds,
        }
