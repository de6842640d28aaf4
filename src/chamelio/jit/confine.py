"""Confinement of a process that works on hostile input: after `confine` it can compute and write to what it has open.

Limits (setrlimit) bound time and memory; a seccomp filter leaves only the system calls that computing takes, so there are
no new files, no network, no other processes. What is not allowed fails with EPERM. x86-64; elsewhere the limits alone hold.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path

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


def _address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def confine(*, cpu_seconds: int, memory_bytes: int) -> None:
    """Confine this process, which must have one thread; `memory_bytes` come on top of what it has. Raises OSError."""
    space = _address_space() + memory_bytes
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, space, space),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, 0, 0),
    ):
        resource.setrlimit(which, (soft, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    program = _filter(os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("H6xQ", len(program) // 8, ctypes.addressof(buffer))
    header_buffer = ctypes.create_string_buffer(header, len(header))
    calls = [(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0), (_PR_SET_NO_NEW_PRIVS, 1, 0)]
    if platform.machine() == "x86_64":
        calls.append((_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header_buffer)))
    for arguments in calls:
        if libc.prctl(arguments[0], *map(ctypes.c_ulong, (*arguments[1:], 0, 0))):
            code = ctypes.get_errno()
            raise OSError(code, f"the process cannot be confined: {os.strerror(code)}")
