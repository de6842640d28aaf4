"""Quotas on everything that is finite: refused beyond them with the numbers, shown as used and limit."""

from __future__ import annotations

from typing import Any

import pytest

from chamelio.host.quotas import KINDS, CompilerTime
from chamelio.messages import Refusal, close_all
from host.rig import Host, wait_until

ARRAY, HASH, RING_IN, TIMER = 1, 2, 4, 7


def used(host: Host, tenant: str = "a") -> dict[str, Any]:
    quotas = host.call("tenant.show", tenant=tenant)["quotas"]
    return {name: q["used"] for name, q in quotas.items()}


# the tenant's quota, an object that keeps to it, one that goes beyond, and the numbers in the refusal
BEYOND = {
    "memory": (600_000, {}, {"maps": [["values", ARRAY, 1 << 16]]}, "bytes"),
    "flows": (40, {"maps": [["a", ARRAY, 8], ["b", HASH, 8]]}, {"maps": [["a", HASH, 8]]}, "needs 16 map entries.*32 of 40"),
    "timers": (16, {"maps": [["t", TIMER, 0]]}, {"maps": [["t", TIMER, 0]]}, "needs 16 ids.*16 of 16"),
    "rings": (10, {"maps": [["r", RING_IN, 8]]}, {"maps": [["r", RING_IN, 8]]}, "needs 7 rings.*7 of 10"),
    "protocols": (1, {}, {}, "1 of 1 protocols"),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("quota", BEYOND)
def test_beyond_a_quota_is_refused_with_the_numbers(host: Host, quota: str) -> None:
    limit, fits, beyond, numbers = BEYOND[quota]
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], quotas={quota: limit})
    host.load("a", "one", ip_protocol=17, **fits)
    before = used(host)
    with pytest.raises(Refusal, match=numbers) as refusal:
        host.load("a", "two", ip_protocol=200, other=1, **beyond)
    assert (refusal.value.code, refusal.value.exit) == ("quota", 5)
    assert refusal.value.details["quota"] == quota and refusal.value.details["limit"] == limit
    assert used(host) == before
    host.call("tenant.set", tenant="a", quotas={quota: 1 << 30})
    assert host.load("a", "two", ip_protocol=200, other=1, **beyond)["action"] == "created"


def test_contexts_are_counted_over_all_protocols(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], quotas={"contexts": 2})
    with host.connect() as agent:
        instances = []
        for name, number in (("one", 17), ("two", 200)):
            host.load("a", name, ip_protocol=number)
            about, fds = agent.call("attach", tenant="a", protocol=name)
            close_all(fds)
            instances.append(about["instance"])
        first, second = instances
        agent.call("context.open", instance=first)
        opened = agent.call("context.open", instance=second)[0]
        with pytest.raises(Refusal, match="has used 2 of 2 contexts") as refusal:
            agent.call("context.open", instance=first)
        assert refusal.value.exit == 5
        agent.call("context.close", instance=second, context=opened["context"])
        agent.call("context.open", instance=first)
        assert used(host)["contexts"] == 2


def test_a_dormant_protocol_is_no_way_around_the_memory_quota(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a", "one", ip_protocol=17)
    with host.connect() as agent:
        close_all(agent.call("attach", tenant="a", protocol="one")[1])
    assert wait_until(lambda: host.call("protocol.show", tenant="a", protocol="one")["state"] == "dormant")
    assert used(host)["memory"] == 0
    host.load("a", "two", ip_protocol=200)
    host.call("tenant.set", tenant="a", quotas={"memory": used(host)["memory"]})
    assert host.refused("attach", tenant="a", protocol="one").exit == 5


def test_what_is_used_and_the_limit_are_shown(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], quotas={"memory": 1 << 20, "frames": 99})
    host.load("a", maps=[["flows", HASH, 8], ["due", TIMER, 0], ["requests", RING_IN, 8]])
    quotas = host.call("tenant.show", tenant="a")["quotas"]
    assert quotas.keys() == KINDS.keys()
    assert quotas["memory"]["used"] == host.call("protocol.show", tenant="a", protocol="udp")["memory_bytes"]
    assert quotas["memory"]["limit"] == 1 << 20 and quotas["frames"] == {"used": 0, "limit": 99}
    assert [quotas[name]["used"] for name in ("flows", "timers", "rings", "protocols")] == [16, 16, 7, 1]
    changed = host.call("tenant.set", tenant="a", weight=4, quotas={"frames": 7})
    assert changed["weight"] == 4 and changed["quotas"]["frames"]["limit"] == 7
    assert host.engine()["engine"]["tenants"][0]["frame_quota"] == 7
    assert host.refused("tenant.set", tenant="a", quotas={"frames": -1}).code == "usage"
    assert host.refused("tenant.set", tenant="a", quotas={"size": 1}).code == "usage"


def test_quotas_outlive_the_daemon(make_host: Any) -> None:
    host: Host = make_host()
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], quotas={"flows": 123})
    host.kill()
    host.start()
    assert host.call("tenant.show", tenant="a")["quotas"]["flows"]["limit"] == 123


# ---- the compiler's time -------------------------------------------------------------------------------------------------


def test_compiler_time_is_refused_beyond_the_quota_and_known_code_is_not(make_host: Any) -> None:
    host: Host = make_host(limits={"compiler_window_seconds": 1.5})
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], quotas={"compiler": 10})
    host.call("tenant.add", name="b", addresses=["10.0.0.3"])
    host.load("b", version=3)
    host.load("a", version=1, cpu_seconds=6.0)
    with pytest.raises(Refusal):
        host.load("a", reject=True, cpu_seconds=6.5)  # what was refused has cost time, too
    assert used(host)["compiler"] == 12.5
    with pytest.raises(Refusal, match=r"has used 12\.5 of 10 s of the compiler's time in the last 1\.5 s") as refusal:
        host.load("a", version=2)
    assert refusal.value.exit == 5 and "come back in" in refusal.value.remedy
    assert 0 < refusal.value.details["retry_seconds"] <= 1.5
    assert host.load("a", version=3)["action"] == "swapped"  # which b has paid for
    assert host.load("b", version=4)["action"] == "swapped"
    assert wait_until(lambda: used(host)["compiler"] == 0, 5.0)
    assert host.load("a", version=2)["action"] == "swapped"


def test_the_window_slides() -> None:
    now = 100.0
    spent = CompilerTime(60.0, lambda: now)
    for seconds in (4.0, 5.0, 6.0):
        spent.add("a", seconds)
        now += 10.0
    assert (spent.used("a"), spent.used("b")) == (15.0, 0)
    assert spent.wait("a", 16.0) == 0.0
    assert spent.wait("a", 15.0) == 30.0  # when the first is out of the window
    assert spent.wait("a", 6.0) == 50.0
    assert spent.wait("a", 0.0) > 0
    now = 165.0
    assert spent.used("a") == 11.0
