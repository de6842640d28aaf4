"""Units: a protocol's handlers joined with the provider's batch loops, in one of three modes.

* `joint`: lifted handlers, helpers and batch loops in one module; map descriptors are constants that fold away.
* `fixed`: the same, with the protocol's C compiled natively in place of the lifted handlers: what a fixed-function stack
  would be. The yardstick.
* `separate`: handlers compiled alone, called through pointers; generic helpers that read their map descriptors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import llvmlite.binding as llvm

from chamelio.bpf.object import Object
from chamelio.engine import abi
from chamelio.jit import modules
from chamelio.jit.layout import DATA, RING_IN, TIMER, TX, Layout
from chamelio.jit.lift import Environment, lift
from chamelio.verify import Proof
from chamelio.verify.catalogue import HELPERS

HOOKS = ("rx", "ring", "tx", "timer")
INIT = "cham_unit_init"
_HOT_HELPERS = ("lookup", "push", "resize", "pkt_to_bytes", "bytes_to_pkt", "csum", "random", "hash", "emit", "csum_later")
_DEFINE = re.compile(r"^(define [^\n]*@cham_h_cham_(\w+)\([^\n]*?\)[^\n{#]*)(#\d+)", re.MULTILINE)


def map_symbols(layout: Layout) -> list[str]:
    """The symbol of each map's descriptor, by index."""
    return [f"cham_map_{m.name}" if m.kind != DATA else f"cham_data_{i}" for i, m in enumerate(layout.maps)]


def environment(layout: Layout, *, virtual: bool, hardening: bool) -> Environment:
    """Field offsets and map places for the lifter."""
    turn, core = abi.dtype("cham_turn"), abi.dtype("cham_core")
    return Environment(
        core_offset=turn.fields["core"][1],  # type: ignore[index]
        instance_offset=turn.fields["inst"][1],  # type: ignore[index]
        vcycles_offset=core.fields["vcycles"][1],  # type: ignore[index]
        count=virtual,
        harden=hardening,
        data_offsets={i: m.values for i, m in enumerate(layout.maps) if m.kind == DATA},
        map_symbols=map_symbols(layout),
    )


def _joinable(text: str) -> str:
    """The batch loops' IR with its helpers ready to be inlined: the hot ones always, the others as the compiler likes."""
    groups = {line.split(" ", 2)[1] for line in text.splitlines() if line.startswith("attributes #") and " noinline " in line}
    text = re.sub(r"^(attributes #\d+ = \{.*?) noinline ", r"\1 ", text, flags=re.MULTILINE)

    def mark(match: re.Match[str]) -> str:
        always = "alwaysinline " if match[2] in _HOT_HELPERS and match[3] in groups else ""
        return f"{match[1]}{always}{match[3]}"

    return _DEFINE.sub(mark, text)


def _configuration(*, virtual: bool, hardening: bool, hooks: Sequence[str]) -> str:
    values = {"cham_cfg_virtual": int(virtual), "cham_cfg_hardening": int(hardening)}
    values |= {f"cham_has_{hook}": int(hook in hooks) for hook in HOOKS}
    return modules.constants(values)


def _missing(hooks: Sequence[str]) -> str:
    return "".join(
        f"define i64 @cham_handler_{hook}(ptr %turn) alwaysinline {{\n  ret i64 0\n}}\n" for hook in HOOKS if hook not in hooks
    )


def _feeds(layout: Layout) -> str:
    """Descriptors of the maps that hooks are fed from; a hook without one is fed from an empty map."""
    text = ""
    for name, kind in (("ring", RING_IN), ("tx", TX), ("timer", TIMER)):
        found = [m for m in layout.maps if m.kind == kind]
        text += modules.data(f"cham_feed_{name}", found[0].descriptor() if found else bytes(64))
    return text


def _descriptors(layout: Layout) -> str:
    return "".join(
        modules.data(symbol, m.descriptor()) for symbol, m in zip(map_symbols(layout), layout.maps, strict=True) if m.kind != DATA
    )


def _joined(texts: Sequence[str], keep: Sequence[str] = ()) -> llvm.ModuleRef:
    module = modules.link(texts)
    for function in module.functions:
        if function.name in keep:
            function.linkage = "external"
    modules.internalise(module, [INIT, *keep])
    modules.optimise(module)
    return module


def live_hooks(layout: Layout, hooks: Sequence[str]) -> list[str]:
    """Handlers that can ever run: without a map to feed it, a hook stays silent."""
    kinds = {m.kind for m in layout.maps}
    needs = {"ring": RING_IN, "tx": TX, "timer": TIMER}
    return [hook for hook in hooks if hook not in needs or needs[hook] in kinds]


def joint_module(
    proofs: list[Proof], obj: Object, layout: Layout, *, virtual: bool, hardening: bool, keep: Sequence[str] = ()
) -> llvm.ModuleRef:
    """A jointly compiled unit before its code is emitted; functions named in `keep` stay visible."""
    hooks = live_hooks(layout, [p.hook for p in proofs])
    live = [p for p in proofs if p.hook in hooks]
    return _joined(
        [
            _joinable(modules.provider_text("unit.c")),
            _configuration(virtual=virtual, hardening=hardening, hooks=hooks),
            _feeds(layout) + _descriptors(layout) + _missing(hooks),
            lift(live, obj, environment(layout, virtual=virtual, hardening=hardening)),
        ],
        keep,
    )


def joint(proofs: list[Proof], obj: Object, layout: Layout, *, virtual: bool, hardening: bool) -> list[bytes]:
    """Object code of a jointly compiled unit."""
    return [modules.emit(joint_module(proofs, obj, layout, virtual=virtual, hardening=hardening))]


def fixed(native: str, hooks: Sequence[str], layout: Layout, *, hardening: bool) -> list[bytes]:
    """Object code of a unit whose handlers are native IR (`cham_native_<hook>`), joined in the same way."""
    hooks = live_hooks(layout, hooks)
    bridges = "".join(
        f"declare i64 @cham_native_{hook}(ptr)\n"
        f"define i64 @cham_handler_{hook}(ptr %turn) alwaysinline {{\n"
        f"  %v = call i64 @cham_native_{hook}(ptr %turn)\n  ret i64 %v\n}}\n"
        for hook in hooks
    )
    module = _joined(
        [
            _joinable(modules.provider_text("unit.c")),
            _configuration(virtual=False, hardening=hardening, hooks=hooks),
            _feeds(layout) + _descriptors(layout) + _missing(hooks) + bridges,
            native,
        ]
    )
    return [modules.emit(module)]


def separate(proofs: list[Proof], obj: Object, layout: Layout, *, virtual: bool, hardening: bool) -> list[bytes]:
    """Object code of batch loops with generic helpers, and of handlers that know nothing of them."""
    hooks = live_hooks(layout, [p.hook for p in proofs])
    live = [p for p in proofs if p.hook in hooks]
    trampolines = "".join(
        f"@cham_pointer_{hook} = external global ptr\n"
        f"define i64 @cham_handler_{hook}(ptr %turn) alwaysinline {{\n"
        f"  %f = load volatile ptr, ptr @cham_pointer_{hook}\n  %v = call i64 %f(ptr %turn)\n  ret i64 %v\n}}\n"
        for hook in hooks
    )
    kept = [INIT, *(f"cham_h_{helper.name}" for helper in HELPERS.values())]
    loops = modules.link(
        [
            modules.provider_text("unit.c"),
            _configuration(virtual=virtual, hardening=hardening, hooks=hooks),
            _feeds(layout).replace(" = constant ", " = global ") + _missing(hooks) + trampolines,
        ]
    )
    modules.internalise(loops, [*kept, "cham_feed_ring", "cham_feed_tx", "cham_feed_timer"])
    modules.optimise(loops)
    handlers = modules.link(
        [
            lift(live, obj, environment(layout, virtual=virtual, hardening=hardening)).replace("@cham_handler_", "@cham_separate_"),
            "".join(
                f"@cham_pointer_{hook} = global ptr @cham_separate_{hook}\ndeclare i64 @cham_separate_{hook}(ptr)\n"
                for hook in hooks
            ),
        ]
    )
    modules.optimise(handlers)
    # A third module defines the descriptors as plain memory, so that no optimiser sees what they say.
    tables = modules.link([_descriptors(layout).replace(" = constant ", " = global ")])
    return [modules.emit(loops), modules.emit(handlers), modules.emit(tables)]
