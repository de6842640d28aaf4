"""One writer per field of a shared value: the SDK lets the tenant's side write what is tagged CHAM_SLOW, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from chamelio.bpf.object import MapDef, load_object
from chamelio.jit.layout import ARRAY, SHARED, make_layout
from chamelio.sockets.stack import Stack
from chamelio.tenant.folder import read_protocol
from chamelio.tenant.region import Region, Values, plain_type, slow_columns, type_of
from chamelio.world import World

CONN = np.dtype([("snd_una", "<u4"), ("cwnd", "<u4"), ("sack", "<u4", (2, 2)), ("rate", "<u8")])
ROWS = 8


def region(fd: int) -> Region:
    conns = MapDef("conns", ARRAY, 4, CONN.itemsize, ROWS, {"flags": SHARED}, None, None, None, False)
    layout = make_layout([conns], 2)
    os.ftruncate(fd, layout.region_bytes())
    return Region(fd, 0, layout, {"conns": CONN}, {"conns": ["cwnd", "rate"]})


@pytest.fixture
def conns() -> Iterator[Values]:
    fd = os.memfd_create("region")
    yield region(fd).values("conns")
    os.close(fd)


def test_slow_columns_are_written_in_place(conns: Values) -> None:
    conns["cwnd"][:] = 10
    conns["cwnd"] += 5
    conns["rate"][conns["cwnd"] > 12] = 7
    conns[2:6]["cwnd"][1] = 99
    conns[2:6]["rate"] = np.arange(4)
    assert conns["cwnd"].tolist() == [15, 15, 15, 99, 15, 15, 15, 15]
    assert conns["rate"].tolist() == [7, 7, 0, 1, 2, 3, 7, 7]


def test_what_handlers_write_is_read_only(conns: Values) -> None:
    before = conns.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        conns["snd_una"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        conns["sack"][0, 1] = 1
    with pytest.raises(ValueError, match="read-only"):
        conns[3:]["snd_una"][:] = 1
    with pytest.raises(ValueError, match="the handlers' to write; fields tagged CHAM_SLOW are ours: cwnd, rate"):
        conns["snd_una"] = 1
    with pytest.raises(ValueError, match="whole rows are the handlers'"):
        conns[0] = (1, 2, 0, 3)
    with pytest.raises(ValueError):
        conns[0]["cwnd"] = 1
    with pytest.raises(ValueError):
        conns[["cwnd", "snd_una"]][0] = (1, 2)
    with pytest.raises(ValueError):
        np.add(conns["snd_una"], 1, out=conns["snd_una"])
    for part in (conns, conns["snd_una"], conns.view(np.ndarray), conns[1:], np.asarray(conns)):
        assert not part.flags.writeable
    assert conns.tobytes() == before


def test_a_column_is_writable_for_its_one_writer_only() -> None:
    fd = os.memfd_create("region")
    ours = region(fd)
    os.close(fd)
    ours.column("conns", "cwnd", writable=True)[1] = 3
    assert ours.column("conns", "cwnd").tolist()[:2] == [0, 3]
    assert not ours.column("conns", "cwnd").flags.writeable
    with pytest.raises(ValueError, match="snd_una"):
        ours.column("conns", "snd_una", writable=True)


def test_tags_come_from_the_object() -> None:
    for name, slow in (("udp", {"sockets": ["taken"]}), ("ping", {"totals": ["muted"]})):
        tags = slow_columns(load_object(read_protocol(name)[1]))
        assert {m: fields for m, fields in tags.items() if fields} == slow


def test_types_are_the_same_on_the_other_side() -> None:
    nested = np.dtype({"names": ["a", "b"], "formats": [CONN, ("<u2", 3)], "offsets": [0, 40], "itemsize": 64})
    for dtype in (CONN, nested, np.dtype("<u8")):
        assert type_of(msgspec.json.decode(msgspec.json.encode(plain_type(dtype)))) == dtype


def test_applications_get_the_tags_too() -> None:
    async def look(world: World) -> None:
        stack = await Stack.connect("red", "udp", world.directory)
        sockets = stack.region.values("sockets")
        sockets["taken"][5] = 1
        with pytest.raises(ValueError):
            sockets["received"][5] = 1
        stack.close()

    with World() as world:
        world.tenant(world.host(), "red", "10.0.0.1", "udp")
        world.play(look(world))
