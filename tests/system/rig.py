"""What the tests of whole systems share: names, addresses, and a host as they see it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chamelio.bench.netns import NetNs
from chamelio.bench.stage import Stage

SERVER, CLIENT = "red", "blue"
ADDRESSES = {SERVER: "10.77.0.10", CLIENT: "10.77.0.20"}
PEER, HOST, ROUTER, FAR = "10.77.0.1", "10.77.0.2", "10.88.0.1", "10.88.0.2"
ECHO_PORT = 7


@dataclass
class System:
    """`peer` is a Linux host beside the engine's port, and the router to `far`. `host` is where an AF_XDP port's interface is."""

    backend: str
    stage: Stage
    peer: NetNs
    far: NetNs
    host: NetNs | None

    def udp(self, tenant: str) -> dict[str, Any]:
        """Counters of a tenant's protocol."""
        counters: dict[str, Any] = self.stage.call("stats")["tenants"][tenant]["protocols"]["udp"]
        return counters

    def host_drops(self) -> dict[str, int]:
        """Packets for nobody, by reason."""
        drops: dict[str, int] = self.stage.call("stats")["drops"]
        return drops

    def tenant_drops(self) -> dict[str, Any]:
        """Packets that tenants have lost, by tenant and reason; handlers' own reasons too."""
        tenants = self.stage.call("stats")["tenants"]
        return {name: (t["drops"], t["protocols"]["udp"]["drops"], t["protocols"]["udp"]["reasons"]) for name, t in tenants.items()}

    def icmp_received(self, where: NetNs) -> int:
        """ICMP messages that Linux has received (RFC 2011, icmpInMsgs)."""
        names, values = (
            line.split()
            for line in where.call(Path("/proc/thread-self/net/snmp").read_text).splitlines()
            if line.startswith("Icmp:")
        )
        return int(values[names.index("InMsgs")])


def until(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
