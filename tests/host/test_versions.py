"""Versions of a protocol: remembered with what became of them, and there to go back to."""

from __future__ import annotations

from typing import Any

import pytest

from chamelio.messages import Refusal, close_all
from host.rig import Host, wait_until


def show(host: Host) -> dict[str, Any]:
    about: dict[str, Any] = host.call("protocol.show", tenant="a", protocol="udp")
    return about


def history(host: Host) -> list[tuple[int, str, str]]:
    return [(v["version"], v["state"], v["result"].split(":")[0]) for v in show(host)["versions"]]


def rollback(host: Host, version: int | None = None, **more: Any) -> Any:
    return host.call("protocol.rollback", tenant="a", protocol="udp", version=version, **more)


@pytest.fixture
def three(host: Host) -> Host:
    """A tenant whose protocol has run three versions; a fourth was rejected, a fifth does not fit."""
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    token = (host.run / "tenants" / "a" / "token").read_text().strip()
    host.load("a", token=token)
    host.load("a", version=2)
    host.load("a", version=3)
    with pytest.raises(Refusal):
        host.load("a", reject=True)
    with pytest.raises(Refusal):
        host.load("a", maps=[["other", 1, 8]])
    return host


def test_what_was_loaded_is_remembered(three: Host) -> None:
    host = three
    earlier = [(1, "earlier", "created"), (2, "earlier", "swapped"), (3, "running", "swapped")]
    assert history(host) == [*earlier, (4, "refused", "rejected"), (5, "refused", "unfit")]
    shown = show(host)
    first, _, third, rejected, unfit = shown["versions"]
    assert shown["version"] == 3 and third["protocol_sha"] == shown["protocol_sha"]
    assert first["who"].startswith("tenant a") and third["who"].startswith("provider")
    assert first["when"] <= third["when"] and third["cold_cycles"]["rx"] == 10 and third["warm_cycles"]["rx"] == 5
    assert "read past the packet" in rejected["result"] and "adds other" in unfit["result"]
    host.load("a", version=2)  # known content: not another version
    assert [v for v, state, _ in history(host) if state == "running"] == [2]
    assert len(history(host)) == 5
    host.load("a", version=2)
    assert history(host)[1] == (2, "running", "swapped"), "what changes nothing is not noted"


def test_rollback_goes_back_one_by_one_or_to_a_version(three: Host) -> None:
    host = three
    back = rollback(host)
    assert (back["action"], back["version"], back["from"]) == ("rolled back", 2, 3) and back["seconds"]["swap"] > 0
    assert rollback(host)["version"] == 1
    with pytest.raises(Refusal, match="before the running one") as refusal:
        rollback(host)
    assert "1, 2, 3" in refusal.value.remedy
    assert rollback(host, 3)["version"] == 3
    assert rollback(host, 3)["action"] == "unchanged"
    assert history(host)[2] == (3, "running", "rolled back from version 1")
    engine = host.engine()["engine"]
    assert len(engine["instances"]) == len(engine["units"]) == 1


def test_rollback_to_what_cannot_run_is_refused_and_the_running_version_stays(three: Host) -> None:
    host = three
    before = show(host)["unit"]
    for version, reason in ((4, "never run: rejected"), (5, "never run: unfit"), (9, "no version 9")):
        with pytest.raises(Refusal, match=reason):
            rollback(host, version)
    assert show(host)["unit"] == before


def test_rollback_to_a_version_that_the_cache_has_lost_is_refused(make_host: Any) -> None:
    host: Host = make_host()
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    host.load("a", version=2)
    with pytest.raises(Refusal):
        host.load("a", die=True)  # the fake compiler's cache dies with it
    with pytest.raises(Refusal, match="not in the compiler's cache") as refusal:
        rollback(host, 1)
    assert refusal.value.code == "gone"
    assert show(host)["version"] == 2 and host.engine()["engine"]["instances"] != []


def test_rollback_to_a_version_that_does_not_fit_is_refused(make_host: Any) -> None:
    host: Host = make_host()
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    with host.connect() as agent:
        close_all(agent.call("attach", tenant="a", protocol="udp")[1])
    assert wait_until(lambda: show(host)["state"] == "dormant")
    host.load("a", maps=[["other", 1, 8]])  # nothing runs that it would have to fit
    assert history(host) == [(1, "earlier", "created"), (2, "running", "created")]
    with pytest.raises(Refusal, match="adds values and it lacks other"):
        rollback(host)
    assert show(host)["version"] == 2


def test_a_dormant_protocol_is_rolled_back_for_its_next_agent(make_host: Any) -> None:
    host: Host = make_host()
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    host.load("a", version=2)
    with host.connect() as agent:
        close_all(agent.call("attach", tenant="a", protocol="udp")[1])
    assert wait_until(lambda: show(host)["state"] == "dormant")
    assert rollback(host)["version"] == 1
    with host.connect() as agent:
        about, fds = agent.call("attach", tenant="a", protocol="udp")
        close_all(fds)
        assert about["protocol_sha"] == show(host)["versions"][0]["protocol_sha"]


def test_few_versions_are_kept_and_never_without_the_running_one(make_host: Any) -> None:
    host: Host = make_host(limits={"versions": 3})
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    for version in range(4):
        host.load("a", version=version)
    for n in range(5):
        with pytest.raises(Refusal):
            host.load("a", reject=True, n=n)
    assert history(host) == [(3, "earlier", "swapped"), (4, "running", "swapped"), (9, "refused", "rejected")]


def test_the_history_outlives_the_daemon(make_host: Any) -> None:
    host: Host = make_host()
    host.call("tenant.add", name="a", addresses=["10.0.0.2"])
    host.load("a")
    host.load("a", version=2)
    before = show(host)["versions"]
    host.kill()
    host.start()
    assert show(host)["versions"] == before and show(host)["version"] == 2
