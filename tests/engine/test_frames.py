"""Free frames and those that wait somewhere are all that there are, between any two rounds."""

from __future__ import annotations

import random

import pytest

from chamelio.world import World
from virtual import PEER_MAC, Tenant, address, udp

A, PEER = "10.0.0.1", "10.0.0.9"
FRAMES = 512
ORDERS = ("e", "x", "p", "s", "r", "d")


@pytest.mark.fault(20)
@pytest.mark.parametrize("cores", [1, 2])
def test_frames_add_up_whatever_waits_wherever(cores: int) -> None:
    draw = random.Random(cores)
    with World(cores) as world:
        host = world.host(cores=cores, frames=FRAMES)
        port, peer = world.peer(host, fault="delay=60us,reorder=10%,dup=10%,seed=3")
        host.add_route("10.0.0.0/16", port)
        Tenant(host, A)
        mac = bytes.fromhex(host.describe()["ports"][0]["mac"].replace(":", ""))
        waited = 0
        for _ in range(300):
            for _ in range(draw.randrange(40)):
                order = draw.choice(ORDERS)
                # `d`: to somebody of whom nobody knows where he is: the packet waits for ARP
                argument = address(f"10.0.1.{draw.randrange(1, 40)}") if order == "d" else draw.randrange(4)
                payload = order.encode() + bytes(3) + argument.to_bytes(4, "little")
                packet = udp(PEER, A, payload, sport=draw.randrange(1000, 1100))
                peer.send(mac + PEER_MAC + b"\x08\x00" + packet)
            world.run(for_ns=draw.randrange(1, 60_000))
            peer.receive()
            frames = host.count_frames()
            assert frames["lost"] == 0 and frames["total"] == cores * FRAMES, frames
            waited = max(waited, frames["waiting"])
        assert waited > 100, "a test in which nothing waits shows nothing"
        host.remove_port(port)
        world.run(for_ns=10_000_000)
        assert host.count_frames() == {"free": cores * FRAMES, "waiting": 0, "total": cores * FRAMES, "lost": 0}
