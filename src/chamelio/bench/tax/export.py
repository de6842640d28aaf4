"""Exports a unit with the provider's code and the driver as programs, one per mode, for counting cycles and instructions.

    python -m chamelio.bench.tax.export DIRECTORY [--cpu x86-64-v3]

It runs in a process of its own, because a process compiles for one CPU. Prints the programs as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import time
from pathlib import Path

from chamelio import toolchain
from chamelio.bench.tax import VARIANTS
from chamelio.bpf.object import load_object
from chamelio.engine.engine import Engine
from chamelio.engine.image import provider_object
from chamelio.engine.instance import Instance
from chamelio.jit import modules, whole
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.compile import compile_unit
from chamelio.jit.layout import DATA, INSTANCE_HEAD, PAGE, make_layout
from chamelio.jit.whole import Resident
from chamelio.protocols.udp.slowpath import UdpSlowPath
from chamelio.tenant.folder import read_protocol
from chamelio.tenant.region import Region, value_types
from chamelio.tenant.runtime import Services
from chamelio.verify import verify_object

HERE = Path(__file__).parent
UDP = toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c"
ADDRESS, PEER, PORT = "10.0.0.1", "10.0.0.9", 7
CONTEXTS = 2
RESIDENTS = ("udp", "ping", "echo", "rpc")  # of whole images, in this order


def compile_variant(mode: str, hardening: bool) -> UnitImage:
    """UDP in one mode."""
    native = None
    if mode == "fixed":
        native = modules.native_text(UDP)
    return compile_unit(toolchain.bpf_object(UDP), Options(mode=mode, hardening=hardening, contexts=CONTEXTS), native)


def compile_whole(count: int, hardening: bool) -> bytes:
    """An image of the provider, UDP and `count` - 1 other shipped protocols."""
    residents = []
    for name in RESIDENTS[:count]:
        _, content = read_protocol(name)
        obj = load_object(content, name)
        proofs = [v.proof for v in verify_object(obj) if v.proof is not None]
        residents.append(Resident(proofs, obj, make_layout(obj.maps, CONTEXTS)))
    return whole.image(residents, hardening=hardening)


def _address(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def _snapshot(instance: Instance) -> tuple[bytes, bytes]:
    """Private parts and the region's content, as they are now. They hold no addresses."""
    layout = instance.layout
    used = max([INSTANCE_HEAD, *(m.values for m in layout.maps if m.kind == DATA)], default=INSTANCE_HEAD)
    used = max(used, layout.private_bytes - 2 * PAGE)
    memory = instance.memory.cores[0]
    private = memory.read(INSTANCE_HEAD, used - INSTANCE_HEAD)
    return private, memory.read(layout.private_bytes, layout.region_bytes())


def write_setup(path: Path, image: UnitImage, payload: int) -> None:
    """Let a slow path bind a port on a real engine, and write down the memory that it leaves."""
    with Engine(poll="spin") as engine:
        tenant = engine.add_tenant()
        engine.bind_address(tenant, ADDRESS)
        instance = engine.add_instance(tenant, engine.load_unit(image), ADDRESS, 17)
        for context in range(CONTEXTS):
            engine.attach(instance.index, context)
        types = value_types(load_object(toolchain.bpf_object(UDP)))
        region = Region(instance.region_fd, instance.origin, instance.layout, types, {})
        services = Services(region, ADDRESS, (0, 65535), "requests")
        UdpSlowPath(services).on_request(1, "bind", {"port": PORT})
        engine.start()
        deadline = time.monotonic() + 5
        while not services.flush():
            if time.monotonic() > deadline:
                raise RuntimeError("the engine does not take the slow path's request")
            time.sleep(0.001)
        engine.stop()
        maps = {m.name: m for m in instance.layout.maps}
        private, content = _snapshot(instance)
        memory = instance.memory.cores[0]
        places = []
        for name in ("received", "requests"):
            m = maps[name]
            assert m.shared is not None
            places += [m.shared + m.context_stride, m.stride]  # of context 1
        shared = [maps[name].shared or 0 for name in ("rx_bytes", "tx_bytes", "sockets")]
        header = struct.pack(
            "<2Q4Q4Q",
            *map(int, memory.head["secret"][0]),
            instance.layout.private_bytes,
            instance.layout.region_bytes(),
            instance.layout.punt,
            INSTANCE_HEAD + len(private),
            *image.cold,
        )
        header += struct.pack("<I4s4sIIi", len(maps), _address(ADDRESS), _address(PEER), 17, PORT << 8, payload)
        header += struct.pack("<8I", *places, *shared, maps["sockets"].stride)
        descriptors = b"".join(m.descriptor() for m in instance.layout.maps)
        path.write_bytes(header + bytes(-len(header) % 8) + descriptors + private + content)


def export(directory: Path, payload: int = 64) -> dict[str, str]:
    """Programs by variant, and the set-up they read ("setup")."""
    directory.mkdir(parents=True, exist_ok=True)
    programs: dict[str, str] = {}
    for name, (mode, hardening) in VARIANTS.items():
        if mode == "whole":
            parts = {"whole.o": compile_whole(int(name.rpartition("_")[2]), hardening)}
        else:
            image = compile_variant(mode, hardening)
            parts = {"provider.o": provider_object(virtual=False, hardening=hardening)}
            parts |= {f"unit{i}.o": data for i, data in enumerate(image.objects)}
        library = toolchain.PACKAGE / "sockets" / "c"
        sources = [HERE / "driver.c", library / "chamelio_app.c", library / "chamelio_context.c"]
        for part, data in parts.items():
            (directory / f"{name}-{part}").write_bytes(data)
            sources.append(directory / f"{name}-{part}")
        path = directory / name
        path.write_bytes(toolchain.executable(sources))
        path.chmod(0o755)
        programs[name] = os.fspath(path)
        if name == "joint":
            write_setup(directory / "setup", image, payload)
    return {**programs, "setup": os.fspath(directory / "setup")}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="chamelio.bench.tax.export")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cpu", default="")
    arguments = parser.parse_args()
    if arguments.cpu:
        os.environ["CHAMELIO_CPU"] = arguments.cpu
    print(json.dumps(export(arguments.directory)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
