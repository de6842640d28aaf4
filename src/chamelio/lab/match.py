"""Whether a segment that came is the one that a script expects."""

from __future__ import annotations

from chamelio.lab.flow import Flow
from chamelio.lab.language import Await, Stamp, Value
from chamelio.lab.segments import ACK, ECN, MSS, PSH, RST, SACK, SACKOK, SYN, TIMESTAMPS, WSCALE, Segment, flag_names

KINDS = {"mss": MSS, "wscale": WSCALE, "sackok": SACKOK, "ts": TIMESTAMPS, "sack": SACK}


def compare(flow: Flow, action: Await, segment: Segment, names: dict[str, int], ahead: int) -> list[str]:
    """What is different, in words; empty: it is the one. `ahead`: bytes after the first of several. Binds names of timestamps."""
    wanted, s = action.fields, segment
    differences = []
    mask = 0xFF if action.push else 0xFF & ~PSH
    flags = action.flags | (PSH if action.push else 0)
    if s.flags & mask != flags & mask:
        differences.append(f"the flags are {flag_names(s.flags & mask)}, not {flag_names(flags & mask)}")
    numbers = {
        "seq": (flow.of_us(s.seq), (0 if flags & SYN else flow.our_next) if "seq" not in wanted else None),
        "len": (len(s.payload), 0),
        "ack": (flow.of_peer(s.ack) if s.flags & ACK else 0, None),
        "win": (flow.window_of(s, flow.our_syn), None),
        "urg": (s.urgent, 0),
        "ttl": (s.ttl, None),
    }
    for name, (number, default) in numbers.items():
        value = wanted.get(name)
        if value is None:
            value = Value("=", default, f"{name}={default}")
        elif name == "seq" and value.value is not None:
            value = Value(value.op, int(value.value) + ahead, f"{name}{value.op}{int(value.value) + ahead}")
        if not value.fits(number):
            differences.append(f"{name} is {number}, and {value.text} was expected")
    ecn = next(name for name, bits in ECN.items() if bits == s.ecn)
    expected_ecn = wanted["ecn"].value if "ecn" in wanted else None if flow.ecn else "none"
    if expected_ecn not in (None, ecn):
        differences.append(f"ecn is {ecn}, and ecn={expected_ecn} was expected")
    if "anyopts" not in wanted:
        differences += _options(flow, wanted, s)
    if "ts" in wanted:
        differences += _stamps(wanted["ts"], s, names)
    return differences


def _options(flow: Flow, wanted: dict[str, Value], s: Segment) -> list[str]:
    """Options that are there and must not be, or the other way round, and their values but for timestamps."""
    differences = []
    expected = {kind for name, kind in KINDS.items() if name in wanted}
    if flow.timestamps and not s.flags & (SYN | RST) and "nots" not in wanted:
        expected.add(TIMESTAMPS)
    if s.flags & RST and "ts" not in wanted:
        expected |= {TIMESTAMPS} & {kind for kind, _ in s.options}  # may be there or not (RFC 7323 3.2)
    names = {kind: name for name, kind in KINDS.items()}
    there = {kind for kind, _ in s.options}
    differences += [f"{names[kind]} is missing" for kind in sorted(expected - there)]
    differences += [f"{names.get(kind, f'option {kind}')} was not expected" for kind in sorted(there - expected)]
    for name, size in (("mss", 2), ("wscale", 1)):
        value = s.option(KINDS[name])
        if name in wanted and value is not None:
            number = int.from_bytes(value, "big")
            if len(value) != size:
                differences.append(f"the option {name} has {len(value)} bytes, not {size}")
            elif not wanted[name].fits(number):
                differences.append(f"{name} is {number}, and {wanted[name].text} was expected")
    if "sack" in wanted and wanted["sack"].value is not None and SACK in there:
        blocks = [(flow.of_peer(left), flow.of_peer(right)) for left, right in s.sack_blocks]
        if blocks != wanted["sack"].value:
            text = ",".join(f"{left}-{right}" for left, right in blocks)
            differences.append(f"sack is {text}, and {wanted['sack'].text} was expected")
    return differences


def _stamps(wanted: Value, s: Segment, names: dict[str, int]) -> list[str]:
    if wanted.value is None or s.timestamps is None:
        return []
    differences = []
    for what, stamp, came in zip(("TSval", "TSecr"), wanted.value, s.timestamps, strict=True):
        number = _number(stamp, names, came)
        if number not in (None, came):
            differences.append(f"{what} is {came}, and {number} was expected")
    return differences


def _number(stamp: Stamp, names: dict[str, int], came: int) -> int | None:
    """What a stamp must be; a name that has no value gets the one that came. None: anything."""
    if stamp.name is None:
        return stamp.number
    return (names.setdefault(stamp.name, came - (stamp.number or 0)) + (stamp.number or 0)) & 0xFFFFFFFF
