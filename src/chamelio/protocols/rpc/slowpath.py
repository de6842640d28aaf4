"""The slow path of rpc: who listens where, sessions set up and down, and peers that are gone."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chamelio.protocols.rpc.packets import (
    BYE,
    CONTROL,
    HELLO,
    IP_ICMP,
    IP_RPC,
    PING,
    PONG,
    REJECT,
    RESET,
    VERSION,
    WELCOME,
    Control,
    decode,
    quoted,
)
from chamelio.tenant.runtime import RequestError, Services, SlowPath
from chamelio.tenant.steering import flow_core

OPEN, CLOSE = 16, 17  # RPC_OPEN, RPC_CLOSE
SESSIONS, SLOTS, SEGMENT = 64, 32, 1440  # RPC_SESSIONS, RPC_SLOTS, RPC_SEGMENT
EPHEMERAL = range(49152, 65536)  # RFC 6335
HELLO_NS, HELLO_TRIES = 5_000_000, 9  # the first wait for a WELCOME, which doubles: 2.5 s in all
QUIET_NS, PING_NS, PINGS = 10_000_000_000, 1_000_000_000, 5  # a server asks a client that has been quiet whether it still is
RESUMING_NS = 3_000_000_000  # how long ports that nobody serves are not refused after a new slow path has taken over
PER_SECOND, BURST = 200, 50  # answers to packets of nobody's
# By code of ICMP unreachable: what ends a session that is being set up. The others may be gone in a moment.
HARD_ERRORS = {2: errno.ECONNREFUSED, 3: errno.ECONNREFUSED, 9: errno.ENETUNREACH, 10: errno.EHOSTUNREACH, 13: errno.EHOSTUNREACH}

Key = tuple[int, int, int]  # the peer's address (packet byte order) and port, and ours


@dataclass
class Session:
    """One session; addresses in packet byte order, ports in host order, times in ns."""

    number: int
    context: int
    server: bool
    key: Key
    core: int
    token: int
    peer_token: int = 0
    opening: bool = True  # a client that waits for a WELCOME
    tries: int = 0  # HELLOs or PINGs without an answer
    due: int = 0
    heard: int = 0


class RpcSlowPath(SlowPath):
    """Sessions of all applications of a tenant."""

    resumes = True

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._local = _number(services.address)
        self._listeners: dict[int, int] = {}  # port -> context
        self._sessions: dict[int, Session] = {}
        self._by_key: dict[Key, Session] = {}
        self._about = services.region.values("about")
        self._tokens, self._tokens_at = float(BURST), 0
        self._now = 0
        self._resuming = False  # a former slow path's servers are still to say what they serve,
        self._resumed_by = 0  # until then
        self.suppressed = 0

    def on_start(self, *, resumed: bool) -> None:
        """Sessions go on as handlers know them; who serves which port servers say again."""
        if not resumed:
            return
        self._resuming = True
        for number in range(SESSIONS):
            row = {name: int(self._about[name][number]) for name in self._about.dtype.names or ()}
            if not row["open"]:
                continue
            key = (row["address"], _swap(row["port"]), _swap(row["local_port"]))
            if key in self._by_key:  # what applications may have written there is not believed
                continue
            session = Session(number, row["context"], bool(row["server"]), key, flow_core(self.services.cores, *key), row["token"])
            session.peer_token, session.opening = row["peer_token"], False
            self._sessions[number] = self._by_key[key] = session
        self.services.call_at(0)

    # ---- requests of applications --------------------------------------------------------------------------------------------

    def on_request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        """What applications ask for.

        `serve {port}` (0: any) gives `{port}`; `stop {port}`; `connect {address, port, rate?}` gives `{session}`, and OPENED or
        CLOSED follows on the ring of events; `close {session}`. `rate` limits what the session sends, in bits/s of messages.
        """
        if verb == "serve":
            port = self._free_port(arguments.get("port", 0))
            self._listeners[port] = context
            return {"port": port}
        if verb == "stop":
            served = arguments.get("port")
            if not isinstance(served, int) or self._listeners.get(served) != context:
                raise RequestError("EBADF", f"port {served!r} is not one that you serve")
            self._stop(served)
            return {}
        if verb == "connect":
            return self._connect(context, arguments)
        if verb == "close":
            number = arguments.get("session")
            session = self._sessions.get(number) if isinstance(number, int) else None
            if session is None or session.context != context:
                raise RequestError("EBADF", f"session {number!r} is not one of yours")
            self._end(session, 0, bye=True)
            return {}
        return super().on_request(context, verb, arguments)

    def _free_port(self, port: Any, peer: tuple[int, int] | None = None) -> int:
        """The port that was asked for, or for 0 one that nobody uses (towards that peer)."""
        low, high = self.services.ports
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise RequestError("EINVAL", f"{port!r} is not a port")
        if port:
            if not low <= port <= high:
                raise RequestError("EACCES", f"port {port} is not within {low}..{high}, which is what this tenant has")
            if port in self._listeners:
                raise RequestError("EADDRINUSE", f"port {port} is in use")
            return port
        candidates = [p for p in EPHEMERAL if low <= p <= high] or list(range(max(low, 1), high + 1))
        start = self.services.random.randrange(len(candidates)) if candidates else 0
        for i in range(len(candidates)):
            port = candidates[(start + i) % len(candidates)]
            if port not in self._listeners and (peer is None or (*peer, port) not in self._by_key):
                return int(port)
        raise RequestError("EADDRNOTAVAIL", "every ephemeral port is in use")

    def _connect(self, context: int, arguments: dict[str, Any]) -> dict[str, int]:
        peer = _endpoint(arguments.get("address"), arguments.get("port"))
        rate = arguments.get("rate") or 0
        if not isinstance(rate, int | float) or rate < 0:
            raise RequestError("EINVAL", f"{rate!r} is not a rate in bits/s")
        session = self._new(context, False, (*peer, self._free_port(0, peer)))
        if session is None:
            raise RequestError("ENOBUFS", f"all {SESSIONS} sessions are in use")
        self._about["gap"][session.number] = min(round(SEGMENT * 8e9 / rate), 10_000_000) if rate else 0
        self.services.call_at(0)
        return {"session": session.number}

    def on_application_gone(self, context: int) -> None:
        """Its sessions end, its ports are closed."""
        for port in [p for p, owner in self._listeners.items() if owner == context]:
            self._stop(port)
        for session in [s for s in self._sessions.values() if s.context == context]:
            self._end(session, 0, bye=True)

    def _stop(self, port: int) -> None:
        del self._listeners[port]
        for session in [s for s in self._sessions.values() if s.server and s.key[2] == port]:
            self._end(session, 0, bye=True)

    # ---- sessions ------------------------------------------------------------------------------------------------------------

    def _new(self, context: int, server: bool, key: Key) -> Session | None:
        number = next((n for n in range(SESSIONS) if n not in self._sessions), None)
        if number is None:
            return None
        token = self.services.random.getrandbits(26) * SESSIONS + number or SESSIONS
        session = Session(number, context, server, key, flow_core(self.services.cores, *key), token)
        self._sessions[number] = self._by_key[key] = session
        return session

    def _open(self, session: Session, peer_token: int, slots: int) -> None:
        session.peer_token, session.opening, session.tries, session.heard = peer_token, False, 0, self._now
        self._request(OPEN, session.number, session.core, session=session, slots=slots)
        if session.server:
            session.due = self._now + QUIET_NS
            self.services.call_at(session.due)

    def _end(self, session: Session, error: int, *, bye: bool) -> None:
        """Forget a session. `bye`: the peer is told; `error`: what its application hears."""
        if bye and session.peer_token:
            self._say(BYE, session.key, session.peer_token)
        del self._sessions[session.number], self._by_key[session.key]
        self._request(CLOSE, session.number, session.core, context=session.context, error=error)

    def _request(
        self, kind: int, number: int, core: int, *, session: Session | None = None, context: int = 0, slots: int = 0, error: int = 0
    ) -> None:
        """An entry for the handlers, in the order of struct rpc_entry."""
        if session is None:
            self.services.request(kind, number, 0, 0, 0, 0, context, 0, 0, 0, 0, 0, 0, 0, 0, error, core=core)
            return
        address, port, local_port = session.key
        tokens = session.token, session.peer_token
        ends = self._local, address, _swap(local_port), _swap(port)
        entry = (kind, number, 0, 0, 0, 0, session.context, int(session.server), *ends, *tokens, slots, error)
        self.services.request(*entry, core=core)

    def _say(self, kind: int, key: Key, token: int, about: int = 0, value: int = 0) -> None:
        address, port, local_port = key
        self.services.send_packet(Control(kind, self._local, address, local_port, port, token, about, value).encode())

    # ---- packets -------------------------------------------------------------------------------------------------------------

    def on_packets(self, packets: Sequence[bytes], now: int) -> None:
        """What handlers have no session for, and what peers' slow paths say."""
        self._now = now
        for packet in packets:
            if packet[9] == IP_ICMP:
                self._on_icmp(packet)
            elif packet[9] == IP_RPC and (control := decode(packet)) is not None:
                self._on_packet(control)

    def _on_packet(self, c: Control) -> None:
        key = (c.remote, c.remote_port, c.local_port)
        session = self._by_key.get(key)
        ours = session is not None and session.token == c.token
        if c.kind == HELLO:
            self._on_hello(c, key, session)
        elif c.kind == WELCOME:
            if session is not None and ours:
                if session.opening and c.about:
                    self._open(session, c.about, min(c.value, SLOTS))
            elif self._may_answer():
                self._say(BYE, key, c.about)
        elif c.kind == REJECT:
            if session is not None and ours and session.opening:
                self._end(session, c.value if 0 < c.value < 200 else errno.ECONNREFUSED, bye=False)
        elif c.kind == RESET:
            if session is not None and c.about and session.peer_token == c.about:
                self._end(session, errno.ECONNRESET, bye=False)
        elif c.kind == BYE:
            if session is not None and ours:
                self._end(session, errno.ECONNRESET, bye=False)
        elif c.kind in (PING, PONG) and session is not None and ours and not session.opening:
            if c.kind == PING:
                self._say(PONG, key, session.peer_token)
            session.heard, session.tries = self._now, 0
        elif ((c.kind < CONTROL and not ours) or c.kind == PING) and self._may_answer():
            self._say(RESET, key, 0, c.token)

    def _on_hello(self, c: Control, key: Key, session: Session | None) -> None:
        if session is not None and session.server and session.peer_token != c.about:
            # Its client has begun anew, or a stranger says so: who has the old session, or not any more, answers this.
            if self._may_answer():
                self._say(PING, key, session.peer_token)
            return
        if session is None:
            context = self._listeners.get(c.local_port)
            if context is not None and c.version == VERSION and c.about:
                session = self._new(context, True, key)
            if session is None:
                if not self._resuming and self._may_answer():
                    wrong = errno.EPROTO if c.version != VERSION else errno.ECONNREFUSED if context is None else errno.ENOBUFS
                    self._say(REJECT, key, c.about, value=wrong)
                return
            self._open(session, c.about, min(c.value, SLOTS))
        if session.server:
            self._say(WELCOME, key, session.peer_token, session.token, min(c.value, SLOTS))

    def _on_icmp(self, packet: bytes) -> None:
        """A session that is being set up ends by an error about it; one that is open is not so easily disturbed (RFC 5927)."""
        found = quoted(packet)
        if found is None or found[0] not in HARD_ERRORS:
            return
        code, address, local_port, port = found
        session = self._by_key.get((address, port, local_port))
        if session is not None and session.opening:
            self._end(session, HARD_ERRORS[code], bye=False)

    def _may_answer(self) -> bool:
        """A token bucket for answers to strangers."""
        gained = (self._now - self._tokens_at) * PER_SECOND / 1e9 if self._tokens_at else 0.0
        self._tokens, self._tokens_at = min(BURST, self._tokens + gained), self._now
        if self._tokens < 1:
            self.suppressed += 1
            return False
        self._tokens -= 1
        return True

    # ---- time ----------------------------------------------------------------------------------------------------------------

    def on_time(self, now: int) -> int | None:
        """HELLOs and PINGs that are due."""
        self._now = now
        if self._resuming:
            self._resumed_by = self._resumed_by or now + RESUMING_NS
            self._resuming = now < self._resumed_by
        for session in list(self._sessions.values()):
            if session.opening and now >= session.due:
                self._hello(session)
            elif session.server and now >= session.due:
                self._ping(session)
        waiting = [s.due for s in self._sessions.values() if s.opening or s.server]
        if self._resuming:
            waiting.append(self._resumed_by)
        return min(waiting) if waiting else None

    def _hello(self, session: Session) -> None:
        if session.tries >= HELLO_TRIES:
            self._end(session, errno.ETIMEDOUT, bye=False)
            return
        self._say(HELLO, session.key, 0, session.token, SLOTS)
        session.due = self._now + (HELLO_NS << session.tries)
        session.tries += 1

    def _ping(self, session: Session) -> None:
        heard = max(session.heard, int(self._about["heard"][session.number]))
        if self._now - heard < QUIET_NS:
            session.tries, session.due = 0, heard + QUIET_NS
        elif session.tries >= PINGS:
            self._end(session, errno.ETIMEDOUT, bye=True)
        else:
            self._say(PING, session.key, session.peer_token)
            session.tries += 1
            session.due = self._now + PING_NS


def _number(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, "little")


def _swap(port: int) -> int:
    return int.from_bytes(int(port).to_bytes(2, "big"), "little")


def _endpoint(address: Any, port: Any) -> tuple[int, int]:
    try:
        number = _number(address)
        if not (isinstance(port, int) and 0 < port <= 65535) or not number:
            raise ValueError
    except (TypeError, ValueError):
        raise RequestError("EINVAL", f"{address!r} and {port!r} are not an address and a port") from None
    return number, port
