"""The provider's fast path as machine code: compiled once per build, loaded into this process, units linked beside it."""

from __future__ import annotations

import ctypes
import functools
import io
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from chamelio import toolchain
from chamelio.jit import modules

# What a unit may call: these five doors into the provider, and the memory functions that compilers call by themselves.
UNIT_IMPORTS = ("cham_output", "cham_punt", "cham_drop", "cham_ring_damaged")
LIBC_IMPORTS = ("memcpy", "memset", "memmove", "memcmp", "bcmp")

PORT_OPS = ("cham_wire_ops", "cham_xdp_ops", "cham_tap_ops", "cham_fault_ops", "cham_pcap_ops")
CATALOGUES = ("cham_drop_catalogue", "cham_event_catalogue")
ENTRIES: dict[str, tuple[Any, ...]] = {  # result, arguments
    "cham_run": (None, ctypes.c_void_p),
    "cham_round": (ctypes.c_uint32, ctypes.c_void_p),
    "cham_step": (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64),
    "cham_command": (None, ctypes.c_void_p),
    "cham_core_init": (None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32),
    "cham_instance_init": (None, ctypes.c_void_p, ctypes.c_uint32),
    "cham_next_due": (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p),
    "cham_fault_due": (ctypes.c_uint64, ctypes.c_void_p),
    "cham_cycles": (ctypes.c_uint64,),
}
UNIT_ENTRY = "cham_unit_init"
POLICIES = ("cycles", "packets", "off")  # enum cham_policy; "off": packets in the order in which they came


class ImageError(Exception):
    """Code that will not be loaded, and why."""


def provider_sources() -> list[str]:
    """Names of the provider's C files; the batch loops belong to units, the ABI's file has no code."""
    return sorted(p.name for p in toolchain.FASTPATH.glob("*.c") if p.name not in ("unit.c", "abi.c"))


def provider_object(*, virtual: bool, hardening: bool, policy: str = POLICIES[0]) -> bytes:
    """Relocatable object code of all of the provider's C but the batch loops, which belong to units. Cached."""
    texts = [modules.provider_text(source) for source in provider_sources()]
    values = {"cham_cfg_virtual": int(virtual), "cham_cfg_hardening": int(hardening), "cham_cfg_policy": POLICIES.index(policy)}
    texts.append(modules.constants(values))
    kept = [*ENTRIES, *UNIT_IMPORTS, *PORT_OPS, *CATALOGUES]

    def build() -> bytes:
        module = modules.link(texts)
        modules.internalise(module, kept)
        modules.optimise(module)
        return modules.emit(module)

    return toolchain.cached("provider", [modules.host(), *kept, *texts], build)


def undefined_symbols(objects: list[bytes]) -> set[str]:
    """Names that relocatable objects use and that none of them defines. Raises ImageError for what is not such an object."""
    used: set[str] = set()
    defined: set[str] = set()
    for data in objects:
        try:
            elf = ELFFile(io.BytesIO(data))
            tables = [s for s in elf.iter_sections() if isinstance(s, SymbolTableSection)]
            if elf["e_type"] != "ET_REL" or elf["e_machine"] != "EM_X86_64":
                raise ImageError("a unit's code is not a relocatable x86-64 object")
            for symbol in (s for table in tables for s in table.iter_symbols()):
                if symbol.name and symbol["st_info"]["bind"] != "STB_LOCAL":
                    (used if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
        except (ELFError, ValueError, KeyError) as error:
            raise ImageError(f"a unit's code cannot be read: {error}") from None
    return used - defined


class Unit:
    """Loaded code of a unit. `entry` fills a `struct cham_unit`; the code stays until `close`."""

    def __init__(self, tracker: llvm.orcjit.ResourceTracker) -> None:
        self._tracker: llvm.orcjit.ResourceTracker | None = tracker
        self.entry: Callable[[int], None] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(tracker[UNIT_ENTRY])

    def close(self) -> None:
        """Free the code; nobody may run it any more."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None


class Image:
    """The provider's code in this process: `call[name](...)` for its entries, `address(symbol)` for tables of functions."""

    def __init__(self, *, virtual: bool, hardening: bool, policy: str = POLICIES[0]) -> None:
        self._jit = llvm.create_lljit_compiler(modules.machine())
        self._units = 0
        builder = llvm.JITLibraryBuilder().add_current_process()
        builder.add_object_img(provider_object(virtual=virtual, hardening=hardening, policy=policy))
        for name in (*ENTRIES, *UNIT_IMPORTS, *PORT_OPS, *CATALOGUES):
            builder.export_symbol(name)
        self._library = builder.link(self._jit, "provider")
        self.call: dict[str, Callable[..., Any]] = {
            name: ctypes.CFUNCTYPE(*signature)(self._library[name]) for name, signature in ENTRIES.items()
        }

    def address(self, symbol: str) -> int:
        """Where an exported symbol lies. KeyError if it is not one."""
        return int(self._library[symbol])

    def load(self, objects: list[bytes]) -> Unit:
        """Link a unit's objects with the provider. Raises ImageError if they ask for anything that is not a unit's to use."""
        foreign = undefined_symbols(objects) - {*UNIT_IMPORTS, *LIBC_IMPORTS, "_GLOBAL_OFFSET_TABLE_"}
        if foreign:
            raise ImageError(f"the unit's code refers to {', '.join(sorted(foreign))}, which units have no access to")
        builder = llvm.JITLibraryBuilder()
        for data in objects:
            builder.add_object_img(data)
        for name in UNIT_IMPORTS:
            builder.import_symbol(name, self.address(name))
        for name in LIBC_IMPORTS:
            builder.import_symbol(name, _libc(name))
        builder.export_symbol(UNIT_ENTRY)
        self._units += 1
        try:
            return Unit(builder.link(self._jit, f"unit-{self._units}"))
        except RuntimeError as error:
            raise ImageError(f"the unit's code cannot be linked: {error}") from None


@functools.cache
def _libc(name: str) -> int:
    value = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert value
    return value
