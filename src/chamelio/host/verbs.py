"""What can be asked of the daemon: one table of verbs, their arguments, who may use them, what they do."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from chamelio import __version__
from chamelio.files import read_bounded
from chamelio.host import versions
from chamelio.host.agents import MAX_TRACE, Connection, Report
from chamelio.host.model import Protocol
from chamelio.host.protocols import MODES, read_object
from chamelio.host.quotas import Changes
from chamelio.host.state import Route
from chamelio.messages import Credentials, Refusal

if TYPE_CHECKING:
    from chamelio.host.daemon import Daemon

Who = Literal["anybody", "tenant", "provider"]
_readers = ThreadPoolExecutor(4, thread_name_prefix="read-object")  # reading a hostile descriptor may block


class Caller(NamedTuple):
    """Who asks: the provider (everything), or these tenants; and the connection, which is an agent's life."""

    who: Credentials
    provider: bool
    tenants: list[str]
    connection: Connection

    @property
    def name(self) -> str:
        """For the record."""
        role = "provider" if self.provider else f"tenant {', '.join(self.tenants)}"
        return f"{role}, user {self.who.uid}"

    def may(self, tenant: str) -> bool:
        """Whether this caller may act for a tenant."""
        return self.provider or tenant in self.tenants


class Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of a verb; those of verbs about one tenant have a `tenant`."""


class Nothing(Arguments):
    """No arguments."""


class PortAdd(Arguments):
    """A port by its text, e.g. `wire:w0:a`."""

    name: str
    spec: str


class RouteAdd(Arguments):
    """A route."""

    prefix: str
    port: str
    gateway: str | None = None


class TenantAdd(Arguments):
    """A new tenant."""

    name: str
    addresses: list[str]
    weight: int = 1
    uid: int | None = None
    network: int = 0
    delay_us: Annotated[int, msgspec.Meta(ge=0)] = 0
    quotas: Changes = msgspec.field(default_factory=Changes)


class OfTenant(Arguments):
    """A tenant."""

    tenant: str


class TenantWeight(OfTenant):
    """A tenant's new share."""

    weight: int


class TenantSet(OfTenant):
    """A tenant's new share and quotas; what is not named stays."""

    weight: int | None = None
    delay_us: Annotated[int, msgspec.Meta(ge=0)] | None = None
    quotas: Changes = msgspec.field(default_factory=Changes)


class BoundOf(Arguments):
    """A tenant, or all; `virtual`: by the virtual clock, where everything is warm."""

    tenant: str | None = None
    clock: Literal["cold", "virtual"] = "cold"


class LoadOptions(Arguments):
    """How to compile."""

    mode: str = "joint"
    hardening: bool = True


class ProtocolLoad(OfTenant):
    """A protocol whose object comes as a descriptor. `ports`: LOW and HIGH of the destination ports that it takes.

    `steer`: what decides which core a flow lives on.
    """

    name: str
    ip_protocol: int
    ports: tuple[int, int] = (0, 65535)
    address: str | None = None
    steer: Literal["flow", "port"] = "flow"
    options: LoadOptions = msgspec.field(default_factory=LoadOptions)


class OfProtocol(OfTenant):
    """A tenant's protocol."""

    protocol: str


class Migrate(OfProtocol):
    """A version with other maps; its object comes as a descriptor."""

    options: LoadOptions = msgspec.field(default_factory=LoadOptions)


class Rollback(OfProtocol):
    """A version by number; None: the one before the running one."""

    version: int | None = None


class Attach(OfProtocol):
    """Serve a protocol by this connection. `resume`: the slow path's rings go on where they are."""

    resume: bool = False


class SlowPathReport(OfProtocol):
    """How a protocol's slow path is: exceptions, what it has lost, and its stack if it has been in one call for so long."""

    errors: int
    dropped: int
    traceback: str = ""
    hung_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    stack: str = ""


class ContextOpen(Arguments):
    """An application context of an instance that this connection serves; the first free one, or this."""

    instance: int
    context: int | None = None


class ContextClose(Arguments):
    """An application context that is open."""

    instance: int
    context: int


class Some(Arguments):
    """One tenant, or all that the caller may see."""

    tenant: str | None = None


class Shutdown(Arguments):
    """`keep_engine`: the engine forwards on, for a daemon that is started later."""

    keep_engine: bool = False


class Result(NamedTuple):
    """A result with descriptors; they are closed after they were sent."""

    value: Any
    fds: list[int]


Handler = Callable[["Daemon", Any, Caller, list[int]], Awaitable[Any]]


class Verb(NamedTuple):
    """One verb. `fds`: how many descriptors a request must carry."""

    arguments: type[Arguments]
    who: Who
    run: Handler
    fds: int = 0


VERBS: dict[str, Verb] = {}


def verb(name: str, arguments: type[Arguments], who: Who, fds: int = 0) -> Callable[[Handler], Handler]:
    """Enter a function into the table."""

    def enter(run: Handler) -> Handler:
        VERBS[name] = Verb(arguments, who, run, fds)
        return run

    return enter


@verb("ping", Nothing, "anybody")
async def ping(daemon: Daemon, a: Nothing, caller: Caller, fds: list[int]) -> Any:
    """Who is there, and whom it takes the caller for."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "engine": daemon.link.up,
        "provider": caller.provider,
        "tenants": caller.tenants,
    }


@verb("status", Nothing, "provider")
async def status(daemon: Daemon, a: Nothing, caller: Caller, fds: list[int]) -> Any:
    """How the daemon and its processes are."""
    return daemon.status()


@verb("port.add", PortAdd, "provider")
async def port_add(daemon: Daemon, a: PortAdd, caller: Caller, fds: list[int]) -> Any:
    """Open a port."""
    async with daemon.state.lock:
        await daemon.state.add_port(a.name, a.spec)
    return {"name": a.name, "spec": a.spec}


@verb("port.list", Nothing, "provider")
async def port_list(daemon: Daemon, a: Nothing, caller: Caller, fds: list[int]) -> Any:
    """All ports, with state and counters."""
    names = daemon.state.ports
    ports = await daemon.state.engine.call("port.list")
    return [{**port, "name": port["label"], "spec": names.get(port["label"], port.get("name"))} for port in ports]


@verb("route.add", RouteAdd, "provider")
async def route_add(daemon: Daemon, a: RouteAdd, caller: Caller, fds: list[int]) -> Any:
    """Add a route."""
    async with daemon.state.lock:
        await daemon.state.add_route(Route(a.prefix, a.port, a.gateway))
    return {"prefix": a.prefix, "port": a.port, "gateway": a.gateway}


@verb("tenant.add", TenantAdd, "provider")
async def tenant_add(daemon: Daemon, a: TenantAdd, caller: Caller, fds: list[int]) -> Any:
    """Add a tenant; the result names its token file."""
    return await daemon.tenants.add(a.name, a.addresses, a.weight, a.uid, a.network, a.delay_us, a.quotas)


@verb("tenant.list", Nothing, "anybody")
async def tenant_list(daemon: Daemon, a: Nothing, caller: Caller, fds: list[int]) -> Any:
    """The tenants that the caller may see."""
    return [daemon.tenants.describe(t) for t in daemon.state.tenants.values() if caller.may(t.name)]


@verb("tenant.show", OfTenant, "tenant")
async def tenant_show(daemon: Daemon, a: OfTenant, caller: Caller, fds: list[int]) -> Any:
    """A tenant, its protocols and their counters."""
    tenant = daemon.state.tenant(a.tenant)
    frames = await daemon.state.engine.call("tenant.waiting", index=tenant.index)
    counters = daemon.statistics.read([tenant], await daemon.port_counters())
    return {**daemon.tenants.describe(tenant, frames), "counters": counters["tenants"].get(tenant.name)}


@verb("tenant.weight", TenantWeight, "provider")
async def tenant_weight(daemon: Daemon, a: TenantWeight, caller: Caller, fds: list[int]) -> Any:
    """Change a tenant's share."""
    return await daemon.tenants.set_weight(a.tenant, a.weight)


@verb("tenant.set", TenantSet, "provider")
async def tenant_set(daemon: Daemon, a: TenantSet, caller: Caller, fds: list[int]) -> Any:
    """Change a tenant's share and quotas."""
    return await daemon.tenants.set_quotas(a.tenant, a.weight, a.delay_us, a.quotas)


@verb("tenant.rm", OfTenant, "provider")
async def tenant_rm(daemon: Daemon, a: OfTenant, caller: Caller, fds: list[int]) -> Any:
    """Remove a tenant with everything that it has."""
    await daemon.tenants.remove(a.tenant)
    return {"removed": a.tenant}


async def _object(daemon: Daemon, asked: LoadOptions, caller: Caller, tenant: str, fds: list[int]) -> tuple[bytes, dict[str, Any]]:
    """The object that came with a request, and how to compile it. Raises Refusal."""
    if asked.mode not in MODES:
        raise Refusal("usage", f"there is no mode {asked.mode!r}", f"modes are {', '.join(MODES)}")
    if not (asked.hardening or caller.provider):  # it protects others from this tenant
        raise Refusal("denied", "only the provider may load a protocol without hardening", "load it with hardening")
    limits = daemon.state.limits
    daemon.state.tenant(tenant)
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(_readers, read_bounded, os.dup(fds[0]), limits.object_bytes)
    content = await read_object(reading, limits.read_seconds)
    options = {"mode": asked.mode, "hardening": asked.hardening, "budgets": limits.budgets}
    return content, options


@verb("protocol.load", ProtocolLoad, "tenant", fds=1)
async def protocol_load(daemon: Daemon, a: ProtocolLoad, caller: Caller, fds: list[int]) -> Any:
    """Verify, compile and run an object for a tenant, or swap the version that runs."""
    content, options = await _object(daemon, a.options, caller, a.tenant, fds)
    wanted = Protocol(a.name, a.ip_protocol, a.address or "", a.ports, steer=a.steer)
    return await daemon.protocols.load(a.tenant, wanted, content, options, caller.name)


@verb("protocol.list", Some, "anybody")
async def protocol_list(daemon: Daemon, a: Some, caller: Caller, fds: list[int]) -> Any:
    """The protocols of a tenant, or of all that the caller may see."""
    if a.tenant is not None:
        daemon.state.tenant(a.tenant)
    tenants = [t for t in daemon.state.tenants.values() if caller.may(t.name) and a.tenant in (None, t.name)]
    return [daemon.tenants.describe_protocol(t, p) for t in tenants for p in t.protocols.values()]


@verb("protocol.show", OfProtocol, "tenant")
async def protocol_show(daemon: Daemon, a: OfProtocol, caller: Caller, fds: list[int]) -> Any:
    """A protocol, its contract, its state and its counters."""
    tenant, protocol = daemon.state.protocol(a.tenant, a.protocol)
    counters = daemon.statistics.read([tenant], {})["tenants"].get(tenant.name, {})
    about = daemon.tenants.describe_protocol(tenant, protocol)
    return {**about, "versions": versions.describe(protocol), "counters": counters.get("protocols", {}).get(protocol.name)}


@verb("protocol.rollback", Rollback, "tenant")
async def protocol_rollback(daemon: Daemon, a: Rollback, caller: Caller, fds: list[int]) -> Any:
    """Let an earlier version run again."""
    return await daemon.protocols.rollback(a.tenant, a.protocol, a.version, caller.name)


@verb("migration.begin", Migrate, "tenant", fds=1)
async def migration_begin(daemon: Daemon, a: Migrate, caller: Caller, fds: list[int]) -> Any:
    """Make an instance of a version with other maps beside the running one, which is paused."""
    content, options = await _object(daemon, a.options, caller, a.tenant, fds)
    who = (caller.name, caller.who.pid, caller.connection)
    value, descriptors = await daemon.migrations.begin(a.tenant, a.protocol, content, options, *who)
    return Result(value, descriptors)


@verb("migration.commit", OfProtocol, "tenant")
async def migration_commit(daemon: Daemon, a: OfProtocol, caller: Caller, fds: list[int]) -> Any:
    """Let the new instance take the place of the old one; this connection is its agent's life."""
    return await daemon.migrations.commit(a.tenant, a.protocol, caller.connection)


@verb("migration.abort", OfProtocol, "tenant")
async def migration_abort(daemon: Daemon, a: OfProtocol, caller: Caller, fds: list[int]) -> Any:
    """Give a migration up; the old version runs on."""
    await daemon.migrations.abort(a.tenant, a.protocol, caller.connection)
    return {}


@verb("protocol.rm", OfProtocol, "tenant")
async def protocol_rm(daemon: Daemon, a: OfProtocol, caller: Caller, fds: list[int]) -> Any:
    """Remove a protocol."""
    await daemon.protocols.remove(a.tenant, a.protocol, caller.connection)
    return {"removed": a.protocol, "tenant": a.tenant}


@verb("attach", Attach, "tenant")
async def attach(daemon: Daemon, a: Attach, caller: Caller, fds: list[int]) -> Any:
    """Serve a protocol: region and doorbells come as descriptors; this connection is the agent's life."""
    value, descriptors = await daemon.protocols.attach(a.tenant, a.protocol, caller.who.pid, caller.connection, resume=a.resume)
    return Result(value, descriptors)


@verb("slowpath.report", SlowPathReport, "tenant")
async def slowpath_report(daemon: Daemon, a: SlowPathReport, caller: Caller, fds: list[int]) -> Any:
    """An agent says how its slow path is."""
    daemon.state.protocol(a.tenant, a.protocol)
    now = time.monotonic()
    since = None if a.hung_seconds is None else now - a.hung_seconds
    report = Report(now, a.errors, a.dropped, a.traceback[-MAX_TRACE:], since, a.stack[-MAX_TRACE:])
    daemon.agents.reported((a.tenant, a.protocol), report)
    return {}


@verb("context.open", ContextOpen, "anybody")
async def context_open(daemon: Daemon, a: ContextOpen, caller: Caller, fds: list[int]) -> Any:
    """Give an application context to an application; its rings begin empty."""
    return await daemon.protocols.open_context(a.instance, a.context, caller.connection)


@verb("context.close", ContextClose, "anybody")
async def context_close(daemon: Daemon, a: ContextClose, caller: Caller, fds: list[int]) -> Any:
    """Take an application context back."""
    await daemon.protocols.close_context(a.instance, a.context, caller.connection)
    return {"instance": a.instance, "context": a.context}


@verb("stats", Some, "anybody")
async def stats(daemon: Daemon, a: Some, caller: Caller, fds: list[int]) -> Any:
    """Counters: the whole host's for the provider, its own for a tenant."""
    if a.tenant is not None:
        daemon.state.tenant(a.tenant)
    tenants = [t for t in daemon.state.tenants.values() if caller.may(t.name) and a.tenant in (None, t.name)]
    ports = await daemon.port_counters() if caller.provider else {}
    counters = daemon.statistics.read(tenants, ports)
    return counters if caller.provider else {"time_ns": counters["time_ns"], "tenants": counters["tenants"]}


@verb("metrics", Some, "anybody")
async def metrics(daemon: Daemon, a: Some, caller: Caller, fds: list[int]) -> Any:
    """The same by the names of engine/metrics.py, and the time; what `chamelio top` looks at."""
    if a.tenant is not None:
        daemon.state.tenant(a.tenant)
    names = [t.name for t in daemon.state.tenants.values() if caller.may(t.name) and a.tenant in (None, t.name)]
    values = await daemon.metrics(names, provider=caller.provider)
    return {"time_ns": time.monotonic_ns(), "metrics": values}


@verb("bound", BoundOf, "anybody")
async def bound(daemon: Daemon, a: BoundOf, caller: Caller, fds: list[int]) -> Any:
    """How long tenants wait for their turn at most: all of them for the provider, its own for a tenant."""
    if a.tenant is not None:
        daemon.state.tenant(a.tenant)
    names = [t.name for t in daemon.state.tenants.values() if caller.may(t.name) and a.tenant in (None, t.name)]
    return await daemon.delays.describe(names, a.clock)


@verb("shutdown", Shutdown, "provider")
async def shutdown(daemon: Daemon, a: Shutdown, caller: Caller, fds: list[int]) -> Any:
    """End the daemon and, unless told otherwise, its engine."""
    daemon.stop(keep_engine=a.keep_engine)
    return {"pid": os.getpid(), "keep_engine": a.keep_engine}
