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

import numpy as np

from chamelio import toolchain
from chamelio.bench.tax.export import PLAIN_LAYOUT, compile_variant
from chamelio.bench.tax.scenes import COMMON, INCLUDES
from chamelio.bpf.object import Object, load_object
from chamelio.engine.image import provider_object
from chamelio.jit.artifact import UnitImage
from chamelio.jit.compile import MODES
from chamelio.jit.layout import DATA, INSTANCE_HEAD, Layout, MapLayout

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


def _setup(path: Path, image: UnitImage) -> None:
    """`struct setup` of bench/tax/rig.h, with an instance whose memory is all zero: the file ends in a hole."""
    layout = image.layout
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
        "<Q4Q4Q4I", START_NS, *image.cold, layout.private_bytes, layout.region_bytes(), layout.punt, INSTANCE_HEAD,
        len(layout.maps), 1, IP_PROTOCOL, PAYLOAD,
    )  # fmt: skip
    content += struct.pack("<6I", *ring(events), *ring(entries))
    content += struct.pack("<10I", place(rx), place(tx), *more, address, peer, PORT << 8)
    content += b"".join(m.descriptor() for m in layout.maps)
    content += struct.pack("<5Q4B4x", *SECRETS, *ADDRESS)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + layout.region_bytes())


def write_setup(directory: Path, image: UnitImage) -> tuple[Path, Path]:
    """The files that tcp_rig.c reads: the set-up and the patches."""
    setup, patches = directory / "setup", directory / "patches"
    _setup(setup, image)
    patches.write_bytes(_patches(image.layout, load_object(toolchain.bpf_object(SOURCE))))
    return setup, patches


def write_program(path: Path, image: UnitImage, drivers: Sequence[Path]) -> Path:
    """A program of a driver on the rig, with the provider's code and a unit of TCP."""
    parts = {"provider.o": provider_object(virtual=False, hardening=True)}
    parts |= {f"unit{i}.o": data for i, data in enumerate(image.objects)}
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
    made: dict[str, str] = {}
    for mode in modes:
        image = compile_variant(SOURCE, mode, hardening=True)
        made[mode] = os.fspath(write_program(directory / mode, image, [HERE / "tcp_driver.c", HERE / "tcp_peer.c"]))
        made["setup"], made["patches"] = map(os.fspath, write_setup(directory, image))
    return made


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
