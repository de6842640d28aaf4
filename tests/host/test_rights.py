"""Each verb checks who asks: for all verbs, a tenant reaches what is its own, and a stranger nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chamelio.host.verbs import VERBS
from chamelio.messages import Channel, Refusal, close_all, memfd
from host.rig import Host

A, B = "10.0.0.2", "10.0.0.3"
# arguments with which tenant b asks for what is a's; None: what it gets is looked at below
OF_OTHERS: dict[str, dict[str, Any] | None] = {
    "ping": None,
    "tenant.list": None,
    "protocol.list": None,
    "stats": None,
    "metrics": None,
    "bound": None,
    "status": {},
    "port.add": {"name": "x", "spec": "wire:x:a"},
    "port.list": {},
    "route.add": {"prefix": "10.9.0.0/16", "port": "w0"},
    "tenant.add": {"name": "c", "addresses": ["10.0.0.4"]},
    "tenant.show": {"tenant": "a"},
    "tenant.weight": {"tenant": "a", "weight": 100},
    "tenant.set": {"tenant": "a", "quotas": {"memory": 1}},
    "tenant.rm": {"tenant": "a"},
    "protocol.load": {"tenant": "a", "name": "udp", "ip_protocol": 17},
    "protocol.show": {"tenant": "a", "protocol": "udp"},
    "protocol.rollback": {"tenant": "a", "protocol": "udp"},
    "migration.begin": {"tenant": "a", "protocol": "udp"},
    "migration.commit": {"tenant": "a", "protocol": "udp"},
    "migration.abort": {"tenant": "a", "protocol": "udp"},
    "protocol.rm": {"tenant": "a", "protocol": "udp"},
    "attach": {"tenant": "a", "protocol": "udp"},
    "slowpath.report": {"tenant": "a", "protocol": "udp", "errors": 1, "dropped": 0},
    "context.open": {"instance": 0},
    "context.close": {"instance": 0, "context": 1},
    "shutdown": {},
}


@pytest.fixture
def tenants(host: Host) -> Iterator[dict[str, str]]:
    """Tokens of two tenants with a protocol each; a's agent is attached and an application uses its context 1."""
    tokens = {}
    for name, address in (("a", A), ("b", B)):
        host.call("tenant.add", name=name, addresses=[address])
        host.load(name)
        tokens[name] = (host.run / "tenants" / name / "token").read_text().strip()
    with host.connect() as agent:
        about, fds = agent.call("attach", tenant="a", protocol="udp")
        close_all(fds)
        assert about["instance"] == 0
        agent.call("context.open", instance=0)
        yield tokens


def ask(channel: Channel, verb: str, **arguments: Any) -> Any:
    """One request with as many descriptors as it takes."""
    fds = [memfd("object", b"{}") for _ in range(VERBS[verb].fds)]
    try:
        return channel.call(verb, fds, **arguments)[0]
    finally:
        close_all(fds)


def test_the_table_knows_every_verb() -> None:
    assert OF_OTHERS.keys() == VERBS.keys()


@pytest.mark.fault(26)
@pytest.mark.fault(6)
def test_a_tenant_is_refused_whatever_is_not_its_own(host: Host, tenants: dict[str, str]) -> None:
    before = host.call("tenant.list"), host.engine()["engine"]
    with host.connect() as channel:
        for verb, arguments in OF_OTHERS.items():
            if arguments is None:
                continue
            with pytest.raises(Refusal) as refusal:
                ask(channel, verb, **arguments, token=tenants["b"])
            assert refusal.value.code == "denied", verb
    assert (host.call("tenant.list"), host.engine()["engine"]) == before


@pytest.mark.fault(26)
def test_what_a_tenant_is_shown_is_its_own(host: Host, tenants: dict[str, str]) -> None:
    with host.connect() as channel:
        token = tenants["b"]
        about = channel.call("ping", token=token)[0]
        assert (about["tenants"], about["provider"]) == (["b"], False)
        assert [t["name"] for t in channel.call("tenant.list", token=token)[0]] == ["b"]
        assert {p["tenant"] for p in channel.call("protocol.list", token=token)[0]} == {"b"}
        assert channel.call("protocol.list", tenant="a", token=token)[0] == []
        shown = channel.call("stats", token=token)[0]
        assert set(shown["tenants"]) == {"b"} and "engine" not in shown and "ports" not in shown
        assert channel.call("stats", tenant="a", token=token)[0]["tenants"] == {}
        assert channel.call("tenant.show", tenant="b", token=token)[0]["name"] == "b"


@pytest.mark.fault(26)
def test_nobody_is_anybody_with_a_wrong_token(host: Host, tenants: dict[str, str]) -> None:
    wrong = ("", "x", tenants["a"][:-1], tenants["a"] + "0", "\ufffd")
    with host.connect() as channel:
        for token in wrong:
            for verb, arguments in OF_OTHERS.items():
                with pytest.raises(Refusal) as refusal:
                    ask(channel, verb, **(arguments or {}), token=token)
                assert refusal.value.code == "denied", (verb, token)


def test_hardening_is_the_providers_to_switch_off(host: Host, tenants: dict[str, str]) -> None:
    arguments = {"tenant": "b", "name": "plain", "ip_protocol": 99, "options": {"hardening": False}}
    with host.connect() as channel:
        with pytest.raises(Refusal, match="without hardening"):
            ask(channel, "protocol.load", **arguments, token=tenants["b"])
        assert ask(channel, "protocol.load", **arguments)["action"] == "created"
