"""Running a script: a host with TCP in the virtual world, the peer and the application that the script speaks for."""

from __future__ import annotations

import difflib
import errno
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.lab.application import Attempt, Connection, swap
from chamelio.lab.flow import Flow
from chamelio.lab.language import LAB_SETTINGS, NS, PORT, SETTINGS, Await, Call, Check, Kind, Script, Send, SendIcmp, Step
from chamelio.lab.link import End
from chamelio.lab.match import compare
from chamelio.lab.pattern import PEERS, first_difference
from chamelio.lab.peer import OURS, PEER, Mismatch, Peer
from chamelio.lab.record import Record
from chamelio.lab.station import Station
from chamelio.messages import Refusal
from chamelio.tenant.runtime import RequestError
from chamelio.world import World

TOLERANCE_NS = 2_000_000
EVER_NS = 600 * NS  # what `*` means for a time
HAPPENINGS = ("connected", "eof", "ended", "error", "writable")  # they have a time; other checks are about what is
WAITING = ("accept", "read")  # calls that are over when what they wait for is there
RELATIVE = {"acked": True, "sent": True, "edge": False, "taken": False}  # columns: sequence numbers of ours, or of the peer's


@dataclass
class Result:
    """How a script ended. `error`: None, it went as written; `line` is where it did not."""

    script: Script
    error: str | None = None
    line: int = 0
    step: str = ""
    trace: list[Record] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all came as expected."""
        return self.error is None

    def trace_lines(self) -> list[str]:
        """The trace, for people; what was sent and received in the words of scripts."""
        several = len(self.script.flows) > 1
        return [record.line(several) for record in self.trace]

    def __str__(self) -> str:
        """The failure, whole: where, what was expected, what came, and all that happened before."""
        s = self.script
        shows = f"  ({s.shows})" if s.shows else ""
        if self.error is None:
            return f"{s.path}:{s.line}: {s.name}{shows}: ok"
        head = f"{s.path}:{self.line}: {s.name}{shows}"
        parts = [head, f"  step      {self.step}"] if self.step else [head]
        parts += [f"  {line}" for line in self.error.splitlines()]
        return "\n".join([*parts, "  so far:", *(f"  {line}" for line in self.trace_lines())])


class Run:
    """One run of a script. `protocol`: the folder of the TCP that is tested, or a shipped one's name."""

    def __init__(self, script: Script, protocol: str | Path = "tcp") -> None:
        self.script = script
        self.result = Result(script)
        self._protocol = protocol
        self._last = 0  # ns: when the last step was
        self._connections: dict[str, Connection] = {}
        self._attempts: dict[str, Attempt] = {}
        self._heard: set[int] = set()  # connections of which we know that they have ended
        self.tolerance = int(script.settings.get("tolerance", TOLERANCE_NS))

    # ---- the whole --------------------------------------------------------------------------------------------------------------

    def execute(self) -> Result:
        """Run it. Raises Refusal, Rejected, EngineError when there is nothing to run it with."""
        settings = self.script.settings
        with tempfile.TemporaryDirectory(prefix="chamelio-lab-") as directory, World() as self.world:
            host = self.world.host(cores=int(settings.get("cores", 1)))
            port, wire = self.world.peer(host, mtu=int(settings.get("mtu", 1500)))
            host.add_route("10.0.0.0/24", port)
            chosen = {
                name: value / NS if SETTINGS[name].kind == Kind.TIME else value
                for name, value in settings.items()
                if name not in LAB_SETTINGS
            }
            self.station = Station(
                self.world, host, "red", OURS, protocol=self._protocol, settings=chosen, directory=Path(directory)
            )
            try:
                end = End(host, port, wire, PEER)
                end.greet(OURS)
                self.world.run(1_000_000)
                self._start = self.world.now
                self.peer = Peer(end, self.script.flows.values(), lambda: self._now, self._note)
                self.world.task(self.peer.step)
                self.station.application.on_event = self._heard_of
                self._run_steps()
            finally:
                self.station.close()
        return self.result

    def _run_steps(self) -> None:
        step: Step | None = None
        try:
            for step in self.script.steps:
                self._do(step)
            step = None
            self._finish()
        except (Mismatch, RequestError) as error:
            self.result.error = str(error)
            self.result.line = step.line if step else self.script.line
            self.result.step = step.text if step else ""

    def _finish(self) -> None:
        """What must hold at the end of every script."""
        self._advance(self.world.now + self.tolerance)
        self._nothing_waits("at the end of the script")
        for name, connection in self._connections.items():
            if connection.ended and connection.conn not in self._heard:
                raise Mismatch(f"the application of {name} was told {errno.errorcode[connection.ended]}, which nobody expected")
        self.station.must_work()
        free, total = self.station.host.free_frames
        if free != total:
            raise Mismatch(f"{total - free} packet buffers of the engine have not come back")

    # ---- time -------------------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> int:
        return self.world.now - self._start

    def _advance(self, until: int) -> None:
        """Let time pass until a time of the world."""
        if until > self.world.now:
            self.world.run(until - self.world.now)
        self._check()

    def _wait(self, deadline: int, condition: Callable[[], bool]) -> bool:
        """Let time pass until a condition holds, or until a time of the script."""
        left = deadline - self._now
        holds = condition() or (left > 0 and self.world.run(left, until=condition))
        self._check()
        return holds

    def _check(self) -> None:
        if self.peer.wrong is not None:
            raise Mismatch(self.peer.wrong)
        self.station.must_work()

    def _window(self, step: Step) -> tuple[int, int]:
        """When a step may happen, in ns of the script."""
        base = self._last if step.when.relative else 0
        low = base + step.when.low
        return low, base + step.when.high if step.when.high is not None else low + EVER_NS

    def _reach(self, step: Step) -> None:
        """Go to the time of a step that happens at a time of our choice."""
        at, _ = self._window(step)
        if at < self._now - self.tolerance:
            raise Mismatch(f"it is {self._now / NS:.6f} already: this step's time, {at / NS:.6f}, has passed")
        if at > self._now:
            self._advance(self._start + at)
            self._nothing_waits(f"before {at / NS:.6f}")

    def _nothing_waits(self, when: str) -> None:
        for name, queue in self.peer.queues.items():
            if queue:
                at, segment = queue[0]
                raise Mismatch(
                    f"came      {at / NS:.6f}  > {self.peer.flows[name].describe(segment, ours=True)}\nwhich nobody expected {when}"
                )

    # ---- steps ------------------------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        flow, action = self.peer.flows[step.flow], step.action
        if isinstance(action, Await):
            self._await(step, flow, action)
            return
        if isinstance(action, Check):
            self._expect(step, flow, action)
        else:
            self._reach(step)
            if isinstance(action, Send):
                self._nothing_waits("before this step")
                self.peer.send(flow, action)
            elif isinstance(action, SendIcmp):
                self.peer.send_icmp(flow, action)
            else:
                self._call(step, flow, action)
        self._last = self._now

    def _note(self, side: str, flow: str, text: str) -> None:
        self.result.trace.append(Record(self._now, side, flow, text))

    # ---- segments of ours -------------------------------------------------------------------------------------------------------

    def _await(self, step: Step, flow: Flow, action: Await) -> None:
        low, high = self._window(step)
        queue = self.peer.queues[flow.name]
        length = int(action.fields["len"].value or 0) if "len" in action.fields else 0
        for i in range(action.count):
            came = self._wait(high + self.tolerance, lambda: bool(queue))
            wanted = f"expected  {step.when.text}  > {step.text.split('>', 1)[1].strip()}"
            if action.count > 1:
                wanted += f"  (segment {i + 1})"
            if not came:
                raise Mismatch(f"{wanted}\nbut none came until {self._now / NS:.6f}")
            at, segment = queue.popleft()
            differences = compare(flow, action, segment, self.peer.names, i * length)
            if not low - self.tolerance <= at <= high + self.tolerance:
                due = f"{low / NS:.6f}" + (f"..{high / NS:.6f}" if high != low else "")
                differences.insert(0, f"it came at {at / NS:.6f}, not at {due}")
            if differences:
                text = f"came      {at / NS:.6f}  > {flow.describe(segment, ours=True)}"
                raise Mismatch("\n".join([wanted, text, *differences]))
            flow.our_next = max(flow.our_next, flow.of_us(segment.seq) + segment.length)
            self._last = at

    # ---- the application --------------------------------------------------------------------------------------------------------

    def _heard_of(self, kind: str, event: Any) -> None:
        words = kind.lower()
        if kind == "ENDED":
            words += f" {errno.errorcode.get(event['error'], event['error'])}" if event["error"] else ""
        self._note("app", "", f"({words})")

    def _connection(self, flow: Flow) -> Connection:
        found = self._connections.get(flow.name)
        if found is None:
            raise Mismatch("the application has no connection yet: `accept` or `expect connected` comes first")
        return found

    def _call(self, step: Step, flow: Flow, call: Call) -> None:
        words = step.text.split(None, 1)[1].removeprefix(f"{flow.name}: ")
        if call.verb not in WAITING:
            self._note("app", flow.name, words)
        self._do_call(flow, call)
        if call.verb in WAITING:
            self._note("app", flow.name, words)

    def _do_call(self, flow: Flow, call: Call) -> None:
        application = self.station.application
        options = {name: int(value.value) for name, value in call.options.items()}
        if call.verb == "listen":
            self.station.listen(options.get("port", PORT), options.get("backlog", 16))
        elif call.verb == "unlisten":
            self.station.request("unlisten", port=options.get("port", PORT))
        elif call.verb == "connect":
            flow.reset_ours()
            self.peer.own(flow)
            self._attempts[flow.name] = application.connect(PEER, flow.port, local=options.get("local", 0))
        elif call.verb == "accept":
            self._accept(flow)
        else:
            self._use(self._connection(flow), call)

    def _accept(self, flow: Flow) -> None:
        application = self.station.application

        def found() -> Connection | None:
            return next((c for c in application.accepted if application.peer_port(c) == flow.port), None)

        if not self._wait(self._now + self.tolerance, lambda: found() is not None):
            raise Mismatch("there is no connection to accept")
        connection = found()
        assert connection is not None
        application.accepted.remove(connection)
        self._connections[flow.name] = connection

    def _use(self, connection: Connection, call: Call) -> None:
        """A call that needs a connection."""
        if call.verb == "write":
            connection.write(call.argument, notify="notify" in call.options)
        elif call.verb == "read":
            if not self._wait(self._now + self.tolerance, lambda: connection.readable >= call.argument):
                raise Mismatch(f"{connection.readable} bytes can be read, not {call.argument}")
            at = connection.read_to
            wrong = first_difference(connection.read(call.argument), at, PEERS)
            if wrong is not None:
                raise Mismatch(f"the byte at sequence number {wrong + 1} is not what the peer has sent")
        elif call.verb == "keepalive":
            chosen = {"idle": call.argument / NS, "interval": 75, "count": 9}
            if "interval" in call.options:
                chosen["interval"] = int(call.options["interval"].value) / NS
            if "count" in call.options:
                chosen["count"] = int(call.options["count"].value)
            self.station.request("keepalive", conn=connection.conn, generation=connection.generation, **chosen)
        else:
            {"shutdown": connection.shutdown, "close": connection.close, "abort": connection.abort}[call.verb]()

    # ---- checks -----------------------------------------------------------------------------------------------------------------

    def _expect(self, step: Step, flow: Flow, check: Check) -> None:
        low, high = self._window(step)
        if check.what == "nothing":
            self._reach(step)
            self._advance(self._start + self._now + int(check.argument))
            self._nothing_waits(f"for {int(check.argument) / NS:g} s")
            return
        condition = self._condition(flow, check)
        early = low - self.tolerance
        if early > self._now:
            if check.what in HAPPENINGS:
                self._advance(self._start + early)
                if condition() is None:
                    raise Mismatch(f"`{check.what}` was so before {early / NS:.6f} already")
            else:
                self._advance(self._start + low)
        if not self._wait(high + self.tolerance, lambda: condition() is None):
            raise Mismatch(str(condition()))

    def _condition(self, flow: Flow, check: Check) -> Callable[[], str | None]:
        """Says what is not as it should be; None: all is."""
        if check.what == "connected":
            return lambda: self._connected(flow)
        if check.what in ("state", "about"):
            return lambda: self._row_is(flow, check)
        if check.what in ("ended", "error"):
            return lambda: self._ended(flow, getattr(errno, str(check.argument)) if check.argument else 0)
        connection = self._connection(flow)
        if check.what == "eof":
            return lambda: None if connection.fin and not connection.readable else "this is not the end of what can be read"
        if check.what == "writable":
            return lambda: None if connection.writable else "the application was not told that it may write"
        count = int(check.argument)
        return lambda: None if connection.readable == count else f"{connection.readable} bytes can be read, not {count}"

    def _connected(self, flow: Flow) -> str | None:
        attempt = self._attempts.get(flow.name)
        if attempt is None or attempt.connection is None:
            failed = attempt is not None and attempt.error is not None
            return f"it has failed: {errno.errorcode.get(attempt.error or 0)}" if failed and attempt else "it is not connected"
        self._connections[flow.name] = attempt.connection
        return None

    def _ended(self, flow: Flow, wanted: int) -> str | None:
        connection, attempt = self._connections.get(flow.name), self._attempts.get(flow.name)
        error = connection.ended if connection else attempt.error if attempt else None
        if error is None:
            return "the connection has not ended"
        if connection is not None:
            self._heard.add(connection.conn)
        name = {0: "in order"}
        if error != wanted:
            return (
                f"it has ended: {name.get(error, errno.errorcode.get(error))}, not {name.get(wanted, errno.errorcode.get(wanted))}"
            )
        return None

    def _row_is(self, flow: Flow, check: Check) -> str | None:
        row = self._row(flow)
        if check.what == "state":
            state = self.station.contract.states[row["state"]] if row else "CLOSED"
            return None if state == check.argument else f"its state is {state}, not {check.argument}"
        if row is None:
            return "there is no such connection"
        for name, value in check.columns.items():
            if name not in row:
                close = difflib.get_close_matches(name, row, n=1)
                raise Mismatch(f"there is no column {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
            number = row[name]
            if name in RELATIVE:
                number = flow.of_us(number) if RELATIVE[name] else flow.of_peer(number)
            if not value.fits(number):
                return f"{name} is {number}, not {value.text.removeprefix(name).removeprefix('=')}"
        return None

    def _row(self, flow: Flow) -> dict[str, int] | None:
        """The row of a flow's connection, whoever has it."""
        about = self.station.application.about
        connection = self._connections.get(flow.name)
        if connection is not None:
            row = connection.row
            return row if row["generation"] == connection.generation else None
        ports = np.asarray(about["port"]), np.asarray(about["state"])
        found = np.flatnonzero((ports[0] == swap(flow.port)) & (ports[1] != 0))
        return {name: int(about[name][found[0]]) for name in about.dtype.names} if len(found) else None


def run_script(script: Script, protocol: str | Path = "tcp") -> Result:
    """Run a script. Raises Refusal, Rejected, EngineError."""
    try:
        return Run(script, protocol).execute()
    except RequestError as error:
        raise Refusal("failed", f"the slow path of {protocol} does not run: {error}") from None
