"""Tenants, protocols and agents, as the API offers them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from chamelio.messages import Refusal, close_all
from host.rig import GRACE_S, Host, descriptors, wait_until


def token_of(host: Host, tenant: str) -> str:
    return (host.run / "tenants" / tenant / "token").read_text().strip()


@pytest.mark.fault(7)
def test_a_tenant_loads_attaches_and_its_region_is_sealed(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    loaded = host.load("a", token=token_of(host, "a"))
    assert (loaded["action"], loaded["unit_shared"]) == ("created", False)
    with host.connect() as agent:
        about, fds = agent.call("attach", tenant="a", protocol="udp", token=token_of(host, "a"))
        assert len(fds) == 1 + about["layout"]["contexts"] + 1  # region, doorbells, the bell of the one core
        seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_SHRINK and seals & fcntl.F_SEAL_GROW
        with pytest.raises(PermissionError):
            os.ftruncate(fds[0], 0)
        close_all(fds)
        shown = host.call("protocol.show", tenant="a", protocol="udp")
        assert (shown["state"], shown["agent"]) == ("attached", os.getpid())


def test_a_second_tenant_of_a_known_protocol_shares_the_unit(host: Host) -> None:
    for name, address in (("a", "10.0.0.2"), ("b", "10.0.0.3")):
        host.call("tenant.add", name=name, addresses=[address])
    host.load("a")
    loaded = host.load("b")
    assert (loaded["cached"], loaded["unit_shared"]) == (True, True)
    assert len(host.engine()["engine"]["units"]) == 1
    host.call("tenant.rm", tenant="a")
    assert len(host.engine()["engine"]["units"]) == 1
    host.call("protocol.rm", tenant="b", protocol="udp")
    assert host.engine()["engine"]["units"] == []


def test_memory_is_shown_per_tenant_per_core_and_per_flow(make_host: object) -> None:
    host: Host = make_host(engine={"cores": 2})  # type: ignore[operator]
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a", maps=[["table", 2, 24], ["buffers", 5, 4096], ["received", 3, 16], ["due", 7, 0]])
    shown = host.call("protocol.show", tenant="a", protocol="udp")
    memory = shown["memory"]
    per_core = memory["private_bytes_per_core"] + memory["region_bytes_per_core"]
    assert memory["cores"] == 2
    assert memory["bytes"] == shown["memory_bytes"] == 2 * per_core + memory["region_bytes"]
    assert (memory["flows"], memory["per_flow_bytes"]) == (16, round(memory["bytes"] / 16))
    entries = {name: (m["entries"], m["bytes_per_entry"]) for name, m in memory["maps"].items()}
    # a value, a key, a place in the free list, and its part of four buckets
    assert entries == {"table": (16, 24 + 4 + 4 + 16), "buffers": (16, 4096), "received": (16, None), "due": (16, 24)}
    assert memory["region_bytes"] > 16 * 4096


def test_a_version_that_fits_is_swapped_in_for_its_tenant_alone(host: Host) -> None:
    for name, address in (("a", "10.0.0.2"), ("b", "10.0.0.3")):
        host.call("tenant.add", name=name, addresses=[address])
        host.load(name)
    swapped = host.load("a", version=2)
    assert swapped["action"] == "swapped" and swapped["seconds"]["swap"] > 0
    units = {i["tenant"]: i["unit"] for i in host.engine()["engine"]["instances"]}
    assert units[0] != units[1]
    assert host.load("b", version=2)["unit_shared"]
    assert len(host.engine()["engine"]["units"]) == 1


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"maps": [["values", 1, 8], ["more", 1, 8]]}, "adds more"),
        ({"maps": [["other", 1, 8]]}, "adds other and it lacks values"),
        ({"maps": [["values", 1, 16]]}, "value_size of map values is 16, not 8"),
        ({"maps": [["values", 2, 8]]}, "kind of map values is 2, not 1"),
        ({"types": ["s64"]}, "value type of map values is s64, not u64"),
    ],
)
def test_a_version_that_does_not_fit_is_refused_and_the_old_one_runs_on(host: Host, change: dict[str, object], reason: str) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    before = host.call("protocol.show", tenant="a", protocol="udp")["unit"]
    with pytest.raises(Refusal, match=reason) as refusal:
        host.load("a", **change)
    assert refusal.value.code == "unfit"
    assert host.call("protocol.show", tenant="a", protocol="udp")["unit"] == before
    assert len(host.engine()["engine"]["units"]) == 1


def test_a_rejected_object_leaves_nothing_behind(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    with pytest.raises(Refusal) as refusal:
        host.load("a", reject=True)
    assert (refusal.value.code, refusal.value.exit) == ("rejected", 3)
    assert refusal.value.details["verdicts"] == [{"code": "V102"}]
    assert host.call("tenant.show", tenant="a")["protocols"] == []


def test_a_dying_compiler_is_a_refusal_and_is_replaced(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    with pytest.raises(Refusal) as refusal:
        host.load("a", die=True)
    assert refusal.value.code == "compiler_down"
    assert host.load("a")["action"] == "created"


def test_quotas_on_protocols_and_memory(make_host: object) -> None:
    host: Host = make_host(limits={"quotas": {"protocols": 2}})  # type: ignore[operator]
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], quotas={"memory": 600_000})
    host.load("a", "one", ip_protocol=17)
    with pytest.raises(Refusal, match="needs") as refusal:
        host.load("a", "two", ip_protocol=200, maps=[["big", 1, 1 << 16]])
    assert (refusal.value.code, refusal.value.exit) == ("quota", 5)
    host.load("a", "two", ip_protocol=200)
    with pytest.raises(Refusal, match="2 of 2 protocols") as refusal:
        host.load("a", "three", ip_protocol=201)
    assert refusal.value.exit == 5


@pytest.mark.fault(6)
def test_an_address_has_one_owner(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    error = host.refused("tenant.add", name="b", addresses=["10.0.0.9", "10.0.0.2"])
    assert "10.0.0.2 is taken" in error.message
    host.call("tenant.add", name="b", addresses=["10.0.0.9"])  # nothing of the failed attempt was kept
    assert host.refused("tenant.add", name="b", addresses=["10.0.0.10"]).code == "exists"


# ---- who may what -----------------------------------------------------------------------------------------------------


@pytest.mark.fault(26)
def test_a_token_makes_its_holder_that_tenant_and_nobody_else(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.call("tenant.add", name="b", addresses=["10.0.0.3"])
    host.load("b")
    before = host.engine()
    token = token_of(host, "a")
    assert [t["name"] for t in host.call("tenant.list", token=token)] == ["a"]
    assert list(host.call("stats", token=token)["tenants"]) == ["a"]
    for verb, arguments in (
        ("tenant.show", {"tenant": "b"}),
        ("protocol.show", {"tenant": "b", "protocol": "udp"}),
        ("protocol.rm", {"tenant": "b", "protocol": "udp"}),
        ("attach", {"tenant": "b", "protocol": "udp"}),
        ("tenant.add", {"name": "c", "addresses": ["10.0.0.4"]}),
        ("tenant.rm", {"tenant": "a"}),
        ("tenant.weight", {"tenant": "a", "weight": 1000}),
        ("port.add", {"name": "x", "spec": "wire:x"}),
        ("shutdown", {}),
        ("status", {}),
    ):
        assert host.refused(verb, token=token, **arguments).code == "denied", verb
    assert host.refused("tenant.list", token="0" * 64).code == "denied"
    assert host.refused("context.open", instance=0).code == "denied"
    assert host.engine() == before


def test_the_providers_token_is_the_provider(host: Host) -> None:
    token = (host.run / "provider.token").read_text().strip()
    assert host.call("ping", token=token)["provider"]
    assert (host.run / "provider.token").stat().st_mode & 0o077 == 0


def test_token_files_are_the_tenants_alone(host: Host) -> None:
    token = Path(host.call("tenant.add", name="a", addresses=["10.0.0.2"])["token_file"])
    assert token.stat().st_mode & 0o077 == 0 and token.parent.stat().st_mode & 0o077 == 0
    assert token.read_text().strip() not in str(host.call("tenant.show", tenant="a"))
    host.call("tenant.rm", tenant="a")
    assert not token.parent.exists()


# ---- agents -----------------------------------------------------------------------------------------------------------


def test_an_agent_that_returns_within_the_grace_time_finds_its_instance(make_host: object) -> None:
    host: Host = make_host(limits={"grace_seconds": 30.0})  # type: ignore[operator]
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    with host.connect() as agent:
        first, fds = agent.call("attach", tenant="a", protocol="udp")
        inode = os.fstat(fds[0]).st_ino
        close_all(fds)
        assert agent.call("context.open", instance=first["instance"])[0]["context"] == 1
        assert host.refused("attach", tenant="a", protocol="udp").code == "busy"
    assert wait_until(lambda: host.call("protocol.list")[0]["state"] == "grace")
    with host.connect() as agent:
        again, fds = agent.call("attach", tenant="a", protocol="udp")
        assert again["resumed"] and again["contexts"] == [1] and os.fstat(fds[0]).st_ino == inode
        close_all(fds)
        agent.call("context.close", instance=again["instance"], context=1)
        assert host.engine()["engine"]["attached"].count([again["instance"], 1]) == 0


def test_after_the_grace_time_everything_is_reclaimed_and_can_be_had_anew(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    engine = host.engine()["pid"]
    clean = descriptors(engine)
    for _ in range(3):
        with host.connect() as agent:
            about, fds = agent.call("attach", tenant="a", protocol="udp")
            close_all(fds)
            assert not about["resumed"]
        assert wait_until(lambda: host.call("protocol.list")[0]["state"] == "dormant", GRACE_S * 10)
        assert host.engine()["engine"]["instances"] == []
    assert descriptors(engine) < clean


def test_contexts_run_out_as_a_quota(host: Host) -> None:
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    with host.connect() as agent:
        about, fds = agent.call("attach", tenant="a", protocol="udp")
        close_all(fds)
        for _ in range(about["layout"]["contexts"] - 1):
            agent.call("context.open", instance=about["instance"])
        with pytest.raises(Refusal) as refusal:
            agent.call("context.open", instance=about["instance"])
        assert refusal.value.exit == 5
