"""The virtual world: hosts, tenants and applications in one process, in virtual time.

world.py     hosts with real engines and compiled code, joined by wires; how time advances
loop.py      an asyncio event loop whose clock is the world's: agents and applications run on it unchanged
residents.py tenants with a protocol and its slow path, as chameliod would set them up
fixture.py   the pytest fixture `world`
"""

from __future__ import annotations

from chamelio.world.world import World

__all__ = ["World"]
