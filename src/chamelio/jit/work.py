"""What a child of the compiler process does with an object, in plain values: a Built, or a Refusal with verdicts."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from chamelio.bpf.btf import Btf
from chamelio.bpf.insn import BpfFormatError
from chamelio.bpf.object import Object, load_object
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.compile import Rejected, compile_unit, unit_key
from chamelio.jit.layout import DATA
from chamelio.jit.pool import Built
from chamelio.messages import Refusal
from chamelio.verify import Verdict, render


def options_of(values: dict[str, Any]) -> Options:
    """Compiler options from plain values. Raises Refusal."""
    try:
        return msgspec.convert(values, Options)
    except msgspec.ValidationError as error:
        raise Refusal("usage", f"options: {error}") from None


def key(content: bytes, options: dict[str, Any]) -> str:
    """What names the result of a job. Raises Refusal."""
    return unit_key(content, options_of(options))


def build(content: bytes, options: dict[str, Any]) -> Built:
    """Verify and compile. Raises Refusal: `malformed`, `rejected`, `usage`."""
    chosen = options_of(options)
    try:
        image: UnitImage = compile_unit(content, chosen)
        obj = load_object(content)
    except Rejected as rejected:
        raise rejection(rejected.verdicts) from None
    except BpfFormatError as error:
        raise Refusal("malformed", f"the object cannot be used: {error}", "build it with `chamelio protocol build`") from None
    return Built(
        key=image.key,
        protocol_sha=image.protocol_sha,
        mode=image.mode,
        layout=image.layout,
        types=value_types(obj),
        cold=image.cold,
        warm=image.warm,
        instructions=image.instructions,
        seconds=image.seconds,
        image=msgspec.msgpack.encode(image),
    )


def rejection(verdicts: list[Verdict]) -> Refusal:
    """A refusal that carries all verdicts; its message is the first one that is not an acceptance."""
    bad = [v for v in verdicts if v.verdict != "accept"]
    if not bad:
        return Refusal("rejected", "the object has no handler that could run", "put one in a section such as chamelio/rx")
    first = bad[0]
    message = f"{first.program}: {first.message}" + (f" [{first.code}]" if first.code else "")
    return Refusal("rejected", message, first.suggestion or "", verdicts=[plain(v) for v in verdicts])


def plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values; `rendered` is its text for people."""
    names = (
        "program", "section", "verdict", "code", "message", "reason", "suggestion", "file", "line", "col", "insn",
        "cost_cold", "cost_warm", "steps", "seconds",
    )  # fmt: skip
    values = {name: getattr(verdict, name) for name in names}
    return {**values, "path": [str(step) for step in verdict.path], "rendered": render(verdict)}


def value_types(obj: Object) -> list[str]:
    """Per map its value type spelled out: fields, formats, offsets, tags. Equal texts are equal types."""
    typed = (m.value_type if m.kind != DATA else None for m in obj.maps)
    return [spell(obj.btf, type_) if obj.btf is not None and type_ is not None else "" for type_ in typed]


def spell(btf: Btf, id_: int) -> str:
    """A type by its structure: `{seq:<u4@0 owner:<u8@8(slow)}16`."""
    try:
        tags = btf.decl_tags(btf.resolve_id(id_))
    except (BpfFormatError, KeyError):
        tags = {}
    return _spell(btf.dtype(id_), tags)


def _spell(dtype: np.dtype[Any], tags: dict[str, list[str]]) -> str:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _spell(base, {}) + "".join(f"[{n}]" for n in shape)
    if dtype.fields is None:
        return dtype.str
    fields = []
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]
        tagged = f"({','.join(sorted(tags[name]))})" if tags.get(name) else ""
        fields.append(f"{name}:{_spell(field, {})}@{offset}{tagged}")
    return "{" + " ".join(fields) + "}" + str(dtype.itemsize)
