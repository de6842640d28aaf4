"""The engine as the control plane drives it: its cores and everything that is linked into them.

Objects (an instance's memory, a port, a loaded unit) are prepared here and handed to the rounds by commands, one at a time and
to every core alike, executed at a round's boundary (fastpath/control.c). What a round may still use is freed only afterwards.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.carry import carry
from chamelio.engine.catalogue import events
from chamelio.engine.cores import Cores, EngineError
from chamelio.engine.image import POLICIES, Image, ImageError, Unit
from chamelio.engine.instance import Instance
from chamelio.engine.ports import Port
from chamelio.jit.artifact import UnitImage
from chamelio.jit.layout import Layout

__all__ = ["Engine", "EngineError"]

NONE = 0xFFFFFFFF
MAX_TENANTS, MAX_INSTANCES, MAX_UNITS, MAX_PORTS = 256, 256, 64, 8
STEER = ("flow", "port")  # enum cham_steer


class _LoadedUnit:
    """A unit in the core's table: code, its `struct cham_unit`, and the image that it came from."""

    def __init__(self, code: Unit, image: UnitImage) -> None:
        self.code, self.image = code, image
        self.table = abi.alloc("cham_unit")
        code.entry(self.table.ctypes.data)
        self.table["cold"][0] = image.cold


def _address(text: str) -> int:
    """An IPv4 address in packet byte order, as the core keeps it."""
    try:
        return int.from_bytes(ipaddress.IPv4Address(text).packed, "little")
    except ValueError:
        raise EngineError(f"{text!r} is not an IPv4 address") from None


class Engine:
    """One or several cores. `start()` runs them on threads of their own; with `virtual` time they are stepped instead.

    `frames` are each core's; `counters` names a file that others may map to read `struct cham_counters`, one for each core;
    `poll` is "adaptive" (nap when idle) or "spin"; `cpus` pins the threads; `seed` fixes all secrets and random states, for
    tests; `policy` is how tenants share a core: "cycles" (deficit round robin, debt, early drop), or for comparison "packets"
    (round robin) or "off" (order of arrival). All methods are for one control thread at a time; they are thread-safe by a lock.
    Whoever runs an engine calls `refresh` about once a second.
    """

    def __init__(
        self,
        *,
        cores: int = 1,
        cpus: Sequence[int] = (),
        frames: int = 8192,
        virtual: bool = False,
        poll: str = "adaptive",
        counters: Path | None = None,
        hardening: bool = True,
        seed: int | None = None,
        policy: str = POLICIES[0],
    ) -> None:
        if policy not in POLICIES:
            raise EngineError(f"there is no policy called {policy!r}: it is one of {', '.join(POLICIES)}")
        if poll not in ("adaptive", "spin"):
            raise EngineError(f"there is no way of polling called {poll!r}: it is 'adaptive' or 'spin'")
        self.virtual, self.hardening, self.poll, self.cpus = virtual, hardening, poll, list(cpus)
        self.policy = policy
        self.image = Image(virtual=virtual, hardening=hardening, policy=policy)
        self.cores = Cores(
            self.image.call, cores, frames=frames, virtual=virtual, adaptive=poll == "adaptive", counters=counters, seed=seed
        )
        self._lock, self._command = self.cores.lock, self.cores.command
        self._ports: dict[int, tuple[str, Port, list[np.ndarray[Any, np.dtype[Any]]]]] = {}
        self._port_states: dict[int, str] = {}
        self._routes: list[dict[str, Any]] = []
        self._tenants: dict[int, dict[str, Any]] = {}
        self._units: dict[int, _LoadedUnit] = {}
        self._instances: dict[int, Instance] = {}

    @staticmethod
    def _free_index(used: Any, limit: int, what: str) -> int:
        for i in range(limit):
            if i not in used:
                return i
        raise EngineError(f"there are {limit} {what} already, which is all that an engine takes")

    # ---- ports and routes --------------------------------------------------------------------------------------

    def add_port(self, name: str, port: Port) -> int:
        """Put a port into service; returns its index. The engine closes it when it is removed."""
        with self._lock:
            if any(name == other for other, _, _ in self._ports.values()):
                raise EngineError(f"port {name} exists already")
            index = self._free_index(self._ports, MAX_PORTS, "ports")
            owner = self.cores[index % len(self.cores)]
            structures: list[np.ndarray[Any, np.dtype[Any]]] = []
            for part in reversed(port.chain):  # inner ports first: each points to the one before
                s = abi.alloc("cham_port")
                s["ops"] = self.image.address(part.ops_symbol)
                s["pool"], s["core"] = owner.pool_address, owner.index
                s["state"] = part.state_address
                s["inner"] = structures[-1].ctypes.data if structures else 0
                s["index"], s["network"], s["mtu"] = index, part.network, part.mtu
                s["mac"][0] = np.frombuffer(part.mac, np.uint8)
                s["csum_offload"] = part.csum_offload
                structures.append(s)
            for address in self._addresses(port.network):
                port.claim_address(address)
            self._command("ADD_PORT", f"port {name}", index, structures[-1].ctypes.data)
            self._ports[index] = (name, port, structures)
            if port.fd is not None:
                owner.watch(port.fd, bell=port.fd_is_bell)
            self._settle_sleep()
            return index

    def remove_port(self, index: int) -> None:
        """Take a port out of service with its routes, and close it; packets that wait in it are dropped and counted."""
        with self._lock:
            if index not in self._ports:
                raise EngineError(f"there is no port {index}")
            _, port, structures = self._ports[index]
            if port.fd is not None:  # as with an instance's bells
                self.cores[int(structures[0]["core"][0])].unwatch(port.fd)
            self._remove_routes(index)
            self._command("REMOVE_PORT", f"port {index}", index)
            del self._ports[index]
            self._settle_sleep()
            self._port_states.pop(index, None)
            port.close()

    def port_index(self, name: str) -> int:
        """The index of a port by its name. EngineError if there is none."""
        for index, (other, _, _) in self._ports.items():
            if other == name:
                return index
        known = ", ".join(sorted(n for n, _, _ in self._ports.values())) or "there are none"
        raise EngineError(f"there is no port {name!r} (ports: {known})")

    def add_route(self, prefix: str, port: int, gateway: str | None = None, network: int | None = None) -> None:
        """Packets of the port's network to `prefix` (CIDR) leave by it, to the destination itself or to a gateway.

        A port carries one network's packets: another `network` than the port's is refused.
        """
        try:
            net = ipaddress.IPv4Network(prefix)
        except ValueError as error:
            raise EngineError(f"{prefix!r} is not an IPv4 prefix: {error}") from None
        with self._lock:
            if port not in self._ports:
                raise EngineError(f"there is no port {port}")
            name, its = self._ports[port][0], self._ports[port][1].network
            if network not in (None, its):
                raise EngineError(f"route {prefix}: port {name} carries network {its}, not {network}")
            numbers = [_address(str(a)) for a in (net.network_address, net.netmask)]
            via = _address(gateway) if gateway else 0
            self._command("ADD_ROUTE", f"route {prefix}", its, *numbers, via, port)
            self._routes.append({"prefix": str(net), "port": port, "gateway": gateway, "network": its})

    def _remove_routes(self, port: int) -> None:
        """A port goes: whoever gets its number must not inherit its routes, for it may be of another network."""
        for route in [r for r in self._routes if r["port"] == port]:
            net = ipaddress.IPv4Network(route["prefix"])
            numbers = [_address(str(a)) for a in (net.network_address, net.netmask)]
            self._command("REMOVE_ROUTE", f"route {route['prefix']}", route["network"], *numbers)
            self._routes.remove(route)

    def refresh(self) -> dict[str, str]:
        """Once a second: let ports look at the outside world. Per port "up" or why it is down."""
        with self._lock:
            self._port_states = {index: port.refresh() for index, (_, port, _) in self._ports.items()}
            self._settle_sleep()
            return {self._ports[i][0]: state for i, state in self._port_states.items()}

    def _settle_sleep(self) -> None:
        """A core may sleep when all of its ports can wake it."""
        for core in self.cores:
            mine = [port for _, port, structures in self._ports.values() if int(structures[0]["core"][0]) == core.index]
            core.let_sleep(all(port.wakes for port in mine))

    # ---- tenants ---------------------------------------------------------------------------------------------------

    def add_tenant(self, weight: int = 1, frame_quota: int = 1024) -> int:
        """A tenant: its share is `weight`, its backlogs hold at most `frame_quota` frames."""
        self._check_weight(weight)
        with self._lock:
            index = self._free_index(self._tenants, MAX_TENANTS, "tenants")
            self._command("ADD_TENANT", f"tenant {index}", index, weight, max(1, frame_quota // len(self.cores)))
            self._tenants[index] = {"index": index, "weight": weight, "frame_quota": frame_quota, "addresses": []}
            return index

    @staticmethod
    def _check_weight(weight: int) -> None:
        if not 1 <= weight <= 1000:
            raise EngineError(f"a weight of {weight} is not within 1..1000")

    def _tenant(self, index: int) -> dict[str, Any]:
        if index not in self._tenants:
            raise EngineError(f"there is no tenant {index}")
        return self._tenants[index]

    def set_weight(self, tenant: int, weight: int) -> None:
        """Change a tenant's share."""
        self._check_weight(weight)
        with self._lock:
            self._tenant(tenant)["weight"] = weight
            self._command("SET_WEIGHT", f"tenant {tenant}", tenant, weight)

    def set_frame_quota(self, tenant: int, frame_quota: int) -> None:
        """Change how many frames a tenant's backlogs hold; what waits already is kept."""
        with self._lock:
            self._tenant(tenant)["frame_quota"] = frame_quota
            self._command("SET_FRAME_QUOTA", f"tenant {tenant}", tenant, max(1, frame_quota // len(self.cores)))

    def waiting_frames(self, tenant: int) -> int:
        """Frames in a tenant's backlogs now."""
        self._tenant(tenant)
        return sum(int(core.state["tenants"][0][tenant]["frames"]) for core in self.cores)

    def remove_tenant(self, tenant: int) -> None:
        """Remove a tenant with its instances and addresses."""
        with self._lock:
            about = self._tenant(tenant)
            for instance in [i for i in self._instances.values() if i.tenant == tenant]:
                self.remove_instance(instance.index)
            self._command("REMOVE_TENANT", f"tenant {tenant}", tenant)
            del self._tenants[tenant]
            for address, network in about["addresses"]:
                for _, port, _ in self._ports.values():
                    if port.network == network:
                        port.release_address(address)

    def bind_address(self, tenant: int, address: str, network: int = 0) -> None:
        """The tenant has this address from now on: the provider answers ARP and ICMP echo for it."""
        with self._lock:
            about = self._tenant(tenant)
            number = _address(address)
            ip = ipaddress.IPv4Address(address)
            if ip.is_multicast or ip.is_loopback or ip.is_unspecified or int(ip) == NONE:
                raise EngineError(f"{address} cannot be a tenant's address")
            self._command("BIND", f"address {address}", network, number, tenant, NONE, 0, 65535)
            about["addresses"].append((address, network))
            for _, port, _ in self._ports.values():
                if port.network == network:
                    port.claim_address(address)

    def _addresses(self, network: int) -> list[str]:
        return [a for t in self._tenants.values() for a, n in t["addresses"] if n == network]

    # ---- units ---------------------------------------------------------------------------------------------------------

    def load_unit(self, image: UnitImage) -> int:
        """Load a compiled unit; returns its index."""
        with self._lock:
            index = self._free_index(self._units, MAX_UNITS, "units")
            unit = self._load(image)
            self._command("SET_UNIT", f"unit {index}", index, unit.table.ctypes.data)
            self._units[index] = unit
            return index

    def _load(self, image: UnitImage) -> _LoadedUnit:
        try:
            return _LoadedUnit(self.image.load(image.objects), image)
        except ImageError as error:
            raise EngineError(str(error)) from None

    def _unit(self, index: int) -> _LoadedUnit:
        if index not in self._units:
            raise EngineError(f"there is no unit {index}")
        return self._units[index]

    @staticmethod
    def _check_fit(new: Layout, old: Layout) -> None:
        if not new.fits(old):
            raise EngineError("the new version's maps differ from those of the running one; remove the protocol and load it anew")

    def swap_unit(self, unit: int, image: UnitImage) -> float:
        """Replace a unit's code at a round's boundary, maps and flows kept; returns the seconds that took."""
        with self._lock:
            old = self._unit(unit)
            self._check_fit(image.layout, old.image.layout)
            new = self._load(image)
            started = time.perf_counter()
            self._command("SET_UNIT", f"unit {unit}", unit, new.table.ctypes.data)
            elapsed = time.perf_counter() - started
            self._units[unit] = new
            old.code.close()
            return elapsed

    def move_instance(self, index: int, unit: int) -> float:
        """Let another unit run an instance from the next round on, maps kept; returns the seconds that took."""
        with self._lock:
            instance = self._instance(index)
            self._check_fit(self._unit(unit).image.layout, instance.layout)
            started = time.perf_counter()
            self._command("MOVE_INSTANCE", f"instance {index}", index, unit)
            elapsed = time.perf_counter() - started
            instance.unit = unit
            return elapsed

    def unload_unit(self, unit: int) -> None:
        """Free a unit that no instance uses."""
        with self._lock:
            loaded = self._unit(unit)
            if any(i.unit == unit for i in self._instances.values()):
                raise EngineError(f"unit {unit} is still in use")
            self._command("SET_UNIT", f"unit {unit}", unit, 0)
            del self._units[unit]
            loaded.code.close()

    # ---- instances -----------------------------------------------------------------------------------------------------

    def _instance(self, index: int) -> Instance:
        if index not in self._instances:
            raise EngineError(f"there is no instance {index}")
        return self._instances[index]

    def add_instance(
        self,
        tenant: int,
        unit: int,
        address: str,
        ip_protocol: int,
        *,
        network: int = 0,
        ports: tuple[int, int] = (0, 65535),
        ring_start: int = 0,
        steer: str = "flow",
        bound: bool = True,
    ) -> Instance:
        """Run a protocol at one of a tenant's addresses; not `bound`, it is prepared to take another instance's place there.

        `ring_start`: first index of every ring, for tests of wrapping; `steer`: what decides which core a flow lives on.
        """
        with self._lock:
            about = self._tenant(tenant)
            loaded = self._unit(unit)
            if (address, network) not in about["addresses"]:
                raise EngineError(f"tenant {tenant} does not have the address {address}")
            if not 1 <= ip_protocol <= 255 or ip_protocol == 1:
                raise EngineError(f"IP protocol {ip_protocol} is not a tenant's: use 2..255 (ICMP is the provider's)")
            if not 0 <= ports[0] <= ports[1] <= 65535:
                raise EngineError(f"ports {ports[0]}..{ports[1]} are not a range within 0..65535")
            if steer not in STEER:
                raise EngineError(f"flows are steered by {' or '.join(STEER)}, not by {steer!r}")
            index = self._free_index(self._instances, MAX_INSTANCES, "instances")
            made = (index, tenant, unit, address, network, ip_protocol, ports, ring_start, loaded.image.layout)
            try:
                instance = Instance(*made, cores=len(self.cores), steer=steer)
            except OSError as error:
                raise EngineError(f"no memory for another instance: {error.strerror}") from None
            self._prepare(instance, loaded.image.layout)
            if not bound:
                for memory in instance.memory.cores:
                    memory.head["state"] = abi.enum("cham_instance_state")["CHAM_INSTANCE_PREPARED"]
            self._command("ADD_INSTANCE", f"instance {index}", [m.base for m in instance.memory.cores])
            span = ports[0] << 16 | ports[1]
            what = f"IP protocol {ip_protocol} at {address}"
            try:
                where = (network, _address(address), tenant, index, ip_protocol, span, STEER.index(steer))
                if bound:
                    self._command("BIND", what, *where)
            except EngineError:
                self._command("REMOVE_INSTANCE", f"instance {index}", index)
                instance.close()
                raise
            self._instances[index] = instance
            for core, bell in zip(self.cores, instance.core_bells, strict=True):
                core.watch(bell.fd, bell=True)
            return instance

    def _prepare(self, instance: Instance, layout: Layout) -> None:
        secret = self.cores.words(2)
        for memory in instance.memory.cores:
            head = memory.head
            head["secret"][0] = secret
            head["cookie_secret"][0], head["random"][0] = self.cores.words(2), self.cores.words(1)[0]
            head["index"], head["tenant"], head["unit"] = instance.index, instance.tenant, instance.unit
            head["network"], head["address"] = instance.network, _address(instance.address)
            head["protocol"] = instance.ip_protocol
            head["maps"], head["n_maps"] = instance.memory.descriptors.ctypes.data, len(layout.maps)
            head["raw_rings"] = layout.private_bytes + layout.punt
            self.image.call["cham_instance_init"](memory.base, instance.ring_start)
            head["bells"][0, : layout.contexts] = instance.ring_fds()

    def pause_instance(self, index: int, *, pause: bool) -> None:
        """Let nothing of an instance run, while what comes for it waits; or let it go on."""
        with self._lock:
            state = self.state_of(index)
            if state != ("active" if pause else "paused"):
                raise EngineError(f"instance {index} is {state}")
            self._command("PAUSE_INSTANCE", f"instance {index}", index, int(pause))

    def carry_maps(self, old: int, new: int, names: Sequence[str]) -> None:
        """Copy maps from a paused instance to a prepared one."""
        with self._lock:
            states = self.state_of(old), self.state_of(new)
            if states != ("paused", "prepared"):
                raise EngineError(f"instances {old} and {new} are {' and '.join(states)}, not paused and prepared")
            try:
                carry(self._instance(old), self._instance(new), names)
            except (KeyError, ValueError) as error:
                raise EngineError(f"maps cannot be carried over: {error}") from None

    def replace_instance(self, old: int, new: int) -> None:
        """What is for a paused instance is for a prepared one from now on, packets that wait first; then the old one is removed."""
        with self._lock:
            self._instance(new)
            self._instance(old)
            self._command("REPLACE_INSTANCE", f"instance {old}", old, new)
            self.remove_instance(old)

    def remove_instance(self, index: int) -> None:
        """Stop an instance and free its memory; packets that wait for it are dropped and counted."""
        with self._lock:
            instance = self._instance(index)
            for core, bell in zip(self.cores, instance.core_bells, strict=True):
                core.unwatch(bell.fd)  # before the command: after it no core is about to empty a bell that is closed
            self._command("REMOVE_INSTANCE", f"instance {index}", index)
            del self._instances[index]
            instance.close()

    def attach(self, instance: int, context: int) -> None:
        """Give a context (0: the slow path, 1..: applications) to a new owner: its rings begin empty."""
        with self._lock:
            one = self._instance(instance)
            if not 0 <= context < one.layout.contexts:
                raise EngineError(f"context {context} is not within 0..{one.layout.contexts - 1}")
            self._drain_bell(one.bells[context])
            self._command("ATTACH", f"context {context}", instance, context, one.ring_start)

    @staticmethod
    def _drain_bell(fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 1 << 16)

    def detach(self, instance: int, context: int) -> None:
        """Nobody uses the context any more."""
        with self._lock:
            self._instance(instance)
            self._command("DETACH", f"context {context}", instance, context)

    # ---- running ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run rounds on threads of their own until `stop`."""
        if self.virtual:
            raise EngineError("an engine in virtual time is stepped, not started")
        self.cores.start(self.cpus)

    def stop(self) -> None:
        """Stop the threads after the rounds that they are in."""
        self.cores.stop()

    @property
    def running(self) -> bool:
        """Whether all cores' threads run."""
        return self.cores.running

    def step(self, now_ns: int) -> bool:
        """Virtual time: one round of every core at `now_ns`. True if anything was done; `now` tells how long it took."""
        return self.cores.step(now_ns)

    @property
    def now(self) -> int:
        """The cores' clock in ns: in virtual time, when the last round ended."""
        return self.cores.now

    def next_deadline(self) -> int | None:
        """Virtual time: when something will be due that no packet announces (timers, paced sends, neighbours, faults), in ns."""
        next_due = self.image.call["cham_next_due"]
        due = [
            next_due(core.address, memory.base)
            for instance in self._instances.values()
            for core, memory in zip(self.cores, instance.memory.cores, strict=True)
        ]
        for _, port, structures in self._ports.values():
            for part, s in zip(reversed(port.chain), structures, strict=True):
                if part.kind == "fault":
                    due.append(self.image.call["cham_fault_due"](s.ctypes.data))
        incomplete = abi.enum("cham_neighbour_state")["CHAM_NB_INCOMPLETE"]
        for core in self.cores:
            entries, looks = core.state["neighbours"][0], int(core.state["neighbours_due"][0])
            due += [max(int(when), looks) for when in entries["expires"][entries["state"] == incomplete]]
        earliest = min(due, default=2**64 - 1)
        return None if earliest == 2**64 - 1 else earliest

    # ---- looking ---------------------------------------------------------------------------------------------------------

    def counters(self) -> Any:
        """`struct cham_counters`, all cores together: names as in fastpath/core.h, values as NumPy scalars and arrays."""
        return self.cores.total_counters()

    @property
    def free_frames(self) -> tuple[int, int]:
        """Frames in the pools now, and of how many. Equal when nothing is in flight."""
        return self.cores.free_frames

    def count_frames(self) -> dict[str, int]:
        """Where the frames are: `free`, `waiting` (backlogs, next hops, ports, other cores), `lost`: the rest, which must be 0."""
        return self.cores.count_frames()

    def damaged_rings(self) -> dict[int, int]:
        """Per instance how often one of its rings was found damaged."""
        event = [e.name for e in events()].index("ring_damaged")
        return {i: int(self.counters()["instances"][i]["events"][event]) for i in self._instances}

    def port_counters(self, index: int) -> dict[str, int]:
        """Counters of a port, as the outermost wrapper has them."""
        counters = self._ports[index][2][-1]["counters"][0]
        return {name: int(counters[name]) for name in counters.dtype.names}

    def instances(self) -> Sequence[Instance]:
        """All instances."""
        return tuple(self._instances.values())

    def instance(self, index: int) -> Instance:
        """One instance. EngineError if there is none of that index."""
        return self._instance(index)

    def state_of(self, index: int) -> str:
        """ "active", "quarantined", "paused" or "prepared"."""
        names = {number: name for name, number in abi.enum("cham_instance_state").items()}
        states = {int(m.head["state"][0]) for m in self._instance(index).memory.cores}
        states.discard(abi.enum("cham_instance_state")["CHAM_INSTANCE_ACTIVE"])
        return names[max(states)].removeprefix("CHAM_INSTANCE_").lower() if states else "active"

    @property
    def hz(self) -> float:
        """Cycles per second of the clock."""
        return 1e9 * 2**32 / int(self.cores[0].state["ns_per_cycle"][0])

    def describe(self) -> dict[str, Any]:
        """Everything that a new control plane has to know, as plain values."""
        with self._lock:
            return {
                "virtual": self.virtual,
                "hardening": self.hardening,
                "poll": self.poll,
                "policy": self.policy,
                "cores": len(self.cores),
                "cpus": self.cpus,
                "running": self.running,
                "frames": self.count_frames(),
                "ports": [
                    {
                        "index": index,
                        "label": name,
                        "state": self._port_states.get(index, "up"),
                        "counters": self.port_counters(index),
                        **port.describe(),
                    }
                    for index, (name, port, _) in self._ports.items()
                ],
                "routes": [dict(route) for route in self._routes],
                "tenants": [{**t, "addresses": [list(a) for a in t["addresses"]]} for t in self._tenants.values()],
                "units": [
                    {"index": index, "key": u.image.key, "mode": u.image.mode, "protocol_sha": u.image.protocol_sha,
                     "cold": u.image.cold, "warm": u.image.warm, "instructions": u.image.instructions}
                    for index, u in self._units.items()
                ],
                "instances": [{**i.describe(), "state": self.state_of(i.index)} for i in self._instances.values()],
            }  # fmt: skip

    def close(self) -> None:
        """Stop, and give everything back."""
        self.stop()
        for index in list(self._instances):
            self.remove_instance(index)
        for index in list(self._ports):
            self.remove_port(index)
        for unit in self._units.values():
            unit.code.close()
        self._units.clear()
        self.cores.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
