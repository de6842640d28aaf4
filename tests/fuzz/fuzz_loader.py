"""Fuzzing the loader: whatever the file, an object whose parts fit together, or ObjectError; and verdicts of what it holds."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from bpf.test_bpf_hostile import ask_everything
from chamelio import toolchain
from chamelio.bpf import insn as bpf
from chamelio.bpf.maps import MAP_KIND_DATA
from chamelio.bpf.object import Object, ObjectError, Program, load_object
from chamelio.jit.layout import make_layout
from chamelio.verify import Limits, verify_object
from fuzz.fuzz_verifier import check
from verify.objects import make_object

__all__ = ["MAX_LEN", "given", "mutate", "one"]

MAX_LEN = 12_000
LIMITS = Limits(steps=200, seconds=0.2)
MAX_VERIFIED = 8  # programs of an object
_HEADER = struct.Struct("<4sBBBBQ2HI3QI6H")
_SECTION = struct.Struct("<2I4Q2I2Q")
_SYMBOL = struct.Struct("<IBBHQQ")
_EDGES = (0, 1, 2, 3, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8,
          0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


def one(data: bytes) -> None:
    """Load an object and ask for all that can be asked."""
    try:
        obj = load_object(data)
    except ObjectError as error:
        assert str(error)
        return
    for program in obj.programs:
        _check(program, obj)
    if obj.btf is not None:
        ask_everything(obj.btf)
    try:
        make_layout(obj.maps, 4)
    except ObjectError as error:
        assert str(error)
    longest = max((len(p.insns) for p in obj.programs), default=0)
    del obj.programs[MAX_VERIFIED:]
    for verdict in verify_object(obj, limits=LIMITS, every=len(data) % 2 == 0):
        check(verdict, longest)


def _check(program: Program, obj: Object) -> None:
    """What the verifier relies on: slots that decode, references to what there is, functions and faults within the program."""
    insns = program.insns
    bpf.validate(insns)
    assert program.subprogs[0] == program.name
    for where in (program.subprogs, program.lines, program.faults):
        assert all(0 <= slot < len(insns) for slot in where)
    assert all(insns[slot] == bpf.TRAP for slot in program.faults)
    assert all(program.subprog_at(pc) <= pc for pc in range(len(insns)))
    _ = [program.line_at(pc) for pc in range(len(insns))]
    second = False
    for slot, insn in enumerate(insns):
        assert second or insn != bpf.TRAP or slot in program.faults, f"a trap without a reason at {slot}"
        second = insn.op == bpf.LDDW
        if insn.op == bpf.LDDW and insn.src == bpf.PSEUDO_MAP:
            assert insn.imm < len(obj.maps)
        elif insn.op == bpf.LDDW and insn.src == bpf.PSEUDO_MAP_VALUE:
            found = obj.maps[insn.imm & 0xFFFFFFFF]
            assert found.kind == MAP_KIND_DATA and insn.imm >> 32 < found.value_size
        elif insn.is_call and insn.src == bpf.PSEUDO_CALL:
            assert bpf.jump_target(slot, insn) in program.subprogs
        else:
            assert insn.op != bpf.LDDW or insn.src in (0, bpf.PSEUDO_FUNC)


# ---- mutation ------------------------------------------------------------------------------------------------------


def mutate(data: bytes, max_size: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """A changed object: fields of headers and tables at their edges, or what `plain` makes of it."""
    r = random.Random(seed)
    places = _places(data)
    if not places or r.random() < 0.2:
        return plain(data, max_size)
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 1, 2, 3, 6))):
        begin, end, step = r.choice(places)
        at = begin + r.randrange(max((end - begin) // step, 1)) * step
        at += r.choice((0, 0, 0, 4, 1, 2, 8)) if step > 1 else 0
        size = r.choice((1, 2, 4, 4, 4, 8))
        if at + size > min(end, len(out)):
            continue
        old = int.from_bytes(out[at : at + size], "little")
        match r.randrange(6):
            case 0:
                new = r.choice(_EDGES)
            case 1:
                new = old + r.choice((-8, -4, -1, 1, 4, 8))
            case 2:
                new = old ^ 1 << r.randrange(8 * size)
            case 3:  # what stands elsewhere in the same table
                other = begin + r.randrange(max(end - begin - size, 1))
                new = int.from_bytes(out[other : other + size], "little")
            case 4:  # one entry over another
                other = begin + r.randrange(max((end - begin) // step, 1)) * step
                size, at = step, at - (at - begin) % step
                new = int.from_bytes(out[other : other + size], "little")
            case _:
                new = r.randrange(40)
        if at + size <= len(out):
            out[at : at + size] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(out[:max_size])


def _places(data: bytes) -> list[tuple[int, int, int]]:
    """(begin, end, bytes of an entry) of what an object consists of, as far as its headers can be followed."""
    if len(data) < _HEADER.size:
        return []
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    out = [(16, _HEADER.size, 2)]
    for n in range(min(count, 64)):
        at = table + n * _SECTION.size
        if at + _SECTION.size > len(data):
            break
        fields = _SECTION.unpack_from(data, at)
        begin, size, entry = fields[4], fields[5], fields[9]
        out.append((at, at + _SECTION.size, 8))
        if size > 0 and begin + size <= len(data):
            step = entry if 0 < entry <= 64 else 8 if fields[2] & 4 else 4
            out.append((begin, begin + size, step))
    return out


# ---- inputs to begin with ------------------------------------------------------------------------------------------


def given() -> list[bytes]:
    """Objects of the tests and of what is shipped, without what debuggers need, as far as they are small."""
    tests = Path(__file__).parents[1]
    sources = [tests / "bpf/sample.bpf.c", tests / "fuzz/kernel.bpf.c", *sorted(tests.glob("handlers/*.bpf.c"))]
    sources += sorted((toolchain.PACKAGE / "protocols").glob("*/*.bpf.c"))
    out = []
    for source in sources:
        data = stripped(toolchain.bpf_object(source))
        if len(data) <= MAX_LEN:
            out.append(data)
    mov, exit_ = bpf.encode([bpf.Insn(0xB7, 0, 0, 0, 0)]), bpf.encode([bpf.Insn(0x95, 0, 0, 0, 0)])
    call = bpf.encode([bpf.Insn(0x85, 0, 1, 0, -1)])
    out.append(make_object({"xdp": [("a", call + exit_)], ".text": [("b", mov + exit_)]}, calls=[("xdp", 0, "b")]))
    out.append(make_object({"chamelio/rx": [("a", mov + exit_), ("b", mov + exit_)]}, {"license": b"GPL\0", "maps": bytes(40)}))
    return out


def stripped(data: bytes) -> bytes:
    """An object without its .debug sections and those that go with them."""
    fields = list(_HEADER.unpack_from(data))
    table, count, names = fields[11], fields[17], fields[18]
    old = [list(_SECTION.unpack_from(data, table + n * _SECTION.size)) for n in range(count)]
    strings = old[names][4]

    def name(section: list[int]) -> bytes:
        at = strings + section[0]
        return data[at : data.index(b"\0", at)]

    kept = [n for n, section in enumerate(old) if b".debug" not in name(section) and name(section) != b".llvm_addrsig"]
    renumbered = {n: i for i, n in enumerate(kept)}
    body, sections = bytearray(_HEADER.size), []
    for n in kept:
        section = old[n]
        content = bytearray(data[section[4] : section[4] + section[5]] if section[1] != 8 else b"")
        if section[1] == 2:
            for at in range(0, len(content), _SYMBOL.size):
                (index,) = struct.unpack_from("<H", content, at + 6)
                struct.pack_into("<H", content, at + 6, renumbered.get(index, 0) if index < 0xFF00 else index)
        body += bytes(-len(body) % 8)
        section[4], section[6] = len(body), renumbered.get(section[6], 0)
        if section[1] in (4, 9):
            section[7] = renumbered.get(section[7], 0)
        body += content
        sections.append(section)
    body += bytes(-len(body) % 8)
    fields[11], fields[17], fields[18] = len(body), len(sections), renumbered[names]
    body[: _HEADER.size] = _HEADER.pack(*fields)
    return bytes(body) + b"".join(_SECTION.pack(*section) for section in sections)
