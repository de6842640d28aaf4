"""A host with two tenants of one protocol, as real processes: for tests in which agents die and applications go on."""

from __future__ import annotations

import os
import signal

from chamelio.bench.stage import Process, Stage

ADDRESSES = {"red": "10.0.0.1", "blue": "10.0.0.2"}


class Pair:
    """Tenants red and blue and their agents."""

    def __init__(self, stage: Stage, protocol: str) -> None:
        self.stage, self.protocol = stage, protocol
        self.agents: dict[str, Process] = {}
        for tenant, address in ADDRESSES.items():
            stage.tenant(tenant, address)
            stage.load(tenant, protocol)
            self.agents[tenant] = stage.agent(tenant, protocol)

    def replace_agent(self, tenant: str) -> None:
        """Kill it and start another one."""
        os.kill(self.agents[tenant].pid, signal.SIGKILL)
        self.agents[tenant] = self.stage.agent(tenant, self.protocol)
