"""Exports units with the provider's code and a driver as programs, one per variant, for counting cycles and instructions.

    python -m chamelio.bench.tax.export DIRECTORY PROTOCOL [--cpu x86-64-v3]

It runs in a process of its own, because a process compiles for one CPU. Prints the programs as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from chamelio import toolchain
from chamelio.bench.tax import VARIANTS
from chamelio.bench.tax.scenes import COMMON, CONTEXTS, INCLUDES, SCENES
from chamelio.bpf.object import load_object
from chamelio.engine.image import provider_object
from chamelio.jit import modules, whole
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.compile import compile_unit
from chamelio.jit.layout import make_layout
from chamelio.jit.whole import Resident
from chamelio.tenant.folder import read_protocol
from chamelio.verify import verify_object

RESIDENTS = ("udp", "rpc", "ping", "echo")  # of whole images: the measured one first, then in this order
PLAIN_LAYOUT = ("-Wl,-z,norelro",)  # valgrind reads no symbols where the writable segment ends exactly with what is relocated


def compile_variant(source: Path, mode: str, hardening: bool) -> UnitImage:
    """A protocol in one mode."""
    native = modules.native_text(source) if mode == "fixed" else None
    return compile_unit(toolchain.bpf_object(source), Options(mode=mode, hardening=hardening, contexts=CONTEXTS), native)


def compile_whole(protocol: str, count: int, hardening: bool) -> bytes:
    """An image of the provider, a protocol and `count` - 1 other shipped ones."""
    residents = []
    for name in [protocol, *(r for r in RESIDENTS if r != protocol)][:count]:
        _, content = read_protocol(name)
        obj = load_object(content, name)
        proofs = [v.proof for v in verify_object(obj) if v.proof is not None]
        residents.append(Resident(proofs, obj, make_layout(obj.maps, CONTEXTS)))
    return whole.image(residents, hardening=hardening)


def export(directory: Path, protocol: str, payload: int = 64) -> dict[str, str]:
    """Programs by variant, and the set-up they read ("setup")."""
    directory.mkdir(parents=True, exist_ok=True)
    scene = SCENES[protocol]
    programs: dict[str, str] = {}
    for name, (mode, hardening) in VARIANTS.items():
        if mode == "whole":
            parts = {"whole.o": compile_whole(protocol, int(name.rpartition("_")[2]), hardening)}
        else:
            image = compile_variant(scene.source, mode, hardening)
            parts = {"provider.o": provider_object(virtual=False, hardening=hardening)}
            parts |= {f"unit{i}.o": data for i, data in enumerate(image.objects)}
        sources = [*scene.driver, *COMMON]
        for part, data in parts.items():
            (directory / f"{name}-{part}").write_bytes(data)
            sources.append(directory / f"{name}-{part}")
        path = directory / name
        path.write_bytes(toolchain.executable(sources, flags=PLAIN_LAYOUT, includes=INCLUDES))
        path.chmod(0o755)
        programs[name] = os.fspath(path)
        if name == "joint":
            scene.write(directory / "setup", image, payload)
    return {**programs, "setup": os.fspath(directory / "setup")}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="chamelio.bench.tax.export")
    parser.add_argument("directory", type=Path)
    parser.add_argument("protocol", choices=sorted(SCENES))
    parser.add_argument("--cpu", default="")
    arguments = parser.parse_args()
    if arguments.cpu:
        os.environ["CHAMELIO_CPU"] = arguments.cpu
    print(json.dumps(export(arguments.directory, arguments.protocol)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
