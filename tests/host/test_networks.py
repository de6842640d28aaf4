"""Tenants with the same address in different networks, and tenants with several protocols: all real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bench.stage import build_application
from chamelio.messages import Refusal
from faults.rig import CLIENT, SERVER, Host
from host.test_real import TENANT, Peer

ECHO = Path(__file__).parent / "echo.bpf.c"
NETWORKS = {"red": 1, "blue": 2}
GATEWAY, FAR = "10.0.0.254", "192.0.2.0/24"


@pytest.fixture
def networks() -> Iterator[Host]:
    """A wire and a tenant for each of two networks; both tenants have the same address."""
    ports = [f"--port=n{n}=wire:n{n}:a,network={n}" for n in NETWORKS.values()]
    routes = [f"--route=10.0.0.0/24=n{n}" for n in NETWORKS.values()]
    with Host(*ports, *routes) as host:
        for name, network in NETWORKS.items():
            host.tenant(name, TENANT, network=network)
            host.load(name, "echo", toolchain.bpf_object(ECHO))
        yield host


def received(host: Host) -> dict[str, int]:
    """Packets that each tenant was given."""
    tenants = host.call("stats")["tenants"]
    return {name: sum(p["rx_packets"] for p in tenants[name]["protocols"].values()) for name in NETWORKS}


@pytest.mark.fault(24)
def test_the_same_address_in_two_networks_is_two_tenants(networks: Host) -> None:
    host = networks
    peers = {name: Peer(host.run / "wires" / f"n{network}") for name, network in NETWORKS.items()}
    for peer in peers.values():
        peer.resolve(TENANT)
    for name, peer in peers.items():
        before = received(host)
        assert peer.echo(50) == 50
        assert {n: after - before[n] for n, after in received(host).items()} == {n: 50 * (n == name) for n in NETWORKS}
    with pytest.raises(Refusal, match="is taken already"):
        host.tenant("green", TENANT, network=1)
    host.tenant("green", TENANT, network=7)
    # a gateway of a network, added while it runs; then a new daemon learns all of that from the engine
    for network in NETWORKS.values():
        host.call("route.add", prefix=FAR, port=f"n{network}", gateway=GATEWAY)
    routes = host.engine()["routes"]
    assert sorted(r["network"] for r in routes if r["prefix"] == FAR and r["gateway"] == GATEWAY) == [1, 2]
    host.kill_daemon()
    host.start_daemon()
    assert {t["name"]: t["network"] for t in host.call("tenant.list")} == {**NETWORKS, "green": 7}
    host.call("tenant.rm", tenant="red")
    assert peers["blue"].echo(20) == 20
    assert peers["red"].echo(5, patience=0.2) == 0
    for peer in peers.values():
        peer.close()


def test_several_protocols_of_a_tenant_have_agents_and_applications_of_their_own() -> None:
    with Host() as host:
        host.tenant(SERVER, "10.0.0.1")
        host.tenant(CLIENT, "10.0.0.2")
        host.load(SERVER, "udp", ports=[0, 4999])
        host.load(SERVER, "udp", name="high", ports=[5000, 9999])
        with pytest.raises(Refusal, match="is taken already"):
            host.load(SERVER, "udp", name="third", ports=[9999, 10000])
        host.load(SERVER, "ping")
        host.load(CLIENT, "udp")
        for words in ((SERVER, "udp"), (SERVER, "udp", "--name", "high"), (SERVER, "ping"), (CLIENT, "udp")):
            host.agent(*words)
        shown = {p["name"]: p for p in host.call("protocol.list", tenant=SERVER)}
        assert {name: p["state"] for name, p in shown.items()} == dict.fromkeys(("udp", "high", "ping"), "attached")
        assert shown["udp"]["unit"] == shown["high"]["unit"]
        program = str(build_application("echo"))
        host.start(program, host.socket(SERVER, "udp"), "7")
        host.start(program, host.socket(SERVER, "high"), "6000")
        with pytest.raises(Refusal, match=r"not within 5000\.\.9999"):
            host.start(program, host.socket(SERVER, "high"), "8")
        for port, name, other in ((7, "udp", "high"), (6000, "high", "udp")):
            before = {n: host.call("protocol.show", tenant=SERVER, protocol=n)["counters"]["rx_packets"] for n in shown}
            done = host.requests(0.2, port=port).final(10.0)
            assert done is not None and done["answered"] > 0 and done["lost"] == 0
            after = {n: host.call("protocol.show", tenant=SERVER, protocol=n)["counters"]["rx_packets"] for n in shown}
            assert after[name] - before[name] >= done["answered"] and after[other] == before[other]
        used = host.call("tenant.show", tenant=SERVER)["quotas"]
        assert used["protocols"]["used"] == 3
        assert used["memory"]["used"] == sum(p["memory_bytes"] for p in shown.values())
        host.call("protocol.rm", tenant=SERVER, protocol="udp")
        assert host.requests(0.1, port=6000).final(10.0) is not None
