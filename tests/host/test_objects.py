"""Objects that are no objects, all the way: uploaded, read, verified and compiled by the real processes, which all live on."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.messages import Refusal, memfd
from host.test_real import SOURCE, Peer, Real

CLEAN = {"malformed", "rejected", "usage", "unfit", "quota"}
ANSWER_S = 5.0  # for an object of a few kilobytes
SEEDS = 40


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        host = Real(Path(directory) / "run")
        host.start()
        host.call("tenant.add", name="a", addresses=["10.0.0.2"])
        host.call("tenant.add", name="hostile", addresses=["10.0.0.3"])
        host.load_echo("a")
        yield host
        host.stop()


def spoil(data: bytes, rng: random.Random) -> bytes:
    """A real object, cut, flipped or overwritten."""
    out = bytearray(data)
    match rng.randrange(4):
        case 0:
            del out[rng.randrange(len(out)) :]
        case 1:
            for _ in range(rng.choice((1, 2, 8, 64))):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case 2:
            at = rng.randrange(len(out) - 8) & ~3
            out[at : at + 4] = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32))).to_bytes(4, "little")
        case 3:
            source, target, size = rng.randrange(len(out)), rng.randrange(len(out)), rng.randrange(8, 200)
            out[target : target + size] = out[source : source + size]
    return bytes(out)


def upload(host: Real, content: bytes) -> str:
    """Load an object as the hostile tenant; how that was answered."""
    fd = memfd("object", content)
    started = time.monotonic()
    try:
        with host.connect() as channel:
            channel.call("protocol.load", [fd], tenant="hostile", name="x", ip_protocol=17)
    except Refusal as refusal:
        assert "Traceback" not in str(refusal)
        return refusal.code
    finally:
        os.close(fd)
        assert time.monotonic() - started < ANSWER_S
    return "loaded"


@pytest.mark.fault(15)
def test_malformed_objects_are_refused_cleanly_and_everybody_else_is_served(real: Real) -> None:
    content, rng = toolchain.bpf_object(SOURCE), random.Random(15)
    status = real.call("status")
    answers = [upload(real, data) for data in (b"", b"\x7fELF", rng.randbytes(1000), bytes(64), content[:100], content[:-1000])]
    assert set(answers) == {"malformed"}
    answers += [upload(real, spoil(content, rng)) for _ in range(SEEDS)]
    assert set(answers) <= CLEAN | {"loaded"}, answers
    after = real.call("status")
    for one in ("engine", "compiler"):
        assert after[one]["pid"] == status[one]["pid"], one
    peer = Peer(real.wire)
    peer.resolve("10.0.0.2")
    assert peer.echo(50) == 50
    peer.close()
