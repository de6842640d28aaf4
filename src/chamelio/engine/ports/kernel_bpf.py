"""bpf(2) through ctypes: maps, programs and links, as far as the AF_XDP port needs them. Structures are those of
<linux/bpf.h>; a kernel accepts a shorter attribute than its own."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

from chamelio.engine.ports.interface import libc

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, PROG_LOAD = 0, 1, 2, 3, 5
PROG_GET_FD_BY_ID, OBJ_GET_INFO, LINK_CREATE = 13, 15, 28
MAP_TYPE_HASH, MAP_TYPE_XSKMAP = 1, 17
PROG_TYPE_XDP = 6
ATTACH_XDP = 37
XDP_MODES = {"drv": 1 << 2, "skb": 1 << 1}  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE

_SYSCALL = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 321)
_LOG_BYTES = 1 << 16


class BpfError(OSError):
    """The kernel refused; `log` is its verifier's explanation, if there is one."""

    def __init__(self, code: int, log: str = "") -> None:
        super().__init__(code, os.strerror(code))
        self.log = log


def bpf(command: int, attributes: bytes) -> int:
    """The system call. Raises BpfError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(libc.syscall(_SYSCALL, command, buffer, len(attributes)))
    if result < 0:
        raise BpfError(ctypes.get_errno())
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _name(text: str) -> bytes:
    return text.encode()[:15]


@dataclass(frozen=True)
class Map:
    """A kernel map with keys and values of fixed sizes, owned through its descriptor."""

    fd: int
    key_size: int
    value_size: int

    @classmethod
    def create(cls, kind: int, key_size: int, value_size: int, max_entries: int, name: str) -> Map:
        """A new map. Raises BpfError."""
        fields = (kind, key_size, value_size, max_entries, 0, 0, 0, _name(name))
        return cls(bpf(MAP_CREATE, struct.pack("7I16s", *fields)), key_size, value_size)

    def _element(self, command: int, key: bytes, value: bytes | None) -> None:
        if len(key) != self.key_size or (value is not None and len(value) != self.value_size):
            raise ValueError("key or value of a wrong size")
        key_buffer = ctypes.create_string_buffer(key, len(key))
        value_buffer = ctypes.create_string_buffer(value or b"", self.value_size)
        at_value = 0 if value is None else _address(value_buffer)
        bpf(command, struct.pack("I4xQQQ", self.fd, _address(key_buffer), at_value, 0))

    def update(self, key: bytes, value: bytes) -> None:
        """Insert or replace. Raises BpfError, E2BIG when the map is full."""
        self._element(MAP_UPDATE, key, value)

    def delete(self, key: bytes) -> None:
        """Remove. Raises BpfError, ENOENT when there is no such key."""
        self._element(MAP_DELETE, key, None)

    def close(self) -> None:
        """Give the descriptor back; the kernel frees the map when no program uses it."""
        os.close(self.fd)


def load_xdp(instructions: bytes, name: str) -> int:
    """Load an XDP program and return its descriptor. Raises BpfError with the verifier's log."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_text = ctypes.create_string_buffer(b"Dual BSD/GPL")

    def load(log_level: int, log: ctypes.Array[ctypes.c_char] | None) -> int:
        return bpf(
            PROG_LOAD,
            struct.pack(
                "IIQQIIQII16sII",
                PROG_TYPE_XDP,
                len(instructions) // 8,
                _address(code),
                _address(license_text),
                log_level,
                _LOG_BYTES if log is not None else 0,
                _address(log) if log is not None else 0,
                0,
                0,
                _name(name),
                0,
                ATTACH_XDP,
            ),
        )

    try:
        return load(0, None)
    except BpfError as refused:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return load(1, log)
        except BpfError:
            raise BpfError(refused.errno or 0, log.value.decode(errors="replace")) from None


def program_name(program_id: int) -> str:
    """The name of a loaded program. Raises BpfError."""
    fd = bpf(PROG_GET_FD_BY_ID, struct.pack("III", program_id, 0, 0))
    try:
        info = ctypes.create_string_buffer(80)  # struct bpf_prog_info up to and with `name`
        bpf(OBJ_GET_INFO, struct.pack("IIQ", fd, len(info), _address(info)))
        return info.raw[64:80].split(b"\0")[0].decode(errors="replace")
    finally:
        os.close(fd)


def link_xdp(program: int, ifindex: int, mode: str) -> int:
    """Attach a program to an interface of the calling thread's namespace, for as long as the returned descriptor lives.

    Raises BpfError: EBUSY when another program is attached.
    """
    return bpf(LINK_CREATE, struct.pack("IIII", program, ifindex, ATTACH_XDP, XDP_MODES[mode]))
