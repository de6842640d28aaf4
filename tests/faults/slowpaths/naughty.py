"""UDP whose slow path misbehaves from the first packet for a port that nobody has: how, says the environment."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from chamelio.protocols.udp.slowpath import UdpSlowPath

FLOOD = 5000
UNKNOWN_KIND = 99


class Naughty(UdpSlowPath):
    """`throw`: an exception per packet; `hang`: until a file is there; `flood`: far more packets and entries than fit anywhere."""

    def on_packets(self, packets: Sequence[bytes], now: int) -> None:
        how, _, argument = os.environ["NAUGHTY"].partition(":")
        if how == "throw":
            raise ZeroDivisionError("\x1b[31mof its own making")
        if how == "hang":
            while not Path(argument).exists():
                time.sleep(0)
        if how == "flood":
            packet = bytes(packets[0][:12] + packets[0][16:20] + packets[0][12:16] + packets[0][20:])
            for _ in range(FLOOD):
                self.services.send_packet(packet)
                self.services.request(UNKNOWN_KIND, 0, 0, 0, 0, 0, 0, 0, 0)

    def on_start(self, *, resumed: bool) -> None:
        super().on_start(resumed=resumed)
        if os.environ["NAUGHTY"] == "throw":
            raise RuntimeError("at the start")
