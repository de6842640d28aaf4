"""The Linux kernel as an oracle: its verdict on a program, and what the program does with a packet, through bpf(2).

`Kernel` loads programs of an `Object` with its maps (kernel type numbers; global data becomes an array of one). Needs
root; `unavailable()` says why it cannot be used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn, encode
from chamelio.bpf.maps import MAP_KIND_DATA, MapDef
from chamelio.bpf.object import Object, Program

SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 321)
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD, PROG_TEST_RUN, BTF_LOAD, MAP_FREEZE = (
    0, 1, 2, 3, 4, 5, 10, 18, 22,
)  # fmt: skip
LOG_BYTES = 4 << 20  # the kernel keeps the end of what is longer
PROG_TYPES = {
    "socket_filter": 1, "sched_cls": 3, "sched_act": 4, "xdp": 6, "cgroup_skb": 8, "lwt_in": 10, "lwt_out": 11,
    "lwt_xmit": 12, "sk_skb": 14, "sk_msg": 16,
}  # fmt: skip
#: The program type that each of our contexts is loaded as.
TYPE_OF_CONTEXT = {
    "xdp_md": "xdp", "__sk_buff": "sched_cls", "socket_filter": "socket_filter", "cgroup_skb": "cgroup_skb",
    "lwt_xmit": "lwt_xmit", "sk_skb": "sk_skb",
}  # fmt: skip
F_RDONLY_PROG = 1 << 7
INNER_KINDS = (12, 13)  # maps of maps
STORAGE_KINDS = (24, 28, 29, 32)  # of sockets and the like; the kernel wants the types of their keys and values
SINGLE_CPU_SLOTS = (5, 6, 10, 21)  # per-CPU kinds: lookups from here return one value for each possible CPU

_libc = ctypes.CDLL(None, use_errno=True)
_log = ctypes.create_string_buffer(LOG_BYTES)


class KernelError(OSError):
    """A command of bpf(2) failed."""


def bpf_call(command: int, attributes: bytes) -> int:
    """One bpf(2) command. KernelError: it failed."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(SYS_BPF, command, buffer, len(attributes))
    if result < 0:
        number = ctypes.get_errno()
        raise KernelError(number, f"bpf command {command}: {os.strerror(number)}")
    return int(result)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def unavailable() -> str | None:
    """Why the kernel cannot be asked, or None."""
    if platform.system() != "Linux":
        return "bpf(2) is Linux's"
    if os.geteuid() != 0:
        return "bpf(2) needs root"
    try:
        verdict = load_program([Insn(bpf.ALU64 | bpf.MOV, 0, 0, 0, 0), Insn(bpf.JMP | bpf.EXIT, 0, 0, 0, 0)], "socket_filter")
    except OSError as error:
        return f"bpf(2) cannot be used here: {error}"
    if not verdict.accepted:
        return f"bpf(2) cannot be used here: {os.strerror(verdict.errno)}"
    verdict.close()
    return None


_NOT_WHY = ("processed ", "verification time", "stack depth", "max_states", "cur state:", "old state:")


@dataclass
class Verdict:
    """What the kernel says of a program. `log` is its verifier's; `message` the line of it that tells why."""

    fd: int = -1
    errno: int = 0
    log: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it was loaded."""
        return self.fd >= 0

    @property
    def message(self) -> str:
        """The last line of the log that is not statistics."""
        for line in reversed(self.log.splitlines()):
            if line and not line.startswith(_NOT_WHY):
                return line.strip()
        return os.strerror(self.errno) if self.errno else ""

    @property
    def slot(self) -> int | None:
        """The instruction that the log ends with."""
        unreachable = re.match(r"unreachable insn (\d+)", self.message)
        at = unreachable or None
        for found in re.finditer(r"^(\d+): \([0-9a-f]{2}\)", self.log, re.MULTILINE):
            at = unreachable or found
        return int(at[1]) if at else None

    @property
    def processed(self) -> int:
        """Instructions that the kernel's verifier stepped through."""
        for line in reversed(self.log.splitlines()):
            if line.startswith("processed "):
                return int(line.split()[1])
        return 0

    def close(self) -> None:
        """Unload it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def load_program(
    insns: Sequence[Insn], kind: str, *, functions: Sequence[int] = (), license: str = "GPL", flags: int = 0, level: int = 1,
    attach: int = 0,
) -> Verdict:  # fmt: skip
    """PROG_LOAD of code whose wide loads name file descriptors. OSError: bpf(2) itself is refused.

    `functions`: slots at which functions begin, if there are several: callbacks and tail calls in them need types.
    """
    code = ctypes.create_string_buffer(encode(insns))
    name = ctypes.create_string_buffer(license.encode())
    btf, infos = _function_types(functions) if functions else (-1, ctypes.create_string_buffer(b""))

    def load(level: int) -> int:
        _log[0] = b"\0"
        return bpf_call(
            PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16sIIIIQIIQIIII", PROG_TYPES[kind], len(insns), _address(code), _address(name), level,
                LOG_BYTES if level else 0, _address(_log) if level else 0, 0, flags, b"chamelio", 0, attach, max(btf, 0),
                8 if functions else 0, _address(infos) if functions else 0, len(functions), 0, 0, 0, 0, 0, 0,
            ),
        )  # fmt: skip

    try:
        if level == 1:  # a log of a long exploration takes longer than that itself
            with contextlib.suppress(KernelError):
                return Verdict(load(0))
            if ctypes.get_errno() == errno.E2BIG:
                return Verdict(-1, errno.E2BIG)
        return Verdict(load(level), 0, _log.value.decode("utf-8", "replace"))
    except KernelError as error:
        assert error.errno is not None
        log = _log.value.decode("utf-8", "replace")
        if error.errno == errno.EPERM and not log:
            raise
        return Verdict(-1, error.errno, log)
    finally:
        if btf >= 0:
            os.close(btf)


_INT = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32)  # a signed integer of 32 bits, named by the string at 1


def _function_types(functions: Sequence[int]) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """Type information that makes every function a static one without declared arguments: (BTF's fd, func_info)."""
    strings = bytearray(b"\0int\0")
    types = _INT
    types += struct.pack("<III", 0, 13 << 24, 1)  # 2: int (void)
    infos = b""
    for n, slot in enumerate(functions):
        types += struct.pack("<III", len(strings), 12 << 24, 2)
        strings += f"f{n}".encode() + b"\0"
        infos += struct.pack("<II", slot, 3 + n)
    return _load_types(types, bytes(strings)), ctypes.create_string_buffer(infos, len(infos))


def _load_types(types: bytes, strings: bytes) -> int:
    """A file descriptor of type information."""
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = ctypes.create_string_buffer(header + types + strings, len(header) + len(types) + len(strings))
    return bpf_call(BTF_LOAD, struct.pack("<QQIIII", _address(blob), 0, len(blob), 0, 0, 0))


# ---- maps ---------------------------------------------------------------------------------------------------------


@dataclass
class KernelMap:
    """A map in the kernel. `key_size`, `value_size` in bytes."""

    fd: int
    definition: MapDef
    inner: KernelMap | None = None

    def _elem(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char], flags: int = 0) -> None:
        k = ctypes.create_string_buffer(key, max(len(key), 1))
        bpf_call(command, struct.pack("<IIQQQ", self.fd, 0, _address(k) if key else 0, _address(value), flags))

    @property
    def _bytes(self) -> int:
        size = self.definition.value_size
        return -(-size // 8) * 8 * possible_cpus() if self.definition.kind in SINGLE_CPU_SLOTS else size

    def update(self, key: bytes, value: bytes) -> None:
        """Set a value (of a per-CPU map, on all CPUs)."""
        if self.definition.kind in SINGLE_CPU_SLOTS:
            value = value.ljust(-(-len(value) // 8) * 8, b"\0") * possible_cpus()
        self._elem(MAP_UPDATE, key, ctypes.create_string_buffer(value, len(value)))

    def lookup(self, key: bytes) -> bytes | None:
        """A value (of a per-CPU map, those of all CPUs), or None."""
        out = ctypes.create_string_buffer(self._bytes)
        try:
            self._elem(MAP_LOOKUP, key, out)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return out.raw

    def keys(self) -> Iterator[bytes]:
        """All keys, in the kernel's order."""
        size, at = self.definition.key_size, b""
        while True:
            out = ctypes.create_string_buffer(size)
            try:
                self._elem(MAP_NEXT_KEY, at, out)
            except KernelError:
                return
            at = out.raw
            yield at

    def contents(self) -> dict[bytes, bytes]:
        """Keys and values."""
        found = ((key, self.lookup(key)) for key in list(self.keys()))
        return {key: value for key, value in found if value is not None}

    def close(self) -> None:
        """Give the map up."""
        os.close(self.fd)
        if self.inner is not None:
            self.inner.close()


_cpus: list[int] = []


def possible_cpus() -> int:
    """CPUs that there could be: a per-CPU map has a value for each."""
    if not _cpus:
        with open("/sys/devices/system/cpu/possible") as f:
            parts = [part.split("-") for part in f.read().strip().split(",")]
        _cpus.append(sum(int(part[-1]) - int(part[0]) + 1 for part in parts))
    return _cpus[0]


def create_map(definition: MapDef) -> KernelMap:
    """A map of the kernel for a definition. KernelError: it does not make such a map."""
    d, inner = definition, None
    if d.kind == MAP_KIND_DATA:
        d = replace(d, kind=2, max_entries=1, attrs={"map_flags": F_RDONLY_PROG if d.read_only else 0})
    if d.kind in INNER_KINDS:
        inner = create_map(d.inner or MapDef("inner", 2, 4, 8, 4))
        d = replace(d, value_size=4)
    if d.kind == 4 and d.max_entries == 0:
        d = replace(d, max_entries=possible_cpus())
    types = _load_types(_INT, b"\0int\0") if d.kind in STORAGE_KINDS else 0
    name = "".join(c if c.isalnum() or c in "_." else "_" for c in d.name)[:15].encode()
    attributes = struct.pack(
        "<IIIIIII16sIIIIIQ", d.kind, d.key_size, d.value_size, d.max_entries, d.attrs.get("map_flags", 0),
        inner.fd if inner else 0, 0, name, 0, types, 1 if types else 0, 1 if types else 0, 0, d.attrs.get("map_extra", 0),
    )  # fmt: skip
    try:
        made = KernelMap(bpf_call(MAP_CREATE, attributes), d, inner)
    finally:
        if types:
            os.close(types)
    if definition.kind == MAP_KIND_DATA and definition.data is not None:
        made.update(bytes(4), definition.data)
        if definition.read_only:
            bpf_call(MAP_FREEZE, struct.pack("<I", made.fd))
    return made


# ---- programs of an object -----------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a program did with a packet."""

    retval: int
    packet: bytes


@dataclass
class Kernel:
    """The maps of an object in the kernel, and its programs loaded with them. Use it with `with`."""

    obj: Object
    maps: list[KernelMap] = field(default_factory=list)

    def __enter__(self) -> Kernel:
        try:
            for definition in self.obj.maps:
                self.maps.append(create_map(definition))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.maps:
            with contextlib.suppress(OSError):
                one.close()
        self.maps.clear()

    def patched(self, insns: Sequence[Insn]) -> list[Insn]:
        """The code with maps named by file descriptor, as the kernel takes it."""
        out = list(insns)
        for pc, insn in enumerate(out):
            if insn.op == bpf.LDDW and insn.src in (bpf.PSEUDO_MAP, bpf.PSEUDO_MAP_VALUE):
                index, offset = insn.imm & 0xFFFFFFFF, insn.imm >> 32
                if index < len(self.maps):
                    out[pc] = replace(insn, imm=self.maps[index].fd | offset << 32)
        return out

    def load(self, program: Program, kind: str, *, flags: int = 0, level: int = 1, attach: int = 0) -> Verdict:
        """The kernel's verdict on a program as one of a type of PROG_TYPES."""
        functions = sorted(program.subprogs) if len(program.subprogs) > 1 else ()
        license = self.obj.license or "GPL"
        return load_program(
            self.patched(program.insns), kind, functions=functions, license=license, flags=flags, level=level, attach=attach
        )


def run(verdict: Verdict, packet: bytes, *, room: int = 4096) -> Outcome:
    """TEST_RUN of an accepted program. KernelError: it cannot be run (a packet shorter than a header of Ethernet, ...)."""
    data, out = ctypes.create_string_buffer(packet, len(packet)), ctypes.create_string_buffer(room)
    attributes = bytearray(
        struct.pack("<IIIIQQIIIIQQIII", verdict.fd, 0, len(packet), room, _address(data), _address(out), 1, 0, 0, 0, 0, 0, 0, 0, 0)
    )
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    if _libc.syscall(SYS_BPF, PROG_TEST_RUN, buffer, len(attributes)) < 0:
        number = ctypes.get_errno()
        raise KernelError(number, f"test run: {os.strerror(number)}")
    _, retval, _, size = struct.unpack_from("<IIII", attributes)
    return Outcome(retval, out.raw[: min(size, room)])
