"""Verification in confined children: whatever an object holds, it ends with verdicts, in bounded time and memory.

A child reads the object and verifies program after program; each verdict comes through a pipe as soon as it is there. A child
that takes too long for a program is killed, one that dies has its death as the verdict of the program it was at, and a new
child goes on with the next one. Proofs stay behind: these verdicts are for people, nothing is run by them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from chamelio.bpf.insn import EXIT, JMP, BpfFormatError, Insn
from chamelio.bpf.object import Object, Program, load_object
from chamelio.confine import PIPE, confine, isolate
from chamelio.verify.codes import CODES
from chamelio.verify.cost import table
from chamelio.verify.proof import Limits, Verdict
from chamelio.verify.verifier import verify_object

MAX_FRAME = 1 << 20  # bytes of one message of a child
MAX_TEXT = 256 << 20  # bytes of all messages about one object
MAX_NAME = 200  # characters of a program's name that are told
_HEAD = 4  # bytes of a frame's length
_NAMES = 500  # programs that are named in one message
_SLACK_SECONDS = 0.5  # for a child to give up by itself
_LEAST_MEMORY = 64 << 20

_EXIT = Insn(JMP | EXIT, 0, 0, 0, 0)

UNREADABLE, FAILED, BUDGET = "V143", "V145", "V160"


@dataclasses.dataclass(frozen=True)
class ObjectLimits:
    """Where the verdict is `budget`: seconds for a program, seconds for all of an object, bytes of memory of a child.

    Within 5 s and 60 s there is an answer, so the verifier has a little less.
    """

    program_seconds: float = 4.5
    object_seconds: float = 58.0
    memory_bytes: int = 512 << 20


@dataclasses.dataclass(frozen=True)
class Report:
    """Verdicts in the order of the programs; what it took: seconds, and bytes of memory of the largest child,
    beyond what it has from the process that asked."""

    verdicts: list[Verdict]
    seconds: float
    peak_bytes: int


def _wire_type() -> type[msgspec.Struct]:
    """A verdict without its proof, with the types of the fields, for decoding what a child says."""
    hints = get_type_hints(Verdict)
    parts = [(one.name, hints[one.name], getattr(Verdict, one.name, msgspec.NODEFAULT)) for one in dataclasses.fields(Verdict)]
    return msgspec.defstruct("Wire", [part for part in parts if part[0] != "proof"], forbid_unknown_fields=True)


_Wire = _wire_type()


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """What a child says. `programs`: (name, section) of some; `loaded`: that was all; `verdicts`: of the next program, or, before
    that, of the object as a whole."""

    programs: list[tuple[str, str]] = []
    loaded: bool = False
    verdicts: list[_Wire] = []  # type: ignore[valid-type]


def told(code: str, message: str, reason: str, program: str = "", section: str = "", seconds: float = 0.0) -> Verdict:
    """A verdict that is not about an instruction; without a program's name it is about the object."""
    about = CODES[code]
    return Verdict(
        program=program,
        section=section,
        verdict=about.kind,  # type: ignore[arg-type]
        code=code,
        message=f"{about.title}: {message}",
        reason=reason,
        suggestion=about.suggestion,
        seconds=seconds,
    )


# ---- the child --------------------------------------------------------------------------------------------------------


class _Child:
    """Loads and verifies, from program number `first` on; never returns to its caller."""

    def __init__(self, data: bytes, name: str, context: str | None, every: bool, limits: ObjectLimits) -> None:
        self.data, self.name, self.context, self.every, self.limits = data, name, context, every, limits

    def run(self, pipe: int, first: int, seconds: float) -> None:
        """The child's whole life."""
        try:
            isolate(pipe)
            confine(cpu_seconds=math.ceil(seconds) + 2, memory_bytes=max(_LEAST_MEMORY, self.limits.memory_bytes - _resident()))
            self._work(first)
        finally:
            os._exit(0)

    def _work(self, first: int) -> None:
        try:
            obj = load_object(self.data, self.name)
        except MemoryError:
            self._say(verdicts=[self._over_memory("", "")])
            return
        except BpfFormatError as error:
            self._say(verdicts=[told(UNREADABLE, "it is damaged, or no object for BPF", str(error))])
            return
        except Exception as error:
            self._say(verdicts=[_failed(error, "", "")])
            return
        if not obj.programs:
            self._say(verdicts=[told(UNREADABLE, "it has no programs", f"{self.name} has no function in a section of code")])
            return
        if first == 0:
            for at in range(0, len(obj.programs), _NAMES):
                self._say(programs=[(p.name[:MAX_NAME], p.section[:MAX_NAME]) for p in obj.programs[at : at + _NAMES]])
        self._say(loaded=True)
        for verdicts in self._verdicts(obj, first):
            self._say(verdicts=verdicts)

    def _verdicts(self, obj: Object, first: int) -> Iterator[list[Verdict]]:
        limits = Limits(seconds=self.limits.program_seconds)
        handlers: dict[str, Program] = {}  # the first program of each section stands for itself: a hook has one
        for number, program in enumerate(obj.programs):
            earlier = [handlers[program.section]] if program.section in handlers else []
            handlers.setdefault(
                program.section, Program(program.name, program.section, [Insn(JMP | EXIT, 0, 0, 0, 0)], {0: program.name})
            )
            if number < first:
                continue
            try:
                alone = dataclasses.replace(obj, programs=[*earlier, program])
                yield verify_object(alone, context=self.context, limits=limits, every=self.every)[len(earlier) :]
            except MemoryError:
                yield [self._over_memory(program.name, program.section)]
            except Exception as error:
                yield [_failed(error, program.name, program.section)]

    def _over_memory(self, program: str, section: str) -> Verdict:
        return told(BUDGET, "out of memory", f"more than {self.limits.memory_bytes >> 20} MiB would be needed", program, section)

    @staticmethod
    def _say(**message: Any) -> None:
        verdicts = [_Wire(**_fields(v)) for v in message.pop("verdicts", [])]
        body = msgspec.msgpack.encode(_Message(verdicts=verdicts, **message))
        view = memoryview(len(body).to_bytes(_HEAD, "big") + body)
        while view:
            view = view[os.write(PIPE, view) :]


def _fields(verdict: Verdict) -> dict[str, Any]:
    values = {one.name: getattr(verdict, one.name) for one in dataclasses.fields(verdict) if one.name != "proof"}
    return {**values, "program": verdict.program[:MAX_NAME], "section": verdict.section[:MAX_NAME]}


def _failed(error: Exception, program: str, section: str) -> Verdict:
    return told(FAILED, type(error).__name__, f"{type(error).__name__}: {error}"[:1000], program, section)


def _resident() -> int:
    """Bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ---- the parent -------------------------------------------------------------------------------------------------------


class _Late(Exception):
    """A child has used up the time of its program, or of the object."""


class _Watch:
    """One object: children one after the other until every program has its verdicts."""

    def __init__(self, child: _Child, limits: ObjectLimits, progress: Callable[[int, int], None]) -> None:
        self.child, self.limits, self.progress = child, limits, progress
        self.began = time.monotonic()
        self.end = self.began + limits.object_seconds
        self.programs: list[tuple[str, str]] = []
        self.loaded = False  # all programs are known
        self.done: list[list[Verdict]] = []  # of the programs, as far as they go
        self.whole: list[Verdict] = []  # of the object, when it has no programs to speak of
        self.text = 0
        self.peak = 0
        self.before = _resident()

    def run(self) -> list[Verdict]:
        while not self.whole and not (self.loaded and len(self.done) == len(self.programs)):
            if time.monotonic() >= self.end:
                self._give_up_all()
                break
            self._one_child()
        return self.whole or [verdict for verdicts in self.done for verdict in verdicts]

    def _one_child(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self.child.run(write, len(self.done), self.end - time.monotonic())
        os.close(write)
        late = None
        try:
            self._listen(read)
        except _Late:
            late = True
        except (msgspec.DecodeError, ValueError) as error:
            self._note(told(FAILED, "its child makes no sense", str(error)[:1000], *self._at_work()))
            late = False
        finally:
            os.close(read)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            self.peak = max(self.peak, (usage.ru_maxrss << 10) - self.before)
        if late or (late is None and self._unfinished()):
            self._note(self._ended(status, late=bool(late)))

    def _unfinished(self) -> bool:
        return not self.whole and not (self.loaded and len(self.done) == len(self.programs))

    def _listen(self, pipe: int) -> None:
        """Take messages until the child hangs up. Raises _Late, and DecodeError or ValueError for what makes no sense."""
        buffer, ready = bytearray(), False  # ready: this child has loaded the object
        turn = time.monotonic()
        while True:
            end = min(self.end, turn + self.limits.program_seconds + _SLACK_SECONDS) if ready else self.end
            if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                raise _Late
            data = os.read(pipe, 1 << 18)
            if not data:
                return
            self.text += len(data)
            buffer += data
            while len(buffer) >= _HEAD and len(buffer) >= _HEAD + (size := int.from_bytes(buffer[:_HEAD], "big")):
                message = msgspec.msgpack.decode(bytes(buffer[_HEAD : _HEAD + size]), type=_Message)
                del buffer[: _HEAD + size]
                self.programs += message.programs if not self.loaded else []
                if message.loaded:
                    self.loaded = ready = True
                if message.verdicts:
                    self._take([Verdict(**msgspec.structs.asdict(v)) for v in message.verdicts])
                turn = time.monotonic()
            if len(buffer) > MAX_FRAME or self.text > MAX_TEXT:
                raise ValueError(f"it has said more than {MAX_FRAME} bytes at once, or {MAX_TEXT} in all")

    def _take(self, verdicts: list[Verdict]) -> None:
        if not self.loaded:
            self.whole = verdicts
        elif len(self.done) < len(self.programs):
            self.done.append(verdicts)
            self.progress(len(self.done), len(self.programs))
        else:
            raise ValueError("it has said more verdicts than there are programs")

    def _note(self, verdict: Verdict) -> None:
        self._take([verdict])

    def _at_work(self) -> tuple[str, str]:
        """Name and section of the program that is next; of the object before it is loaded."""
        return self.programs[len(self.done)] if self.loaded else ("", "")

    def _ended(self, status: int, *, late: bool) -> Verdict:
        """What the end of a child means for the program that it was at."""
        if late and time.monotonic() >= self.end:
            return self._no_time_left(*self._at_work())
        seconds = self.limits.program_seconds
        if late:
            return told(BUDGET, f"it was not done after {seconds:g} s", "not everything was explored", *self._at_work(), seconds)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            return self._no_time_left(*self._at_work())
        how = f"its child was killed by {signal.Signals(-code).name}" if code < 0 else f"its child ended with status {code}"
        return told(FAILED, how, "nothing is known of this program", *self._at_work())

    def _no_time_left(self, program: str, section: str) -> Verdict:
        reason = f"the {self.limits.object_seconds:g} s for the whole object are used up"
        return told(BUDGET, "there is no time left", reason, program, section)

    def _give_up_all(self) -> None:
        if not self.loaded:
            self.whole = [self._no_time_left("", "")]
        self.done += [[self._no_time_left(*program)] for program in self.programs[len(self.done) :]]


def verify_apart(
    data: bytes,
    name: str = "object",
    *,
    context: str | None = None,
    every: bool = False,
    limits: ObjectLimits | None = None,
    progress: Callable[[int, int], None] = lambda done, programs: None,
) -> Report:
    """Verdicts of all programs of an object, of at least one: an object that cannot be read has a verdict without a program.

    `context`: a name in CONTEXTS, instead of what the sections say; `every`: all errors of a program, not the first alone;
    `progress(done, programs)` is called after each program. The calling process should have one thread: it forks.
    """
    table()  # a child cannot read the file that it may come from
    limits = limits or ObjectLimits()
    watch = _Watch(_Child(data, name, context, every, limits), limits, progress)
    verdicts = watch.run()
    return Report(verdicts, time.monotonic() - watch.began, watch.peak)
