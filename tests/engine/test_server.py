"""The engine process beside its core."""

from __future__ import annotations

from typing import Any

import pytest

from chamelio.engine.client import Settings
from chamelio.engine.server import COMPLAINT_SECONDS, Server
from virtual import CONTEXTS, Net, Tenant


@pytest.mark.fault(1)
def test_damaged_rings_are_reported_once_a_minute_however_often_they_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    with Net() as net:
        tenant = Tenant(net.host, "10.0.0.1")
        server = Server(net.host, Settings())
        server.labels.instances[tenant.instance.index] = {"tenant": "red", "protocol": "udp"}
        now = 1000.0
        lines: list[str] = []

        def look(after: float) -> int:
            nonlocal now
            now += after
            server.report_damage(now)
            said = capsys.readouterr().err.splitlines()
            lines.extend(said)
            return len(said)

        def lie() -> None:
            for context in range(CONTEXTS):
                net.host.attach(tenant.instance.index, context)
            tenant.ring("requests", 1).prod = 1 << 31
            net.run()

        assert look(0) == 0
        lie()
        assert look(1) == 1 and "udp of tenant red: 1 rings" in lines[-1]
        for _ in range(20):
            lie()
            assert look(1) == 0
        assert look(COMPLAINT_SECONDS) == 1 and "20 rings" in lines[-1]
        assert look(COMPLAINT_SECONDS) == 0


def test_a_new_instance_of_an_old_number_is_reported_anew(capsys: pytest.CaptureFixture[str]) -> None:
    with Net() as net:
        server = Server(net.host, Settings())

        def lying_tenant() -> Any:
            tenant = Tenant(net.host, "10.0.0.1")
            tenant.ring("requests", 1).prod = 1 << 31
            net.run()
            return tenant

        first = lying_tenant()
        server.report_damage(1.0)
        net.host.remove_tenant(first.index)
        server.report_damage(2.0)
        again = lying_tenant()
        server.report_damage(3.0)
        assert again.instance.index == first.instance.index
        assert len(capsys.readouterr().err.splitlines()) == 2
