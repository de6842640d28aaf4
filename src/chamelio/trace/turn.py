"""The helpers in Python: what fastpath/helpers.h does, over memory that a subclass provides.

Where C and Python differ: a hash map is full when all its entries are used (in C also when both buckets of a key are), a
pool when its bytes are (in C also when they lie too far apart), nobody takes entries out of rings, and the secrets behind
`cham_hash` and `cham_random` are constants.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from chamelio.bpf.maps import MapDef
from chamelio.jit.layout import ARRAY, HASH, TIMER, TX, pool_sizes
from chamelio.verify.catalogue import EMITS, HELPERS, PACKET_MAX
from chamelio.verify.cost import counted, lines_of

ENOENT, EINVAL, ENOSPC = 2, 22, 28
U32, U64 = 0xFFFFFFFF, (1 << 64) - 1
_SECRETS = 0x243F6A8885A308D3, 0x13198A2E03707344
_GOLDEN = 0x9E3779B97F4A7C15


def mix(a: int, b: int) -> int:
    """64 x 64 -> 128 bit multiply, folded (fastpath/base.h)."""
    product = (a & U64) * (b & U64)
    return (product ^ product >> 64) & U64


def internet_sum(data: bytes, seed: int = 0) -> int:
    """RFC 1071, not inverted, folded to 16 bits in packet byte order as a little-endian number."""
    total: int = seed + sum(struct.unpack(f"<{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1]
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def charge_of(number: int, arguments: Sequence[int]) -> int:
    """Cycles that a call counts on the virtual clock, given r1 and what follows; the call instruction itself aside."""
    helper, cost = HELPERS[number], counted(HELPERS[number])
    length = min(arguments[helper.length_arg - 1] & U32, PACKET_MAX) if helper.length_arg else 0
    return cost.fixed + cost.per_line * lines_of(length)


class Turn:
    """What one run of a handler works on. Methods `cham_...` take a helper's arguments and return what goes to r0."""

    longest = PACKET_MAX
    contexts = 17

    def __init__(self, maps: Sequence[MapDef]) -> None:
        self.maps = maps
        self.begin(0)

    def begin(self, now: int) -> None:
        """A world without entries, deadlines or packets sent."""
        self.now = now
        self.slots: dict[int, dict[bytes, int]] = {i: {} for i, m in enumerate(self.maps) if m.kind == HASH}
        self.free = {i: list(range(self.maps[i].max_entries)) for i in self.slots}
        self.due: dict[int, dict[int, int]] = {i: {} for i, m in enumerate(self.maps) if m.kind in (TX, TIMER)}
        self.last_due: dict[tuple[int, int], int] = {}
        self.pushed: list[tuple[int, int, bytes]] = []  # ring, context, entry
        self.pooled: dict[tuple[int, int], bytearray] = {}  # buffers of pools, by map and id
        self.emitted: list[bytes] = []
        self.checksum_later: tuple[int, int] | None = None
        self._random = 0

    # ---- what a subclass provides ------------------------------------------------------------------------------------

    def load(self, address: int, size: int) -> bytes:
        """Memory that a helper is given. Raises AccessError."""
        raise NotImplementedError

    def map_at(self, address: int) -> int:
        """Which map a reference stands for."""
        raise NotImplementedError

    def value_address(self, index: int, slot: int) -> int:
        """Where a value of a map lies, for the handler to use."""
        raise NotImplementedError

    def value(self, index: int, slot: int) -> memoryview:
        """The bytes of a value."""
        raise NotImplementedError

    def buffer(self, index: int, id_: int) -> memoryview:
        """A buffer of a bytes map that has one for each id."""
        raise NotImplementedError

    def packet_bytes(self) -> bytes | None:
        """The packet as it is; None where there is none."""
        raise NotImplementedError

    def put_packet(self, content: bytes | None) -> None:
        """Another packet takes the place of this one, elsewhere: addresses in the old one mean nothing any more."""
        raise NotImplementedError

    # ---- maps --------------------------------------------------------------------------------------------------------

    def find(self, index: int, key: bytes) -> int | None:
        """The slot of a key in an array or hash map."""
        m = self.maps[index]
        if m.kind == ARRAY:
            slot = int.from_bytes(key, "little")
            return slot if slot < m.max_entries else None
        return self.slots[index].get(key)

    def insert(self, index: int, key: bytes) -> int | None:
        """The slot of a key, a new one if need be; None: an index out of range, or a full map."""
        slot = self.find(index, key)
        if slot is None and self.maps[index].kind == HASH and self.free[index]:
            slot = self.slots[index][key] = self.free[index].pop()
        return slot

    def cham_lookup(self, where: int, key: int) -> int:
        """The address of a value, or 0."""
        index = self.map_at(where)
        slot = self.find(index, self.load(key, self.maps[index].key_size))
        return 0 if slot is None else self.value_address(index, slot)

    def cham_update(self, where: int, key: int, value: int, flags: int) -> int:
        """Insert or overwrite."""
        index = self.map_at(where)
        m = self.maps[index]
        content = self.load(value, m.value_size)
        slot = self.insert(index, self.load(key, m.key_size))
        if slot is None:
            return -ENOENT if m.kind == ARRAY else -ENOSPC
        self.value(index, slot)[:] = content
        return 0

    def cham_delete(self, where: int, key: int) -> int:
        """Remove from a hash map."""
        index = self.map_at(where)
        slot = self.slots[index].pop(self.load(key, self.maps[index].key_size), None)
        if slot is None:
            return -ENOENT
        self.free[index].append(slot)
        return 0

    def cham_push(self, ring: int, context: int, entry: int) -> int:
        """Append to a context's ring."""
        index = self.map_at(ring)
        content = self.load(entry, self.maps[index].value_size)
        if context >= self.contexts:
            return -EINVAL
        if sum(r == index and c == context for r, c, _ in self.pushed) >= self.maps[index].max_entries:
            return -ENOSPC
        self.pushed.append((index, context, content))
        return 0

    # ---- ids that come due -------------------------------------------------------------------------------------------

    def cham_schedule(self, where: int, id_: int, when: int) -> int:
        """Make an id due at a time."""
        index = self.map_at(where)
        if id_ >= self.maps[index].max_entries:
            return -ENOENT
        self.due[index][id_] = self.last_due[index, id_] = when
        return 0

    def cham_cancel(self, where: int, id_: int) -> int:
        """Forget an id."""
        index = self.map_at(where)
        return 0 if self.due[index].pop(id_, None) is not None else -ENOENT

    def cham_pace(self, where: int, id_: int, gap: int) -> int:
        """Make an id due some time after it was due last."""
        index = self.map_at(where)
        when = (self.last_due.get((index, id_), 0) + gap) & U64
        return self.cham_schedule(where, id_, self.now if when < self.now or when < gap else when)

    # ---- the packet --------------------------------------------------------------------------------------------------

    def cham_resize(self, ctx: int, length: int) -> int:
        """Set the packet's length."""
        if length > self.longest:
            return -EINVAL
        old = self.packet_bytes() or b""
        self.put_packet(old[:length] + bytes(max(0, length - len(old))))
        return 0

    def _buffer(self, index: int, id_: int) -> memoryview | None:
        """The buffer of an id; None if it has none, or does not exist."""
        if id_ >= self.maps[index].max_entries:
            return None
        if not pool_sizes(self.maps[index]):
            return self.buffer(index, id_)
        pooled = self.pooled.get((index, id_))
        return None if pooled is None else memoryview(pooled)

    def _buffer_span(self, where: int, id_: int, pos: int, span: int, limit: int) -> tuple[memoryview, int, int, int] | None:
        """A buffer, the place in it, and the span of a packet of `limit` bytes; None if any of them does not exist."""
        buffer, at, size = self._buffer(self.map_at(where), id_), span >> 32, span & U32
        if buffer is None or at + size > limit or size > len(buffer):
            return None
        return buffer, pos % len(buffer), at, size

    def cham_pkt_to_bytes(self, ctx: int, where: int, id_: int, pos: int, span: int) -> int:
        """Copy from the packet to a buffer."""
        packet = self.packet_bytes()
        found = None if packet is None else self._buffer_span(where, id_, pos, span, len(packet))
        if packet is None or found is None:
            return -EINVAL
        buffer, start, at, size = found
        head = min(size, len(buffer) - start)
        buffer[start : start + head] = packet[at : at + head]
        buffer[: size - head] = packet[at + head : at + size]
        return 0

    def cham_bytes_to_pkt(self, ctx: int, where: int, id_: int, pos: int, span: int) -> int:
        """Copy from a buffer to the packet, which may grow."""
        found = self._buffer_span(where, id_, pos, span, self.longest)
        if found is None:
            return -EINVAL
        buffer, start, at, size = found
        head = min(size, len(buffer) - start)
        packet = bytearray(self.packet_bytes() or b"")
        packet += bytes(max(0, at + size - len(packet)))
        packet[at : at + size] = bytes(buffer[start : start + head]) + bytes(buffer[: size - head])
        self.put_packet(bytes(packet))
        return 0

    def cham_bytes_open(self, where: int, id_: int, size: int, keep: int) -> int:
        """Give an id of a pool a buffer, keeping some of what was in the old one."""
        index, pos, kept = self.map_at(where), keep >> 32, keep & U32
        m, old = self.maps[index], self._buffer(index, id_)
        if not pool_sizes(m) or id_ >= m.max_entries or not 0 < size <= m.value_size or kept > PACKET_MAX:
            return -EINVAL
        smallest, total = pool_sizes(m)
        size = max(smallest, 1 << (size - 1).bit_length())
        if kept > min(size, len(old or b"")):
            return -EINVAL
        if size + sum(len(b) for (i, _), b in self.pooled.items() if i == index) > total:
            return -ENOSPC
        new = bytearray(size)
        for at in range(pos, pos + kept):
            assert old is not None
            new[at % size] = old[at % len(old)]
        self.pooled[index, id_] = new
        return 0

    def cham_bytes_close(self, where: int, id_: int) -> int:
        """Take the buffer of an id of a pool back."""
        return 0 if self.pooled.pop((self.map_at(where), id_), None) is not None else -ENOENT

    def cham_bytes_size(self, where: int, id_: int) -> int:
        """Bytes of the buffer of an id."""
        return len(self._buffer(self.map_at(where), id_) or b"")

    def cham_csum(self, ctx: int, span: int, seed: int) -> int:
        """Ones' complement sum of a span."""
        packet, at, size = self.packet_bytes(), span >> 32, span & U32
        if packet is None or at + size > len(packet):
            return -EINVAL
        return internet_sum(packet[at : at + size], (seed & U32) + (seed >> 32))

    def cham_csum_later(self, ctx: int, start: int, at: int) -> int:
        """Leave the checksum to the provider."""
        if self.packet_bytes() is None or at < start or at > self.longest:
            return -EINVAL
        self.checksum_later = start, at
        return 0

    def cham_emit(self, ctx: int) -> int:
        """Transmit the packet and go on without one."""
        packet = self.packet_bytes()
        if packet is None:
            return -EINVAL
        if len(self.emitted) >= EMITS:
            return -ENOSPC
        self.emitted.append(packet)
        self.checksum_later = None
        self.put_packet(None)
        return 0

    # ---- numbers -----------------------------------------------------------------------------------------------------

    def cham_random(self, ctx: int) -> int:
        """64 random bits, the same ones in every run."""
        self._random = (self._random + _GOLDEN) & U64
        return mix(self._random ^ _SECRETS[0], self._random ^ _SECRETS[1])

    def cham_hash(self, ctx: int, a: int, b: int) -> int:
        """Keyed hash of two words."""
        return mix(mix(a ^ _SECRETS[0], _SECRETS[1]) ^ b, _SECRETS[1])
