"""The slow path of TCP: who listens where, what a timeout leads to, what ICMP says, and congestion control's parameters.

Handlers have the state machine and everything that a segment asks for. What is rare comes here, many connections at a time: all
that is known of one lies in its row of `about`, and what is decided goes back as entries, in the order in which it was decided.
"""

from __future__ import annotations

import difflib
import errno
import ipaddress
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chamelio.protocols.tcp.congestion import TICK_NS, Tuner, find
from chamelio.protocols.tcp.packets import IP_ICMP, Quote, quoted
from chamelio.protocols.tcp.states import machine
from chamelio.tenant.runtime import RequestError, Services, SlowPath

Array = np.ndarray[Any, np.dtype[Any]]

LISTEN, UNLISTEN, RETRANSMIT, PROBE, FAIL, RELEASE, ALIVE = range(16, 23)  # TCP_LISTEN and so on
TIMEOUT, LOSS, MARKED = 16, 17, 18
RETRANSMISSION, PERSIST, KEEPALIVE = 1, 2, 3
LISTENERS, ENTRIES = 1024, 4096  # TCP_LISTENERS, TCP_ENTRIES
OPTIONS = {"timestamps": 1, "sack": 2, "wscale": 4, "ecn": 8}  # TCP_OPT_*
CLOSED, SYN_SENT, SYN_RCVD = (machine().number(name) for name in ("CLOSED", "SYN_SENT", "SYN_RCVD"))  # before ESTABLISHED

CONGESTION = "cubic"
EPHEMERAL_LOW = 32768  # of a tenant's ports those from here on are taken for connections that it opens, if it has such
BACKLOG = 128
ORPHAN_RETRIES, SYN_ACK_RETRIES = 8, 5
BACKOFF_MAX = 16
HEADERS, MSS_LEAST = 40, 512  # what ICMP says makes segments no smaller
PATH_MTU_NS = 600_000_000_000  # RFC 1191, section 6.3: larger segments are tried again
CHUNK = 512  # entries between two looks at the rings; Services holds 1024 at most
RELEASES, PUMP_NS = 256, 200_000  # of each core at once, and the time between
SCANS_PER_SECOND, SCANS_BURST = 20, 20  # looks through all connections for those that ICMP means


class Setting(NamedTuple):
    """A number of `config`: its column, how many of its units are 1, and the range that makes sense."""

    column: str
    scale: int
    low: float
    high: float


# Times in seconds.
SETTINGS = {
    "mss": Setting("mss", 1, 64, 1460),
    "initial_window": Setting("initial_window", 1, 1, 64),
    "rto_min": Setting("rto_min", 1_000_000, 0.001, 60),
    "rto_max": Setting("rto_max", 1_000_000, 1, 3600),
    "rto_initial": Setting("rto_initial", 1_000_000, 0.001, 60),
    "ack_delay": Setting("ack_delay", 1_000_000, 0, 0.5),  # RFC 9293, 3.8.6.3: less than 0.5 s
    "time_wait": Setting("time_wait", 1000, 0, 240),
    "buffer_max": Setting("buffer_max", 1, 65536, 4 << 20),
}
# RFC 6298: rto_max may be 60 s or more, rto_initial is 1 s; RFC 6928: ten segments.
DEFAULTS: dict[str, Any] = {
    "options": list(OPTIONS),
    "mss": 1460,
    "initial_window": 10,
    "rto_min": 0.2,
    "rto_max": 60,
    "rto_initial": 1,
    "ack_delay": 0.04,
    "time_wait": 60,
    "buffer_max": 4 << 20,
}
KEEPALIVE_DEFAULTS = {"idle": 7200, "interval": 75, "count": 9}
RETRIES = {"retries": 15, "syn_retries": 6}  # RFC 9293, 3.8.3: R2, more than 100 s

# What is remembered of a row, for the connection of `generation`.
PATIENCE = np.dtype(
    [
        ("generation", "<u4"),
        ("acked", "<u4"),  # at the last timeout: what has not moved since
        ("asked", "<i8"),  # when that was, ns
        ("timer", "u1"),
        ("tries", "u1"),  # timeouts since `acked` moved
        ("unanswered", "u1"),  # probes of a closed window
        ("soft", "u1"),  # what ICMP has said, an errno value
        ("idle", "<u4"),  # keepalive, ms; 0: none
        ("interval", "<u4"),
        ("count", "u1"),
        ("probes", "u1"),  # of keepalive, not answered
        ("probed", "<i8"),  # the last of them, ns
    ],
    align=True,
)


@dataclass
class Listener:
    """Whose it is, its row of `listening`, and whether we have it from a former slow path: then its application may ask again."""

    context: int
    row: int
    inherited: bool = False


class TcpSlowPath(SlowPath):
    """All connections and listeners of a tenant."""

    resumes = True

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._about = services.region.values("about")
        self._config = services.region.values("config")
        self._local = _number(services.address)
        self._per_core = len(self._about) // services.cores
        self._listening = services.region.values("listening")
        self._listeners: dict[int, Listener] = {}  # by port
        self._patience = np.zeros(len(self._about), PATIENCE)
        self._retries = dict(RETRIES)
        self._congestion = CONGESTION
        self._tuner = Tuner(self._about, find(CONGESTION)(self._about))
        self._ticked = 0
        self._queues: list[deque[tuple[int, ...]]] = [deque() for _ in range(services.cores)]
        self._releases: list[deque[tuple[int, ...]]] = [deque() for _ in range(services.cores)]
        self._given = [0] * services.cores  # entries since the engine had taken all
        self._leaving: dict[int, set[int]] = {}  # contexts whose applications have gone, and the ports that they served
        self._lowered: deque[tuple[int, int, int]] = deque()  # until when, connection, generation: what ICMP has made smaller
        self._scans, self._scans_at = float(SCANS_BURST), 0
        self.suppressed = 0

    def on_start(self, *, resumed: bool) -> None:
        """What was configured stays, and so does who listens, until that application is gone."""
        config, cores = self._config, self.services.cores
        if resumed and config["count"][0]:
            cubic = config["beta"][0] == find(CONGESTION).beta
            self._use("dctcp" if config["dctcp"][0] else CONGESTION if cubic else "newreno")
            table = self._listening
            for row in np.flatnonzero((table["port"] > 0) & (table["port"] <= 65535)).tolist():
                port, context, backlog = (int(table[name][row]) for name in ("port", "context", "backlog"))
                self._listeners[port] = Listener(context, row, inherited=True)
                self._tell_listener(LISTEN, port, context, backlog)  # what was asked for last may not have been heard
            self._pump()
            return
        low, high = self.services.ports
        config["cores"][:cores] = cores
        config["local"][:cores] = self._local
        config["port_low"][:cores] = max(low, EPHEMERAL_LOW if high > EPHEMERAL_LOW else 1)
        config["port_high"][:cores] = high
        config["first"][:cores] = np.arange(cores) * self._per_core
        self._configure(DEFAULTS | {"congestion": CONGESTION})
        config["count"][:cores] = self._per_core  # at last: without numbers there are no connections

    # ---- requests of applications -------------------------------------------------------------------------------------------

    def on_request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        """What applications ask for.

        `listen {port, backlog?}` (port 0: any) gives `{port}`; `unlisten {port}`; `keepalive {conn, generation, idle?, interval?,
        count?}` (seconds; idle 0: none); `info {conn, generation}`; `endpoint` gives `{address, cores}`; `states` counts the
        tenant's connections. `configure {...}` changes what DEFAULTS and RETRIES name, `congestion` and `dctcp` (echo as RFC 8257
        says), for connections that are made from then on.
        """
        if context in self._leaving:
            self._release_late(context)
        if verb == "listen":
            return {"port": self._listen(context, arguments.get("port", 0), arguments.get("backlog", BACKLOG))}
        if verb == "unlisten":
            port = arguments.get("port")
            if not isinstance(port, int) or port not in self._listeners or self._listeners[port].context != context:
                raise RequestError("EBADF", f"port {port!r} is not one that you listen at")
            self._unlisten(port)
            self._pump()
            return {}
        if verb == "configure":
            return self._configure(arguments)
        if verb == "keepalive":
            wanted = KEEPALIVE_DEFAULTS | {name: arguments[name] for name in KEEPALIVE_DEFAULTS if name in arguments}
            self._keep_alive(self._own(context, arguments), **wanted)
            return {}
        if verb == "info":
            return self._info(self._own(context, arguments))
        if verb == "endpoint":
            return {"address": self.services.address, "cores": self.services.cores}
        if verb == "states":
            counts = np.bincount(self._about["state"], minlength=len(machine().states))
            return {name: int(n) for name, n in zip(machine().states, counts, strict=False) if n and name != "CLOSED"}
        return super().on_request(context, verb, arguments)

    def _listen(self, context: int, port: Any, backlog: Any) -> int:
        low, high = self.services.ports
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise RequestError("EINVAL", f"{port!r} is not a port")
        if not isinstance(backlog, int) or backlog < 0:
            raise RequestError("EINVAL", f"{backlog!r} is not a backlog")
        if len(self._listeners) >= LISTENERS and port not in self._listeners:
            raise RequestError("ENOBUFS", f"all {LISTENERS} listeners are in use")
        if port == 0:
            free = [p for p in range(max(low, EPHEMERAL_LOW if high > EPHEMERAL_LOW else 1), high + 1) if p not in self._listeners]
            if not free:
                raise RequestError("EADDRNOTAVAIL", "every port is in use")
            port = self.services.random.choice(free)
        if not low <= port <= high:
            raise RequestError("EACCES", f"port {port} is not within {low}..{high}, which is what this tenant has")
        known, table, backlog = self._listeners.get(port), self._listening, min(max(backlog, 1), 65535)
        if known is not None and not (known.inherited and known.context == context):
            raise RequestError("EADDRINUSE", f"port {port} is in use")
        row = int(np.flatnonzero(table["port"] == 0)[0]) if known is None else known.row
        self._listeners[port] = Listener(context, row)
        table["context"][row], table["backlog"][row] = context, backlog
        table["port"][row] = port  # at last: now the row counts
        self._tell_listener(LISTEN, port, context, backlog)
        self._pump()
        return int(port)

    def _unlisten(self, port: int) -> None:
        self._listening["port"][self._listeners.pop(port).row] = 0
        self._tell_listener(UNLISTEN, port, 0, 0)

    def _tell_listener(self, kind: int, port: int, context: int, backlog: int) -> None:
        for queue in self._queues:
            queue.append((kind, 0, 0, 0, 0, backlog, context, 0, 0, _swap(port), 0))

    def _configure(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Change what is named, or nothing if any of it makes no sense; gives everything as it is then."""
        columns: dict[str, int] = {}
        for name, value in arguments.items():
            if name in SETTINGS:
                column, scale, low, high = SETTINGS[name]
                if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                    raise RequestError("EINVAL", f"{name} {value!r} is not within {low:g}..{high:g}")
                columns[column] = round(value * scale)
            elif name == "options":
                if not isinstance(value, list) or not all(option in list(OPTIONS) for option in value):
                    raise RequestError("EINVAL", f"options {value!r} are not among {', '.join(OPTIONS)}")
                columns["options"] = sum(OPTIONS[option] for option in set(value))
            elif name == "dctcp":
                columns["dctcp"] = int(bool(value))
            elif name in RETRIES:
                if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
                    raise RequestError("EINVAL", f"{name} {value!r} is not within 1..100")
            elif name != "congestion":
                close = difflib.get_close_matches(str(name), [*DEFAULTS, *RETRIES, "congestion", "dctcp"], n=1, cutoff=0.5)
                hint = f": did you mean {close[0]!r}?" if close else ""
                raise RequestError("EINVAL", f"there is no setting {name!r}{hint}")
        if "congestion" in arguments:
            self._use(arguments["congestion"])
            columns.setdefault("dctcp", int(arguments["congestion"] == "dctcp"))
        for column, number in columns.items():
            self._config[column][: self.services.cores] = number
        self._retries.update({name: arguments[name] for name in RETRIES if name in arguments})
        row = {name: int(self._config[name][0]) for name in self._config.dtype.names or ()}
        now: dict[str, Any] = {name: row[s.column] / s.scale if s.scale > 1 else row[s.column] for name, s in SETTINGS.items()}
        now |= {"options": [name for name, bit in OPTIONS.items() if row["options"] & bit], "dctcp": bool(row["dctcp"])}
        return now | self._retries | {"congestion": self._congestion}

    def _use(self, congestion: Any) -> None:
        """Another congestion control. Raises RequestError."""
        try:
            control = find(congestion)(self._about)
        except KeyError as error:
            raise RequestError("EINVAL", str(error.args[0])) from None
        self._tuner.use(control)
        self._congestion = congestion
        self._config["beta"][: self.services.cores] = control.beta

    def _own(self, context: int, arguments: dict[str, Any]) -> int:
        """The row of an application's connection. Raises RequestError."""
        conn, generation = arguments.get("conn"), arguments.get("generation")
        about = self._about
        if not isinstance(conn, int) or not 0 <= conn < len(about) or about["context"][conn] != context:
            raise RequestError("EBADF", f"connection {conn!r} is not one of yours")
        if about["generation"][conn] != generation or not about["state"][conn]:
            raise RequestError("ENOTCONN", f"connection {conn} has ended")
        return conn

    def _info(self, row: int) -> dict[str, Any]:
        """What is known of a connection: times in seconds, windows in bytes."""
        about = {name: int(self._about[name][row]) for name in self._about.dtype.names or ()}
        options = [name for name, bit in OPTIONS.items() if about["options"] & bit]
        counts = ("losses", "timeouts", "marks", "retransmitted", "delivered")
        return {
            "state": machine().states[about["state"]] if about["state"] < len(machine().states) else "",
            "congestion": self._congestion,
            "options": options,
            "mss": min(about["mss"], about["mss_limit"] or about["mss"]),
            "cwnd": about["win"],
            "ssthresh": about["ssthresh"],
            "rtt": about["srtt"] / 1e6,
            "rttvar": about["rttvar"] / 1e6,
            "unacked": (about["sent"] - about["acked"]) % (1 << 32),
            "backoff": int(self._patience["tries"][row]) if self._patience["acked"][row] == about["acked"] else 0,
            **{name: about[name] for name in counts},
        }

    # ---- entries for handlers -----------------------------------------------------------------------------------------------

    def _tell(self, kind: int, rows: Array, value: Any = 0, mark: Any = 0) -> None:
        """An entry for each of these connections; `value` and `mark`: one for all, or one for each."""
        queues = self._releases if kind == RELEASE else self._queues
        cores = np.minimum(rows // self._per_core, len(queues) - 1)
        columns = (rows, self._about["generation"][rows], mark, value)
        each = (column.tolist() for column in np.broadcast_arrays(*columns))
        for core, conn, generation, marked, number in zip(cores.tolist(), *each, strict=True):
            queues[core].append((kind, conn, generation, 0, 0, marked, number, 0, 0, 0, 0))

    def _pump(self, now: int = 0) -> None:
        """Give the engine entries, never more than its rings and Services hold."""
        if self.services.flush():
            self._given = [0] * len(self._given)
        for core, queue in enumerate(self._queues):
            self._give(core, queue, len(queue))
        if any(self._queues):
            self.services.call_at(now + PUMP_NS if now else 0)

    def _give(self, core: int, queue: deque[tuple[int, ...]], most: int) -> None:
        while (room := min(most, len(queue), ENTRIES - self._given[core], CHUNK)) > 0:
            for _ in range(room):
                self.services.request(*queue.popleft(), core=core)
            self._given[core] += room
            most -= room
            self.services.flush()

    # ---- applications that have gone ----------------------------------------------------------------------------------------

    def on_application_gone(self, context: int) -> None:
        """Its listeners are closed and its connections reset, those first that are still being opened."""
        ports = {port for port, listener in self._listeners.items() if listener.context == context}
        for port in ports:
            self._unlisten(port)
        rows = np.flatnonzero(self._about["context"] == context)
        opening = self._about["state"][rows] == SYN_SENT
        self._tell(RELEASE, rows[opening], context)
        self._tell(RELEASE, rows[~opening], context)
        if ports:
            self._leaving[context] = ports
        self._pump()
        self._release()

    def _release(self, now: int = 0) -> None:
        """Releases, so many at a time that resets are not lost at the next crowded place."""
        if now and self._leaving and not any(self._queues) and not any(self._releases) and self.services.flush():
            for context in list(self._leaving):
                self._release_late(context)
        for core, queue in enumerate(self._releases):
            self._give(core, queue, RELEASES)
        if self._leaving or any(self._releases):
            self.services.call_at(now + PUMP_NS if now else 0)

    def _release_late(self, context: int) -> None:
        """What a listener has accepted between its application's end and its own."""
        ports = np.array([_swap(port) for port in self._leaving.pop(context)], np.uint16)
        about = self._about
        self._tell(RELEASE, np.flatnonzero((about["context"] == context) & np.isin(about["local_port"], ports)), context)

    # ---- events -------------------------------------------------------------------------------------------------------------

    def on_entries(self, entries: Array, now: int) -> None:
        """Timeouts, losses and marks; those of connections that are no more do not count."""
        about, conns = self._about, entries["conn"]
        entries = entries[conns < len(about)]
        rows = entries["conn"].astype(np.int64)
        lives = (about["generation"][rows] == entries["generation"]) & (about["state"][rows] != CLOSED)
        entries, rows = entries[lives], rows[lives]
        kinds = entries["kind"]
        for kind, tune in ((LOSS, self._tuner.loss), (MARKED, self._tuner.marked)):
            if (chosen := kinds == kind).any():
                tune(rows[chosen], now)
        timers = np.where(kinds == TIMEOUT, entries["error"], 0)
        for timer, act in ((RETRANSMISSION, self._retransmit), (PERSIST, self._persist), (KEEPALIVE, self._on_quiet)):
            if len(chosen := self._news(timer, rows, entries, np.flatnonzero(timers == timer), now)):
                act(rows[chosen], entries[chosen], now)
        self._pump(now)
        if (due := self._tuner.due) is not None:
            self.services.call_at(max(due, self._ticked + TICK_NS))

    def _remembered(self, rows: Array) -> Array:
        """Rows of which something is remembered; of the others it is forgotten."""
        p, generation = self._patience, self._about["generation"][rows]
        others = p["generation"][rows] != generation
        p[rows[others]] = 0
        p["generation"][rows] = generation
        known: Array = ~others
        return known

    def _news(self, timer: int, rows: Array, entries: Array, chosen: Array, now: int) -> Array:
        """Of some events those that we have not answered just now: handlers may have told it twice while we were busy."""
        if len(chosen) and timer != KEEPALIVE:
            chosen = chosen[np.unique(rows[chosen], return_index=True)[1]]
            p, rows, soon = self._patience, rows[chosen], int(self._config["rto_min"][0]) * 500
            same = (p["timer"][rows] == timer) & (p["acked"][rows] == self._about["acked"][rows])
            same &= p["generation"][rows] == entries["generation"][chosen]
            chosen = chosen[~same | (now - p["asked"][rows] > soon)]
        return chosen

    def _count(self, timer: int, rows: Array, entries: Array, now: int) -> tuple[Array, Array]:
        """Of these connections' timers: how often since something was acknowledged, and how often without any answer."""
        p, acked = self._patience, self._about["acked"][rows]
        again = self._remembered(rows) & (p["timer"][rows] == timer) & (p["acked"][rows] == acked)
        tries = np.where(again, np.minimum(p["tries"][rows], 254) + 1, 1)
        unanswered = np.where(again & ~self._answered("asked", rows, entries, now), np.minimum(p["unanswered"][rows], 254) + 1, 0)
        for name, values in (("timer", timer), ("acked", acked), ("asked", now), ("tries", tries), ("unanswered", unanswered)):
            p[name][rows] = values
        return tries, unanswered

    def _answered(self, since: str, rows: Array, entries: Array, now: int) -> Array:
        """Whether anything was heard since the last probe. A timeout's `tag`: for how long not, in ms."""
        answered: Array = entries["tag"].astype(np.int64) * 1_000_000 < now - self._patience[since][rows]
        return answered

    def _retransmit(self, rows: Array, entries: Array, now: int) -> None:
        """RFC 6298, section 5: send again what was not acknowledged, and wait for twice as long; in the end give up."""
        tries, _ = self._count(RETRANSMISSION, rows, entries, now)
        state, orphan = self._about["state"][rows], self._about["context"][rows] == 0
        limit = np.where(orphan, min(ORPHAN_RETRIES, self._retries["retries"]), self._retries["retries"])
        limit[state == SYN_SENT] = self._retries["syn_retries"]
        limit[state == SYN_RCVD] = SYN_ACK_RETRIES
        over = tries > limit
        self._give_up(rows[over])
        rows, tries, state = rows[~over], tries[~over], state[~over]
        first = (tries == 1) & (state > SYN_RCVD)
        if first.any():
            self._tuner.timeout(rows[first], now)
        self._tell(RETRANSMIT, rows, np.minimum(tries, BACKOFF_MAX))

    def _persist(self, rows: Array, entries: Array, now: int) -> None:
        """RFC 9293, section 3.8.6.1: a closed window is probed as long as the peer answers, an orphan's not for ever."""
        tries, unanswered = self._count(PERSIST, rows, entries, now)
        orphan, retries = self._about["context"][rows] == 0, self._retries["retries"]
        over = (unanswered >= retries) | (orphan & (tries > retries))
        self._give_up(rows[over])
        self._tell(PROBE, rows[~over], np.minimum(tries[~over], BACKOFF_MAX))

    def _give_up(self, rows: Array) -> None:
        """Their peers do not answer any more; if ICMP has said why, that is what applications hear (RFC 5461)."""
        soft = self._patience["soft"][rows]
        reset = self._about["state"][rows] > SYN_RCVD
        self._tell(FAIL, rows, np.where(soft != 0, soft, errno.ETIMEDOUT), reset.astype(np.uint32))

    def _set_window(self, rows: Array, cwnd: Array, thresh: Array) -> None:
        about = self._about
        about["cwnd"][rows], about["thresh"][rows] = cwnd, thresh
        about["epoch"][rows] += np.uint32(1)  # at last: what it announces is there

    # ---- keepalive ----------------------------------------------------------------------------------------------------------

    def _keep_alive(self, row: int, *, idle: Any, interval: Any, count: Any) -> None:
        """RFC 9293, section 3.8.4: only for who asks. Raises RequestError."""
        for name, value in (("idle", idle), ("interval", interval)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1_000_000:
                raise RequestError("EINVAL", f"{name} {value!r} is not within 0..1000000 s")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 127:
            raise RequestError("EINVAL", f"count {count!r} is not within 1..127")
        rows, p = np.array([row]), self._patience
        self._remembered(rows)
        p["idle"][row], p["interval"][row], p["count"][row] = round(idle * 1000), max(round(interval * 1000), 1), count
        self._tell(ALIVE, rows, p["idle"][rows])
        self._pump()

    def _on_quiet(self, rows: Array, entries: Array, now: int) -> None:
        """Nothing was heard for as long as was asked for last: `idle`, or `interval` after a probe."""
        p = self._patience
        known = self._remembered(rows) & (p["idle"][rows] != 0)
        self._tell(ALIVE, rows[~known], 0)
        rows, entries = rows[known], entries[known]
        idle, answered = p["idle"][rows], self._answered("probed", rows, entries, now)
        silence = entries["tag"]
        outstanding = entries["pos"] != entries["end"]  # then it is retransmission that shows whether the peer is there
        probes = np.where(answered | outstanding, 0, p["probes"][rows])
        quiet = ~outstanding & ((probes > 0) | (silence >= idle))
        over = quiet & (probes >= p["count"][rows])
        asks = quiet & ~over
        self._give_up(rows[over])
        p["probes"][rows] = probes + asks
        p["probed"][rows[asks]] = now
        self._tell(PROBE, rows[asks])
        rest = np.where(outstanding, idle, np.maximum(idle, silence + 1) - silence)
        self._tell(ALIVE, rows[~over], np.where(asks, p["interval"][rows], rest)[~over])

    # ---- ICMP ---------------------------------------------------------------------------------------------------------------

    def on_packets(self, packets: Sequence[bytes], now: int) -> None:
        """What ICMP says of our segments. It is believed if it quotes what may be on its way (RFC 5927, section 4.1)."""
        quotes = [q for packet in packets if packet[9] == IP_ICMP and (q := quoted(packet, self._local)) is not None]
        if not quotes or not self._may_scan(now):
            return
        about = self._about
        keys = flow_keys(about["address"], about["port"], about["local_port"])
        wanted = np.array([quote.key for quote in quotes], np.uint64)
        found = np.flatnonzero(np.isin(keys, wanted) & (about["state"] != CLOSED))
        row_of = dict(zip(keys[found].tolist(), found.tolist(), strict=True))
        for quote in quotes:
            row = row_of.get(quote.key)
            if row is not None and _distance(about["acked"][row], quote.seq) < _distance(about["acked"][row], about["sent"][row]):
                self._on_quote(row, quote, now)
        self._pump(now)

    def _on_quote(self, row: int, quote: Quote, now: int) -> None:
        rows = np.array([row])
        state = self._about["state"][row]
        if quote.error:
            if state == SYN_SENT and quote.unreachable:  # RFC 5461, section 4.2: the next address is tried at once
                self._tell(FAIL, rows, quote.error)
            else:  # RFC 5927, section 5.2: what is established lives on, and knows the reason if it ends
                self._remembered(rows)
                self._patience["soft"][row] = quote.error
        elif state > SYN_RCVD:
            self._lower(row, max(quote.mtu - HEADERS, MSS_LEAST), now)

    def _lower(self, row: int, limit: int, now: int) -> None:
        """RFC 1191: segments are that long at most, and what is on its way is sent again; it was no congestion (section 6.5)."""
        about, rows = self._about, np.array([row])
        mss, former = int(about["mss"][row]), int(about["mss_limit"][row])
        if limit >= min(mss, former or mss):
            return
        about["mss_limit"][row] = limit
        self._lowered.append((now + PATH_MTU_NS, row, int(about["generation"][row])))
        self.services.call_at(self._lowered[0][0])
        self._set_window(rows, about["win"][rows], about["ssthresh"][rows])
        self._tell(RETRANSMIT, rows)

    def _may_scan(self, now: int) -> bool:
        """A token bucket: whoever floods us with ICMP only makes us deaf to it."""
        gained = (now - self._scans_at) * SCANS_PER_SECOND / 1e9 if self._scans_at else 0.0
        self._scans, self._scans_at = min(SCANS_BURST, self._scans + gained), now
        if self._scans < 1:
            self.suppressed += 1
            return False
        self._scans -= 1
        return True

    # ---- time ---------------------------------------------------------------------------------------------------------------

    def on_time(self, now: int) -> int | None:
        """Entries that wait for room, congestion control's next look, path MTUs to be tried again."""
        self._pump(now)
        self._release(now)
        waiting = []
        if self._tuner.watched:
            self._ticked = now
            waiting.append(self._tuner.tick(now))
        while self._lowered and self._lowered[0][0] <= now:
            _, row, generation = self._lowered.popleft()
            if self._about["generation"][row] == generation:
                self._about["mss_limit"][row] = 0
        if self._lowered:
            waiting.append(self._lowered[0][0])
        return min((due for due in waiting if due is not None), default=None)


def flow_keys(address: Array, port: Array, local_port: Array) -> Array:
    """A number for each of many connections, which no two have in common; everything in packet byte order."""
    keys: Array = (
        address.astype(np.uint64) << np.uint64(32) | port.astype(np.uint64) << np.uint64(16) | local_port.astype(np.uint64)
    )
    return keys


def _distance(start: Any, end: Any) -> int:
    """From one sequence number to another that is not before it."""
    return (int(end) - int(start)) % (1 << 32)


def _number(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, "little")


def _swap(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")
