"""The provider's bitcode as LLVM modules, made fit to be joined: attributes stripped, constants of a build linked in.

CPU and frame attributes must agree between modules or inlining stops without a word, so they are stripped from all of
them; the target machine's own CPU then decides (LLVM, `areInlineCompatible`).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import llvmlite.binding as llvm

from chamelio import toolchain

_STRIPPED = (
    "target-cpu",
    "target-features",
    "tune-cpu",
    "frame-pointer",
    "min-legal-vector-width",
    "stack-protector-buffer-size",
    "no-trapping-math",
    "probe-stack",
)
_ATTRIBUTE = re.compile(r' ?"(?:{})"(?:="[^"]*")?'.format("|".join(_STRIPPED)))


def cpu() -> tuple[str, str]:
    """Name and features of the CPU that code is made for: this host's, or `$CHAMELIO_CPU`, e.g. x86-64-v3."""
    chosen = os.environ.get("CHAMELIO_CPU")
    return (chosen, "") if chosen else (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


@functools.cache
def machine() -> llvm.TargetMachine:
    """The target machine of this host; also initialises LLVM once."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=cpu()[0],
        features=cpu()[1],
        opt=3,
        reloc="pic",
        codemodel="small",
    )


def strip(text: str) -> str:
    """IR text without the attributes that block inlining and without inherited debug and profile metadata flags."""
    return _ATTRIBUTE.sub("", text).replace("= { }", '= { "none" }')  # a group must not be empty


def provider_text(source: str, defines: tuple[str, ...] = ()) -> str:
    """One of the fast path's C files as stripped IR text, from the cache when it was made before."""
    bitcode = toolchain.bitcode(toolchain.FASTPATH / source, defines=defines)
    return toolchain.cached("ir", ["strip-3", bitcode], lambda: strip(str(_bitcode(bitcode))).encode()).decode()


def native_text(source: Path) -> str:
    """A protocol's C compiled natively, as IR text: its handlers are `cham_native_<hook>` (mode `fixed`)."""
    return strip(str(_bitcode(toolchain.bitcode(source, defines=("CHAM_NATIVE",)))))


def _bitcode(data: bytes) -> llvm.ModuleRef:
    machine()
    return llvm.parse_bitcode(data)


def parse(text: str) -> llvm.ModuleRef:
    """A module from IR text."""
    machine()
    return llvm.parse_assembly(text)


def constants(values: Mapping[str, int]) -> str:
    """IR text that defines 32-bit constants, e.g. the configuration of a build."""
    return "".join(f"@{name} = constant i32 {value}\n" for name, value in values.items())


def data(symbol: str, content: bytes, align: int = 64) -> str:
    """IR text that defines constant bytes."""
    escaped = "".join(f"\\{byte:02x}" for byte in content)
    return f'@{symbol} = constant [{len(content)} x i8] c"{escaped}", align {align}\n'


def link(texts: Iterable[str]) -> llvm.ModuleRef:
    """One module of several, in order."""
    first, *rest = (parse(text) for text in texts)
    first.triple = machine().triple
    for module in rest:
        module.triple = first.triple
        module.data_layout = first.data_layout
        first.link_in(module)
    return first


def internalise(module: llvm.ModuleRef, keep: Iterable[str]) -> None:
    """Everything that is defined and not in `keep` becomes internal, so that it can fold, inline and vanish."""
    kept = set(keep)
    for item in [*module.functions, *module.global_variables]:
        if not item.is_declaration and item.name not in kept:
            item.linkage = "internal"


def optimise(module: llvm.ModuleRef, level: int = 3) -> None:
    """The default pipeline of -O3 for this machine."""
    options = llvm.create_pipeline_tuning_options(level)
    builder = llvm.create_pass_builder(machine(), options)
    builder.getModulePassManager().run(module, builder)


def emit(module: llvm.ModuleRef) -> bytes:
    """Object code. A back-end error ends the process: only the compiler's children and trusted code come here."""
    module.verify()
    return bytes(machine().emit_object(module))


@functools.cache
def host() -> str:
    """The machine that code is made for: part of the key of everything that is cached."""
    return f"{' '.join(cpu())} {'.'.join(map(str, llvm.llvm_version_info))}"
