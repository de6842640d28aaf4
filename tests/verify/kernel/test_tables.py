"""The tables of kernel-style programs are what the kernel does: fields, helpers, their arguments, maps."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chamelio import verify
from chamelio.bpf import insn as bpf
from chamelio.bpf.asm import assemble
from chamelio.bpf.maps import MAP_KIND_DATA, MapDef
from chamelio.bpf.object import Object, Program
from chamelio.verify.catalogue import Arg, Context, CtxField, Helper
from chamelio.verify.kernel import CONTEXTS, HELPERS, MAPS, SOCKETS, UNSUPPORTED, helper_names
from chamelio.verify.kernel import maps as m
from verify.kernel import bpf_syscall
from verify.kernel.bpf_syscall import TYPE_OF_CONTEXT, Kernel, KernelError, Verdict, load_program

pytestmark = pytest.mark.root

SIZES = (("b", 1), ("h", 2), ("w", 4), ("dw", 8))
ABSENT = ("unknown func", "invalid func", "cannot use helper")
KINDS = {
    m.PROG_ARRAY: (4, 4), m.PERF_EVENT_ARRAY: (4, 4), m.CGROUP_ARRAY: (4, 4), m.LPM_TRIE: (8, 8), m.ARRAY_OF_MAPS: (4, 4),
    m.HASH_OF_MAPS: (4, 4), m.DEVMAP: (4, 4), m.DEVMAP_HASH: (4, 4), m.SOCKMAP: (4, 4), m.SOCKHASH: (4, 4), m.CPUMAP: (4, 4),
    m.XSKMAP: (4, 4), m.QUEUE: (0, 16), m.STACK: (0, 16), m.BLOOM_FILTER: (0, 8), m.SK_STORAGE: (4, 4), m.RINGBUF: (0, 0),
    m.REUSEPORT_SOCKARRAY: (4, 8),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _kernel() -> None:
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    if not platform.release().startswith("6.18."):
        pytest.skip(f"the tables are those of Linux 6.18, this is {platform.release()}")


@functools.cache
def unavailable() -> str | None:
    return bpf_syscall.unavailable()


def map_of(kind: int) -> MapDef:
    """A small map of a kind."""
    key, value = KINDS.get(kind, (4, 16))
    entries = {m.RINGBUF: 4096, m.SK_STORAGE: 0}.get(kind, 4)
    flags = {"map_flags": 1} if kind in (m.LPM_TRIE, m.SK_STORAGE) else {}
    inner = MapDef("inner", m.ARRAY, 4, 8, 4) if MAPS[kind].lookup == "map" else None
    return MapDef(MAPS[kind].name, kind, key, value, entries, flags, inner=inner)


TEXT = MapDef(".rodata", MAP_KIND_DATA, 4, 8, 1, data=b"word\0\0\0\0", read_only=True)


def program_of(text: str) -> Program:
    """A program with its functions, those that are called and those whose address is taken."""
    insns = assemble(text)
    functions = {0: "main"}
    for pc, insn in enumerate(insns):
        if (insn.is_call and insn.src == bpf.PSEUDO_CALL) or (insn.op == bpf.LDDW and insn.src == bpf.PSEUDO_FUNC):
            target = pc + 1 + (insn.imm & 0xFFFFFFFF if insn.op == bpf.LDDW else insn.imm)
            functions.setdefault(target, f"f{target}")
    return Program("main", "", insns, functions)


def verdict(text: str, context: str, maps: list[MapDef] | None = None, **options: int) -> Verdict:
    """What the kernel says of assembler; what it says stays, the program does not."""
    with Kernel(Object([], maps or [], None, "GPL", "")) as kernel:
        said = kernel.load(program_of(text), TYPE_OF_CONTEXT[context], **options)
    said.close()
    return replace(said, fd=0 if said.errno == 0 else -1)


def ours(text: str, context: str, maps: list[MapDef] | None = None) -> bool:
    """Whether our verifier accepts it."""
    program = program_of(text)
    return verify.verify_program(Object([program], maps or [], None, "GPL", ""), program, context=context).verdict == "accept"


# ---- contexts -----------------------------------------------------------------------------------------------------


def expected(fields: tuple[CtxField, ...], offset: int, size: int, store: bool) -> bool:
    """Whether the table allows an access."""
    for f in fields:
        if f.offset == offset and f.size == size:
            return f.writable if store else True
        if f.offset <= offset and offset + size <= f.offset + f.size and offset % size == 0:
            return f.writable and f.narrow_stores if store else f.narrow
    return False


@pytest.mark.parametrize("name", sorted(TYPE_OF_CONTEXT.keys() & CONTEXTS.keys()))
def test_fields_are_those_of_the_kernel(name: str) -> None:
    context = CONTEXTS[name]
    kind = TYPE_OF_CONTEXT[name]
    wrong = []
    for offset in range(context.size + 8):
        for letter, size in SIZES:
            for store in (False, True):
                text = f"mov r0, 0\nstx{letter} [r1+{offset}], r0" if store else f"ldx{letter} r2, [r1+{offset}]\nmov r0, 0"
                said = load_program(assemble(text + "\nexit"), kind)
                known = expected(context.fields, offset, size, store), ours(text + "\nexit", name)
                if known != (said.accepted, said.accepted):
                    wrong.append((offset, size, "store" if store else "load", said.message))
                said.close()
    assert not wrong


def kind_of(field: CtxField, kind: str) -> str:
    said = load_program(
        assemble(f"ldx{ {1: 'b', 4: 'w', 8: 'dw'}[field.size] } r2, [r1+{field.offset}]\nmov r0, 0\nexit"), kind, level=2
    )
    said.close()
    line = next(line for line in said.log.splitlines() if line.startswith("0: ") and "R2" in line)
    return line.split("R2", 1)[1].split("=", 1)[1].split("(")[0].split()[0]


@pytest.mark.parametrize("name", sorted(TYPE_OF_CONTEXT.keys() & CONTEXTS.keys()))
def test_what_fields_hold_is_what_the_kernel_gives(name: str) -> None:
    words = {"packet": "pkt", "packet_end": "pkt_end", "packet_meta": "pkt_meta", "sock_common_or_null": "sock_common_or_null",
             "scalar": "scalar"}  # fmt: skip
    for field in CONTEXTS[name].fields:
        assert kind_of(field, TYPE_OF_CONTEXT[name]) == words[field.kind], field


SOCKET = {
    "sock_common": "ldxdw r6, [r1+168]\njeq r6, 0, out\n",
    "sock": "ldxdw r1, [r1+168]\njeq r1, 0, out\ncall 95\nmov r6, r0\njeq r6, 0, out\n",
    "tcp_sock": "ldxdw r1, [r1+168]\njeq r1, 0, out\ncall 96\nmov r6, r0\njeq r6, 0, out\n",
}


@pytest.mark.parametrize("name", sorted(SOCKET))
def test_fields_of_sockets_are_those_of_the_kernel(name: str) -> None:
    """The kernel sees some fields as shorter than the words that they lie in: parts behind them are refused, which is
    not followed here."""
    wrong = []
    for offset in range(SOCKETS[name].size + 8):
        for letter, size in SIZES:
            said = load_program(assemble(f"{SOCKET[name]}ldx{letter} r2, [r6+{offset}]\nout: mov r0, 0\nexit"), "sched_cls")
            known = expected(SOCKETS[name].fields, offset, size, False)
            if said.accepted and not known:
                wrong.append((offset, size, "needlessly refused"))
            if known and not said.accepted and offset % 4 == 0:
                wrong.append((offset, size, said.message))
            said.close()
    assert not wrong


# ---- helpers --------------------------------------------------------------------------------------------------------

UNTOUCHED = 128  # bytes below r10 that are written


class Call:
    """A call of a helper as its table says it is made; one argument can be another."""

    def __init__(self, helper: Helper, context: str, kind: int | None = None) -> None:
        self.helper, self.context = helper, context
        self.maps = [TEXT, map_of(m.RINGBUF)]
        for arg in helper.args:
            if arg.kind == "map":
                self.maps.append(map_of(kind or arg.maps[0]))

    def lines(self, bent: dict[int, str] | None = None, tail: str = "") -> str:
        """The program; `bent` has the code that sets some registers."""
        out = ["mov r6, r1", *(f"stdw [r10-{at}], 0" for at in range(8, UNTOUCHED + 1, 8))]
        if any(arg.kind == "sock" for arg in self.helper.args):
            out += self.socket()
        if any(arg.kind == "allocated" for arg in self.helper.args):
            out += ["lddw r1, map 1", "mov r2, 16", "mov r3, 0", "call 131", "jeq r0, 0, out", "mov r7, r0"]
        for reg, arg in enumerate(self.helper.args, 1):
            out.append((bent or {}).get(reg) or self.value(reg, arg))
        out.append(f"call {self.helper.id}")
        out.append(tail)
        if any(arg.kind == "sock" for arg in self.helper.args) and not self.helper.releases and self.context == "xdp_md":
            out += ["mov r1, r7", "call 86"]
        if self.helper.acquires:
            release = ["mov r2, 0", "call 133"] if self.helper.ret == "allocated_or_null" else ["call 86"]
            out += ["jeq r0, 0, out", "mov r1, r0", *release]
        out += ["out: mov r0, 0", "exit", "callback: mov r0, 0", "exit"]
        return "\n".join(out if any(a.kind == "callback" for a in self.helper.args) else out[:-2])

    def socket(self) -> list[str]:
        if self.context != "xdp_md" and not self.helper.releases:
            return ["ldxdw r7, [r1+168]", "jeq r7, 0, out", *self.full()]
        return ["mov r2, r10", "add r2, -64", "mov r3, 12", "mov r4, 0", "mov r5, 0", "call 84", "jeq r0, 0, out", "mov r7, r0"]

    def full(self) -> list[str]:
        """A socket that is no half-open one, where the helper must have that."""
        if self.helper.name.removeprefix("bpf_") in ("sk_fullsock", "tcp_sock"):
            return []
        return ["mov r1, r7", "call 95", "jeq r0, 0, out", "mov r7, r0"]

    def value(self, reg: int, arg: Arg) -> str:
        size = next((a for a in self.helper.args[reg:] if a.kind in ("size", "size_or_zero")), None)
        match arg.kind:
            case "ctx":
                return f"mov r{reg}, r6"
            case "map":
                return f"lddw r{reg}, map 2"
            case "key" | "value" | "read" | "read_write" | "stack_or_null":
                return f"mov r{reg}, r10\nadd r{reg}, -64"
            case "write" | "value_out":
                return f"mov r{reg}, r10\nadd r{reg}, -{UNTOUCHED + 64}"
            case "sock" | "allocated":
                return f"mov r{reg}, r7"
            case "text":
                return f"lddw r{reg}, map_value 0+0"
            case "callback":
                return f"lddw r{reg}, code CALLBACK"
            case "size" | "size_or_zero" | "constant":
                return f"mov r{reg}, 16"
        assert size is None or arg.kind == "scalar"
        return f"mov r{reg}, 0"

    def verdict(self, bent: dict[int, str] | None = None, tail: str = "") -> Verdict:
        """The kernel's."""
        return verdict(self.text(bent, tail), self.context, self.maps)

    def ours(self, bent: dict[int, str] | None = None, tail: str = "") -> verify.Verdict:
        """Our verifier's."""
        program = program_of(self.text(bent, tail))
        return verify.verify_program(Object([program], self.maps, None, "GPL", ""), program, context=self.context)

    def text(self, bent: dict[int, str] | None = None, tail: str = "") -> str:
        """The program, with the distance to the callback filled in."""
        text = self.lines(bent, tail)
        if "CALLBACK" in text:  # the assembler takes a distance, in slots from behind the first
            plain = assemble(text.replace("code CALLBACK", "0"))
            at = next(pc for pc, insn in enumerate(plain) if insn.op == bpf.LDDW and insn.imm == 0 and insn.src == 0)
            text = text.replace("CALLBACK", str(len(plain) - 2 - at - 1))
        return text


def calls() -> Iterator[tuple[str, Helper]]:
    for context, helpers in HELPERS.items():
        for helper in helpers.values():
            yield context, helper


ALL_CALLS = [pytest.param(c, h, id=f"{c}-{h.name}") for c, h in calls()]


@pytest.mark.parametrize(("context", "helper"), ALL_CALLS)
def test_a_call_as_the_table_says_is_accepted_and_any_other_refused(context: str, helper: Helper) -> None:
    """By the kernel, and by our verifier."""
    call = Call(helper, context)
    assert_both(call, True, "as the table says")
    for reg, arg in enumerate(helper.args, 1):
        for code, why in bendings(helper, reg, arg):
            assert_both(call, False, f"argument {reg}, {why}", {reg: code})
        if arg.nullable or arg.kind in ("stack_or_null", "size_or_zero"):
            bent = {reg: f"mov r{reg}, 0"}
            if arg.nullable and helper.args[reg : reg + 1] and helper.args[reg].kind == "size_or_zero":
                bent[reg + 1] = f"mov r{reg + 1}, 0"
            assert_both(call, True, f"argument {reg} as 0", bent)


def assert_both(call: Call, accepted: bool, what: str, bent: dict[int, str] | None = None) -> None:
    said, ours = call.verdict(bent), call.ours(bent)
    assert said.accepted == accepted, f"kernel, {what}: {said.message}\n{call.lines(bent)}"
    assert (ours.verdict == "accept") == accepted, f"{what}: {ours.code} {ours.message}; {ours.reason}\n{call.lines(bent)}"


def bendings(helper: Helper, reg: int, arg: Arg) -> Iterator[tuple[str, str]]:
    """Other values for a register, none of which will do, and why."""
    if reg != 1:
        yield "mov r0, 0", "never written"  # leaves it as the last call did
    if arg.kind not in ("scalar", "size", "size_or_zero", "constant", "stack_or_null") and not arg.nullable:
        yield f"mov r{reg}, 0", "NULL"
    if arg.kind not in ("scalar", "size", "size_or_zero", "constant"):
        yield f"mov r{reg}, 4096", "a number"
    if arg.kind in ("read", "key", "value", "write", "value_out", "read_write"):
        yield f"mov r{reg}, r6", "the context"
        yield f"mov r{reg}, r10\nadd r{reg}, -{'1' if arg.kind != 'key' else '3'}", "beyond the stack"
    if arg.nullable and helper.args[reg : reg + 1] and helper.args[reg].kind == "size_or_zero":
        yield f"mov r{reg}, 0", "NULL and a length"
    if arg.kind in ("write", "value_out", "read_write"):
        yield f"lddw r{reg}, map_value 0+0", "constant data, or too short"
    if arg.kind == "size":
        yield f"mov r{reg}, 0", "no bytes"
    if arg.kind in ("size", "size_or_zero"):
        yield f"mov r{reg}, 1024", "beyond the stack"
        yield f"mov r{reg}, -1", "negative"
        yield f"mov r{reg}, r10", "an address"
    if arg.kind == "constant":
        yield "call 7\nmov r2, r0\nlddw r1, map 2\nmov r3, 0", "any number"
    if arg.kind == "map":
        yield f"mov r{reg}, r10\nadd r{reg}, -64", "the stack"


@pytest.mark.parametrize("context", sorted(HELPERS))
def test_all_other_helpers_are_absent_or_named_as_unsupported(context: str) -> None:
    for number in (*helper_names, 212, 1000):
        said = load_program(assemble(f"call {number}\nmov r0, 0\nexit"), TYPE_OF_CONTEXT[context])
        said.close()
        absent = any(words in said.message for words in ABSENT)
        listed = number in HELPERS[context] or number in UNSUPPORTED
        if number != 81:  # get_local_storage is of programs of cgroups only
            assert listed != absent, f"{number} {helper_names.get(number)}: {said.message}"


def test_packet_addresses_end_where_the_table_says_so() -> None:
    for name, (data, end) in {"xdp_md": (0, 4), "__sk_buff": (76, 80), "lwt_xmit": (76, 80), "sk_skb": (76, 80)}.items():
        for helper in HELPERS[name].values():
            if any(arg.kind in ("callback", "allocated") for arg in helper.args) or helper.acquires:
                continue
            if helper.name == "bpf_tail_call":  # it comes back only if it has done nothing; see the test below
                continue
            call = Call(helper, name)
            text = call.lines(tail="ldxb r0, [r8+0]")
            text = text.replace("mov r6, r1\n", f"mov r6, r1\nldxw r8, [r1+{data}]\nldxw r9, [r1+{end}]\nmov r2, r8\nadd r2, 1\n"
                                "jgt r2, r9, out\n", 1)  # fmt: skip
            said = verdict(text, name, call.maps)
            assert said.accepted != helper.invalidates_packet, f"{name} {helper.name}: {said.message}"
            assert ours(text, name, call.maps) == said.accepted, f"{name} {helper.name}"


def test_a_tail_call_ends_packet_addresses_of_who_called_the_function_that_makes_it() -> None:
    text = """
        mov r6, r1
        ldxw r7, [r1+0]
        ldxw r2, [r1+4]
        mov r3, r7
        add r3, 1
        jgt r3, r2, out
        {}
        ldxb r0, [r7+0]
        out: mov r0, 0
        exit
        f: lddw r2, map 0
        mov r3, 0
        call 12
        mov r0, 0
        exit
    """
    maps = [map_of(m.PROG_ARRAY)]
    call = "lddw r2, map 0\nmov r3, 0\ncall 12"
    assert verdict(text.format(call).split("f:")[0], "xdp_md", maps).accepted
    said = verdict(text.format("call local f"), "xdp_md", maps)
    assert not said.accepted and "invalid mem access 'scalar'" in said.message
    assert ours(text.format(call).split("f:")[0], "xdp_md", maps) and not ours(text.format("call local f"), "xdp_md", maps)


def test_void_helpers_return_nothing() -> None:
    for context, helper in calls():
        if helper.ret in ("void", "scalar") and not any(arg.kind == "callback" for arg in helper.args):
            said = Call(helper, context).verdict(tail="mov r9, r0")
            assert said.accepted == (helper.ret == "scalar"), f"{helper.name}: {said.message}"


# ---- maps -----------------------------------------------------------------------------------------------------------


def supported_maps() -> list[int]:
    return [kind for kind, one in MAPS.items() if not one.unsupported]


@pytest.mark.parametrize("kind", supported_maps())
def test_helpers_take_the_kinds_of_maps_that_the_table_says(kind: int) -> None:
    wrong = []
    for context in ("xdp_md", "__sk_buff", "sk_skb"):
        for helper in HELPERS[context].values():
            maps = next((arg.maps for arg in helper.args if arg.kind == "map"), None)
            if maps is None:
                continue
            call = Call(helper, context, kind)
            tail = ""
            if helper.name == "bpf_map_lookup_elem" and MAPS[kind].lookup == "sock":
                tail = "jeq r0, 0, out\nmov r1, r0\ncall 86"
            said, own = call.verdict(tail=tail), call.ours(tail=tail).verdict == "accept"
            if (said.accepted, own) != (kind in maps, kind in maps):
                wrong.append((context, helper.name, MAPS[kind].name, said.message))
    assert not wrong


@pytest.mark.parametrize("kind", supported_maps())
def test_what_a_lookup_gives_is_what_the_table_says(kind: int) -> None:
    one = MAPS[kind]
    if not one.lookup:
        return
    lookup = "stdw [r10-8], 0\nmov r2, r10\nadd r2, -8\nlddw r1, map 0\ncall 1\njeq r0, 0, out\n"
    end = "out: mov r0, 0\nexit"
    release = "mov r1, r0\ncall 86\n"

    def says(code: str) -> bool:
        context = "__sk_buff" if one.lookup != "xsk" else "xdp_md"
        accepted = verdict(lookup + code + end, context, [map_of(kind)]).accepted
        if one.lookup != "map" or "ldxw" not in code:  # the kernel lets a map itself be read
            assert ours(lookup + code + end, context, [map_of(kind)]) == accepted, code
        return accepted

    assert says("ldxw r3, [r0+0]\n" + (release if one.lookup == "sock" else ""))
    assert says("stw [r0+0], 1\n" + (release if one.lookup == "sock" else "")) == (one.lookup == "value" and one.writable)
    assert says("ldxw r3, [r0+72]\n" + release) == (one.lookup == "sock")
    assert says("mov r1, r0\nmov r2, r10\nadd r2, -8\ncall 1\n") == (one.lookup == "map")


def test_every_kind_of_map_can_be_made_here() -> None:
    for kind in supported_maps():
        try:
            with Kernel(Object([], [map_of(kind)], None, "", "")):
                pass
        except KernelError as error:
            raise AssertionError(f"{MAPS[kind].name}: {error}") from error


def test_contexts_have_the_helpers_of_their_type() -> None:
    context: Context
    for context in CONTEXTS.values():
        assert context.helpers and not context.runs
        assert len({f.offset for f in context.fields}) == len(context.fields)
