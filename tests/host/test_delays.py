"""What a tenant was promised about its delay is kept, or what would break it is refused with the numbers: a whole host."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from chamelio.bench.stage import Stage
from chamelio.messages import Refusal


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as one:
        for tenant, address in (("red", "10.0.0.1"), ("blue", "10.0.0.2")):
            one.tenant(tenant, address)
            one.load(tenant, "udp")
        yield one


def bound_of(stage: Stage, tenant: str) -> float:
    (one,) = stage.call("bound", tenant=tenant)["tenants"]
    return float(one["us"])


def test_a_promise_is_kept_or_what_would_break_it_is_refused(stage: Stage) -> None:
    now = bound_of(stage, "red")
    with pytest.raises(Refusal, match="promised a delay of at most 1 us"):
        stage.call("tenant.set", tenant="red", delay_us=1)
    assert stage.call("tenant.set", tenant="red", delay_us=math.ceil(now))["delay_us"] == math.ceil(now)
    for verb, more in (("tenant.weight", {"weight": 50}), ("tenant.set", {"weight": 2})):
        with pytest.raises(Refusal, match="tenant red was promised"):
            stage.call(verb, tenant="blue", **more)
    with pytest.raises(Refusal, match="tenant red was promised") as refused:
        stage.load("blue", "rpc")
    assert refused.value.code == "quota"
    assert bound_of(stage, "red") == now, "nothing has changed"
    stage.load("red", "rpc")
    assert bound_of(stage, "red") == now, "its own protocols are not in its way"
    stage.call("tenant.set", tenant="red", delay_us=0)
    stage.load("blue", "rpc")
    assert bound_of(stage, "red") > now
