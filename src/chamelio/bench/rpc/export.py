"""Exports TCP with the provider's code and a driver as programs, one per mode, and what the slow path leaves in memory.

    python -m chamelio.bench.rpc.export DIRECTORY [--modes joint,separate,fixed] [--cpu x86-64-v3]

It runs in a process of its own, because a process compiles for one CPU. Prints what it made as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from chamelio import toolchain
from chamelio.bench.tax.export import PLAIN_LAYOUT
from chamelio.bench.tax.scenes import COMMON, CONTEXTS, INCLUDES
from chamelio.bpf.object import Object, load_object
from chamelio.engine.image import provider_object
from chamelio.jit import modules, unit
from chamelio.jit.compile import MODES, Rejected
from chamelio.jit.layout import DATA, INSTANCE_HEAD, Layout, MapLayout, make_layout
from chamelio.verify import Proof, verify_object

HERE = Path(__file__).parent
FOLDER = toolchain.PACKAGE / "protocols" / "tcp"
LIBRARY = FOLDER / "c"
SOURCE = FOLDER / "tcp.bpf.c"
IP_PROTOCOL, PAYLOAD = 6, 64
ADDRESS, PEER, PORT = (10, 0, 0, 2), (10, 0, 0, 9), 7
SECRETS = (0x5C6F1D3B9A7E2048, 0x93E1A05D7B4C2F68, 0x1B8D4F6E2A9C7035, 0xE4A7C3915D082F6B, 0x2F9E61B7D80C4A53)  # fixed: runs repeat
TIMESTAMPS, SACK, WSCALE = 1, 2, 4  # TCP_OPT_*
START_NS = 1_000_000_000


def configuration(connections: int) -> dict[str, int]:
    """The row of `config` that the slow path writes for a single core."""
    return {
        "first": 0,
        "count": connections,
        "cores": 1,
        "local": int.from_bytes(bytes(ADDRESS), "little"),
        "port_low": 49152,
        "port_high": 65535,
        "options": TIMESTAMPS | SACK | WSCALE,
        "mss": 1460,
        "initial_window": 10,
        "rto_min": 200_000,
        "rto_max": 60_000_000,
        "rto_initial": 1_000_000,
        "ack_delay": 40_000,
        "time_wait": 60_000,
        "buffer_max": 4 << 20,
    }


def _patches(layout: Layout, obj: Object) -> bytes:
    """What is not zero in an instance's memory: offsets from its base, lengths, bytes."""
    maps = {m.name: m for m in layout.maps}
    parts = [(m.values, m.initial) for m in layout.maps if m.kind == DATA and m.initial]
    of_config = next(m.value_type for m in obj.maps if m.name == "config")
    assert obj.btf is not None and of_config is not None
    config = np.zeros(1, obj.btf.dtype(of_config))
    for field, value in configuration(maps["about"].max_entries).items():
        config[field] = value
    parts.append((maps["config"].values, config.tobytes()))
    return b"".join(struct.pack("<2Q", at, len(content)) + content for at, content in parts)


def _setup(path: Path, layout: Layout, cold: Sequence[int]) -> None:
    """`struct setup` of bench/tax/rig.h, with an instance whose memory is all zero: the file ends in a hole."""
    maps = {m.name: m for m in layout.maps}

    def place(m: MapLayout) -> int:
        assert m.shared is not None
        return m.shared

    def ring(m: MapLayout) -> tuple[int, int, int]:
        return place(m) + m.context_stride, m.stride, m.max_entries

    events, entries, rx, tx = maps["events"], maps["entries"], maps["rx_bytes"], maps["tx_bytes"]
    address, peer = (int.from_bytes(bytes(a), "little") for a in (ADDRESS, PEER))
    more = [rx.free - layout.private_bytes, tx.free - layout.private_bytes, place(maps["about"]), place(entries), place(events)]
    content = struct.pack(
        "<Q4Q4Q4I", START_NS, *cold, layout.private_bytes, layout.region_bytes(), layout.punt, INSTANCE_HEAD,
        len(layout.maps), 1, IP_PROTOCOL, PAYLOAD,
    )  # fmt: skip
    content += struct.pack("<6I", *ring(events), *ring(entries))
    content += struct.pack("<10I", place(rx), place(tx), *more, address, peer, PORT << 8)
    content += b"".join(m.descriptor() for m in layout.maps)
    content += struct.pack("<5Q4B4x", *SECRETS, *ADDRESS)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + layout.region_bytes())


class Handlers(NamedTuple):
    """TCP's handlers, verified: what all modes have in common."""

    obj: Object
    proofs: list[Proof]
    layout: Layout

    def objects(self, mode: str) -> list[bytes]:
        """Object code of a unit."""
        if mode == "fixed":
            return unit.fixed(modules.native_text(SOURCE), [p.hook for p in self.proofs], self.layout, hardening=True)
        compiler = {"joint": unit.joint, "separate": unit.separate}[mode]
        return compiler(self.proofs, self.obj, self.layout, virtual=False, hardening=True)


def verified() -> Handlers:
    """Build and verify. Raises Rejected."""
    obj = load_object(toolchain.bpf_object(SOURCE))
    verdicts = verify_object(obj)
    proofs = [v.proof for v in verdicts if v.proof is not None]
    if len(proofs) != len(verdicts):
        raise Rejected(verdicts)
    return Handlers(obj, proofs, make_layout(obj.maps, CONTEXTS))


def write_setup(directory: Path, handlers: Handlers) -> tuple[Path, Path]:
    """The files that tcp_rig.c reads: the set-up and the patches."""
    setup, patches = directory / "setup", directory / "patches"
    costs = {p.hook: p.cost_cold for p in handlers.proofs}
    _setup(setup, handlers.layout, [costs.get(hook, 0) for hook in unit.HOOKS])
    patches.write_bytes(_patches(handlers.layout, handlers.obj))
    return setup, patches


def write_program(path: Path, objects: Sequence[bytes], drivers: Sequence[Path]) -> Path:
    """A program of a driver on the rig, with the provider's code and a unit of TCP."""
    parts = {"provider.o": provider_object(virtual=False, hardening=True)}
    parts |= {f"unit{i}.o": data for i, data in enumerate(objects)}
    sources = [*drivers, HERE / "tcp_rig.c", LIBRARY / "tcp_app.c", *COMMON]
    for name, data in parts.items():
        part = path.with_name(f"{path.name}-{name}")
        part.write_bytes(data)
        sources.append(part)
    path.write_bytes(toolchain.executable(sources, flags=PLAIN_LAYOUT, includes=(*INCLUDES, LIBRARY, HERE)))
    path.chmod(0o755)
    return path


def export(directory: Path, modes: Sequence[str]) -> dict[str, str]:
    """Programs by mode, and the files that they read ("setup", "patches")."""
    directory.mkdir(parents=True, exist_ok=True)
    handlers = verified()
    setup, patches = map(os.fspath, write_setup(directory, handlers))
    drivers = [HERE / "tcp_driver.c", HERE / "tcp_peer.c"]
    programs = {mode: os.fspath(write_program(directory / mode, handlers.objects(mode), drivers)) for mode in modes}
    return {**programs, "setup": setup, "patches": patches}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="chamelio.bench.rpc.export")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--cpu", default="")
    arguments = parser.parse_args()
    if arguments.cpu:
        os.environ["CHAMELIO_CPU"] = arguments.cpu
    print(json.dumps(export(arguments.directory, arguments.modes.split(","))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
