"""The daemon's state and its two ways back: rebuilt from an engine that lives, or laid anew into an empty one.

The engine is where the state is at home: every record is also a label there. Changes hold `lock`, so that what is asked
at once is done in some order, one after the other.
"""

from __future__ import annotations

import asyncio
import difflib
import ipaddress
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from chamelio.engine.client import EngineClient
from chamelio.host.limits import Limits
from chamelio.host.link import EngineLink
from chamelio.host.model import Protocol, Tenant, Unit
from chamelio.jit.pool import Built, Compiler
from chamelio.messages import Refusal

log = logging.getLogger("chameliod")


class Route(msgspec.Struct, forbid_unknown_fields=True):
    """A prefix of the port's network, reached by a port (its name), over a gateway or directly."""

    prefix: str
    port: str
    gateway: str | None = None


class State:
    """Tenants by name, units by key, ports by name, routes; and the engine and the compiler that they live in."""

    def __init__(self, run: Path, limits: Limits, compiler: Compiler) -> None:
        self.run, self.limits, self.compiler = run, limits, compiler
        self.link: EngineLink
        self.lock = asyncio.Lock()
        self.tenants: dict[str, Tenant] = {}
        self.units: dict[str, Unit] = {}
        self.ports: dict[str, str] = {}
        self.routes: list[Route] = []
        self.held: set[str] = set()  # units that no protocol names yet, see migrations.py
        self.absent_ports: dict[str, str] = {}  # that a new engine could not open
        self.absent_routes: list[Route] = []
        self.troubles: dict[str, str] = {}  # what could not be brought back, and why

    @property
    def cores(self) -> int:
        """How many cores the engine has."""
        return self.link.settings.cores

    @property
    def engine(self) -> EngineClient:
        """The engine. Raises Refusal when it is down."""
        return self.link.client

    def tenant(self, name: str) -> Tenant:
        """A tenant by name. Raises Refusal."""
        found = self.tenants.get(name)
        if found is None:
            raise unknown("tenant", name, self.tenants)
        return found

    def protocol(self, tenant: str, name: str) -> tuple[Tenant, Protocol]:
        """A tenant's protocol by name. Raises Refusal."""
        owner = self.tenant(tenant)
        found = owner.protocols.get(name)
        if found is None:
            raise unknown(f"protocol of tenant {tenant}", name, owner.protocols, "load it with `chamelio protocol load`")
        return owner, found

    async def save(self, tenant: Tenant) -> None:
        """Leave a tenant's record with the engine."""
        await self.engine.call("label", kind="tenants", index=tenant.index, label=msgspec.to_builtins(tenant))

    # ---- ports and routes ------------------------------------------------------------------------------------------

    async def add_port(self, name: str, spec: str) -> None:
        """Open a port; one that is there already with the same text is left alone. Raises Refusal."""
        if self.ports.get(name) == spec:
            return
        if name in self.ports:
            raise Refusal("exists", f"port {name} exists already, as {self.ports[name]!r}", "choose another name")
        await self.engine.call("port.add", name=name, spec=spec)
        self.ports[name] = spec

    async def add_route(self, route: Route) -> None:
        """Add a route; one that is there already is left alone. Raises Refusal."""
        try:
            route = msgspec.structs.replace(route, prefix=str(ipaddress.IPv4Network(route.prefix)))
        except ValueError as error:
            raise Refusal("usage", f"route {route.prefix}: {error}", "write it as 10.0.0.0/24=PORT") from None
        if route in self.routes:
            return
        for port in await self.engine.call("port.list"):
            if port["label"] == route.port:
                arguments = {"prefix": route.prefix, "gateway": route.gateway, "network": port.get("network", 0)}
                await self.engine.call("route.add", port=port["index"], **arguments)
                self.routes.append(route)
                return
        raise unknown("port", route.port, self.ports)

    # ---- units and instances ---------------------------------------------------------------------------------------

    async def have_unit(self, built: Built) -> tuple[Unit, bool]:
        """The loaded unit of a build, and whether it had to be loaded. The caller holds the lock."""
        unit = self.units.get(built.key)
        if unit is not None:
            return unit, False
        names = [f for f in Unit.__struct_fields__ if f != "index"]
        unit = Unit(**{name: getattr(built, name) for name in names})
        unit.index = await self.engine.load_unit(built.image, msgspec.to_builtins(unit))
        self.units[unit.key] = unit
        return unit, True

    async def sweep_units(self) -> None:
        """Unload units that no protocol names. The caller holds the lock."""
        named = self.held | {p.unit for t in self.tenants.values() for p in t.protocols.values()}
        for key in [k for k in self.units if k not in named]:
            await self.engine.call("unit.unload", index=self.units[key].index)
            del self.units[key]

    async def unit_of(self, protocol: Protocol) -> Unit:
        """The loaded unit that a protocol names, from the compiler's cache. The caller holds the lock; raises Refusal."""
        if protocol.unit not in self.units:
            built = await self.compiler.cached(protocol.unit)
            if built is None:
                raise Refusal("gone", f"protocol {protocol.name} is not in the compiler's cache any more", "load it again")
            await self.have_unit(built)
        return self.units[protocol.unit]

    async def add_instance(self, tenant: Tenant, protocol: Protocol) -> None:
        """Put a protocol into the engine, and its unit. The caller holds the lock; raises Refusal."""
        unit = await self.unit_of(protocol)
        protocol.instance = await self.engine.call(
            "instance.add",
            tenant=tenant.index,
            unit=unit.index,
            address=protocol.address,
            ip_protocol=protocol.ip_protocol,
            network=tenant.network,
            ports=protocol.ports,
            steer=protocol.steer,
            label={"tenant": tenant.name, "protocol": protocol.name},
        )
        protocol.contexts = []

    async def remove_instance(self, protocol: Protocol) -> None:
        """Take a protocol's instance out of the engine. The caller holds the lock."""
        if protocol.instance is not None:
            await self.engine.call("instance.remove", index=protocol.instance)
            protocol.instance, protocol.contexts = None, []

    # ---- the two ways back -----------------------------------------------------------------------------------------

    async def rebuild(self) -> None:
        """Learn everything from a living engine; what a predecessor left half done is undone."""
        about = await self.engine.call("describe")
        if about["settings"] != msgspec.to_builtins(self.link.settings):
            self.link.settings = msgspec.convert(about["settings"], type(self.link.settings))
            log.warning(
                "the engine goes on with its own settings, %s; end it with `chamelio down` to change them", about["settings"]
            )
        engine, labels = about["engine"], about["labels"]
        self.tenants = {}
        for index, label in labels["tenants"].items():
            tenant = msgspec.convert(label, Tenant)
            tenant.index = int(index)
            self.tenants[tenant.name] = tenant
        self.units = {}
        for index, label in labels["units"].items():
            unit = msgspec.convert(label, Unit)
            unit.index = int(index)
            self.units[unit.key] = unit
        names = {p["index"]: p["label"] for p in engine["ports"]}
        self.ports = {names[int(i)]: label["spec"] for i, label in labels["ports"].items() if int(i) in names}
        self.routes = [Route(r["prefix"], names[r["port"]], r["gateway"]) for r in engine["routes"] if r["port"] in names]
        await self._match_instances({i["index"]: i for i in engine["instances"]}, labels["instances"])
        await self.sweep_units()

    async def _match_instances(self, instances: dict[int, dict[str, Any]], labels: dict[str, Any]) -> None:
        keys = {unit.index: unit.key for unit in self.units.values()}
        claimed: dict[int, Protocol] = {}
        for key, label in labels.items():
            owner = self.tenants.get(label["tenant"])
            known = owner.protocols.get(label["protocol"]) if owner else None
            if known is not None and int(key) in instances:
                claimed[int(key)] = known
        for tenant in self.tenants.values():
            for protocol in tenant.protocols.values():
                if protocol.instance not in claimed:
                    protocol.instance, protocol.contexts = None, []
        for index, instance in instances.items():
            found = claimed.get(index)
            if found is None or found.instance not in (None, index):
                log.warning("instance %d belongs to nobody; removing it", index)
                await self.engine.call("instance.remove", index=index)
                continue
            found.instance, found.unit = index, keys.get(instance["unit"], found.unit)
            if instance.get("state") == "paused":  # the predecessor did not come to the end of a migration
                await self.engine.call("instance.resume", index=index)

    async def restore(self) -> None:
        """Lay everything into an empty engine: a new one, after the old one died. What fails is logged, shown, and
        tried again with the next engine."""
        self.units, self.troubles = {}, {}
        ports, self.ports = {**self.absent_ports, **self.ports}, {}
        routes, self.routes = [*self.routes, *self.absent_routes], []
        for tenant in self.tenants.values():
            tenant.index = -1
        for name, spec in ports.items():
            await self._try(f"port {name}", self.add_port(name, spec))
        for route in routes:
            await self._try(f"route {route.prefix}", self.add_route(route))
        self.absent_ports = {name: spec for name, spec in ports.items() if name not in self.ports}
        self.absent_routes = [route for route in routes if route not in self.routes]
        for tenant in self.tenants.values():
            await self._try(f"tenant {tenant.name}", self._restore_tenant(tenant))

    async def _restore_tenant(self, tenant: Tenant) -> None:
        await self.enter_tenant(tenant)
        for protocol in tenant.protocols.values():
            had_instance, protocol.instance, protocol.contexts = protocol.instance is not None, None, []
            if had_instance:
                await self._try(f"protocol {protocol.name} of {tenant.name}", self.add_instance(tenant, protocol))
        await self.save(tenant)

    async def enter_tenant(self, tenant: Tenant) -> None:
        """Make a tenant known to the engine. Raises Refusal."""
        tenant.index = await self.engine.call(
            "tenant.add",
            weight=tenant.weight,
            frame_quota=tenant.quotas.frames,
            addresses=tenant.addresses,
            network=tenant.network,
            label=msgspec.to_builtins(tenant),
        )

    async def _try(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refusal as error:
            log.error("%s cannot be brought back: %s", what, error)
            self.troubles[what] = error.message


def unknown(what: str, name: str, known: Any, remedy: str = "") -> Refusal:
    """A refusal for a name that nothing has, with the nearest that something has."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else (f"there are {', '.join(sorted(known))}" if known else "there is none")
    return Refusal("not_found", f"there is no {what} {name!r}", "; ".join(filter(None, (hint, remedy))))
