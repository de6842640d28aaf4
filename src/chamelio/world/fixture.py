"""The virtual world for tests of protocols: a pytest plugin with the fixture `world`.

def test_echo_survives_loss(world):
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/24", fault="loss=5%,seed=1")
    world.tenant(a, "red", "10.0.0.1", "path/of/my/protocol")
    ...
    world.play(application())
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chamelio.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """An empty virtual world."""
    with World() as one:
        yield one
