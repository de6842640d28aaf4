"""Confinement of a process that works on hostile input: after `confine` it can compute and write to what it has open.

Limits (setrlimit) bound time and memory. Landlock, where the kernel has it, takes away all rights to files, TCP ports, and
processes and sockets outside. A seccomp filter leaves only the system calls that computing takes, so there are no new
files, no network, no other processes; what it does not allow fails with EPERM (x86-64; elsewhere there is no filter).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path

PIPE = 3  # descriptor that an isolated child writes to
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_AUDIT_ARCH_X86_64 = 0xC000003E
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # allow; errno EPERM; kill the process
_LD_ABS, _JEQ, _RET = 0x20, 0x15, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16  # offsets in struct seccomp_data
_TGKILL = 234

_CALLS = {  # x86-64 numbers
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "exit": 60,
    "gettimeofday": 96,
    "getrusage": 98,
    "sigaltstack": 131,
    "gettid": 186,
    "futex": 202,
    "sched_getaffinity": 204,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "getrandom": 318,
    "rseq": 334,
}


def _filter(pid: int) -> bytes:
    """The classic BPF program: `_CALLS`, and signals to the process itself (abort)."""
    numbers = sorted(_CALLS.values())
    code = [(_LD_ABS, 0, 0, _ARCH), (_JEQ, 1, 0, _AUDIT_ARCH_X86_64), (_RET, 0, 0, _KILL), (_LD_ABS, 0, 0, _NR)]
    to_allow = len(numbers) + 4  # from here: the numbers, the check of tgkill, the refusal
    for i, number in enumerate(numbers):
        code.append((_JEQ, to_allow - i - 1, 0, number))
    code += [(_JEQ, 0, 2, _TGKILL), (_LD_ABS, 0, 0, _ARG0), (_JEQ, 1, 0, pid), (_RET, 0, 0, _REFUSE), (_RET, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


# ---- Landlock (https://docs.kernel.org/userspace-api/landlock.html) ---------------------------------------------------

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same number on all machines
_VERSION = 1  # flag: ask which interface there is
# bits that one version of the interface knows: access to files, to TCP ports, and what is scoped (sockets, signals)
_LANDLOCK_RIGHTS = {
    1: (0x1FFF, 0, 0), 2: (0x3FFF, 0, 0), 3: (0x7FFF, 0, 0), 4: (0x7FFF, 3, 0), 5: (0xFFFF, 3, 0), 6: (0xFFFF, 3, 3),
}  # fmt: skip
_RULESET_BYTES = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16, 6: 24}


def landlock_version() -> int:
    """The version of the kernel's Landlock, 0 if it has none or it is switched off."""
    found = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(0, int(found))


def _give_up_rights() -> None:
    """Take away all rights that Landlock knows of; nothing where there is no Landlock. Raises OSError."""
    version = min(landlock_version(), max(_LANDLOCK_RIGHTS))
    if not version:
        return
    libc = _libc()
    attributes = ctypes.create_string_buffer(struct.pack("<3Q", *_LANDLOCK_RIGHTS[version]), 24)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(_RULESET_BYTES[version]), ctypes.c_uint32(0))
    if ruleset < 0 or libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)):
        raise _error()
    os.close(ruleset)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"the process cannot be confined: {os.strerror(code)}")


# ---- all together -----------------------------------------------------------------------------------------------------


def _address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def confine(*, cpu_seconds: int, memory_bytes: int) -> None:
    """Confine this process, which must have one thread; `memory_bytes` come on top of what it has. Raises OSError."""
    space = _address_space() + memory_bytes
    libc = _libc()
    for option, value in ((_PR_SET_PDEATHSIG, int(signal.SIGKILL)), (_PR_SET_NO_NEW_PRIVS, 1)):
        _prctl(libc, option, value)
    _give_up_rights()
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, space, space),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, 0, 0),
    ):
        resource.setrlimit(which, (soft, hard))
    if platform.machine() == "x86_64":
        program = _filter(os.getpid())
        buffer = ctypes.create_string_buffer(program, len(program))
        header = ctypes.create_string_buffer(struct.pack("H6xQ", len(program) // 8, ctypes.addressof(buffer)))
        _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def isolate(pipe: int) -> None:
    """In a forked child: signals as they are by default, `pipe` as descriptor 3, nothing behind 0 to 2, no other descriptor."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(pipe, PIPE)
    for fd in (0, 1, 2):
        os.dup2(quiet, fd)
    os.closerange(PIPE + 1, 1 << 16)


def _prctl(libc: ctypes.CDLL, option: int, *values: int) -> None:
    if libc.prctl(option, *map(ctypes.c_ulong, (*values, 0, 0, 0)[:4])):
        raise _error()
