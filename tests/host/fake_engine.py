"""An engine process without a core: real regions and doorbells, no packets. For tests of the control plane."""

from __future__ import annotations

import sys
import types
from typing import Any

import msgspec

from chamelio.jit.layout import Layout


class Image(msgspec.Struct):
    """What a fake engine needs of a UnitImage."""

    key: str
    layout: Layout


compile_stub = types.ModuleType("chamelio.jit.compile")  # neither the verifier nor the lifter is needed here
compile_stub.UnitImage = Image  # type: ignore[attr-defined]
sys.modules["chamelio.jit.compile"] = compile_stub

from chamelio.engine import server  # noqa: E402
from chamelio.engine.engine import EngineError, Instance  # noqa: E402


class FakeEngine:
    """What `chamelio.engine.engine.Engine` offers to its server, in memory."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        options["counters"].write_bytes(bytes(1 << 22))
        self.ports: dict[int, tuple[str, Any]] = {}
        self.routes: list[dict[str, Any]] = []
        self.tenants: dict[int, dict[str, Any]] = {}
        self.units: dict[int, Any] = {}
        self.all: dict[int, Instance] = {}
        self.attached: list[tuple[int, int]] = []

    @staticmethod
    def _free(used: Any) -> int:
        return next(i for i in range(256) if i not in used)

    def add_port(self, name: str, port: Any) -> int:
        index = self._free(self.ports)
        self.ports[index] = (name, port)
        return index

    def remove_port(self, index: int) -> None:
        self.ports.pop(index)[1].close()

    def add_route(self, prefix: str, port: int, gateway: str | None = None, network: int = 0) -> None:
        self.routes.append({"prefix": prefix, "port": port, "gateway": gateway, "network": network})

    def refresh(self) -> None:
        pass

    def count_frames(self) -> dict[str, int]:
        return {"free": 1, "waiting": 0, "total": 1, "lost": 0}

    def damaged_rings(self) -> dict[int, int]:
        return {}

    def add_tenant(self, weight: int = 1, frame_quota: int = 1024) -> int:
        if not 1 <= weight <= 1000:
            raise EngineError(f"a weight of {weight} is not within 1..1000")
        index = self._free(self.tenants)
        self.tenants[index] = {"index": index, "weight": weight, "addresses": []}
        return index

    def set_weight(self, tenant: int, weight: int) -> None:
        self.tenants[tenant]["weight"] = weight

    def set_frame_quota(self, tenant: int, frame_quota: int) -> None:
        self.tenants[tenant]["frame_quota"] = frame_quota

    def waiting_frames(self, tenant: int) -> int:
        return 0

    def remove_tenant(self, tenant: int) -> None:
        for instance in [i for i in self.all.values() if i.tenant == tenant]:
            self.remove_instance(instance.index)
        del self.tenants[tenant]

    def bind_address(self, tenant: int, address: str, network: int = 0) -> None:
        for other in self.tenants.values():
            if (address, network) in other["addresses"]:
                raise EngineError(f"address {address} is taken already")
        self.tenants[tenant]["addresses"].append((address, network))

    def load_unit(self, image: Any) -> int:
        index = self._free(self.units)
        self.units[index] = image
        return index

    def unload_unit(self, unit: int) -> None:
        if any(i.unit == unit for i in self.all.values()):
            raise EngineError(f"unit {unit} is still in use")
        del self.units[unit]

    def add_instance(
        self, tenant: int, unit: int, address: str, ip_protocol: int, *, network: int, ports: tuple[int, int], steer: str = "flow"
    ) -> Instance:
        for i in self.all.values():
            if (i.address, i.network, i.ip_protocol) == (address, network, ip_protocol):
                raise EngineError(f"IP protocol {ip_protocol} at {address} is taken already")
        index = self._free(self.all)
        layout = self.units[unit].layout
        self.all[index] = Instance(index, tenant, unit, address, network, ip_protocol, ports, 0, layout)
        return self.all[index]

    def move_instance(self, index: int, unit: int) -> float:
        self.all[index].unit = unit
        return 1e-6

    def remove_instance(self, index: int) -> None:
        self.instance(index)
        self.all.pop(index).close()
        self.attached = [a for a in self.attached if a[0] != index]

    def instance(self, index: int) -> Instance:
        if index not in self.all:
            raise EngineError(f"there is no instance {index}")
        return self.all[index]

    def instances(self) -> tuple[Instance, ...]:
        return tuple(self.all.values())

    def attach(self, instance: int, context: int) -> None:
        self.instance(instance)
        self.attached.append((instance, context))

    def detach(self, instance: int, context: int) -> None:
        self.attached.remove((instance, context))

    def start(self) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {
            "ports": [{"index": i, "label": n, "state": "up", "counters": {}, **p.describe()} for i, (n, p) in self.ports.items()],
            "routes": self.routes,
            "tenants": list(self.tenants.values()),
            "units": [{"index": i, "key": u.key} for i, u in self.units.items()],
            "instances": [i.describe() for i in self.all.values()],
            "attached": self.attached,
        }

    def close(self) -> None:
        for instance in self.instances():
            instance.close()
        for _, port in self.ports.values():
            port.close()


if __name__ == "__main__":
    sys.exit(server.main(make=FakeEngine))
