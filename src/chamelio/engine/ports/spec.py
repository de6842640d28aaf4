"""The textual form of a port, and its parser.

    wire:NAME_OR_PATH[:a|b]   afxdp:INTERFACE[:QUEUE]   tap:INTERFACE     each with options: ,network=0,mtu=1500,mac=...
    fault(loss=1%,delay=1ms..3ms,seed=7):INNER          pcap(FILE):INNER

Parsing opens nothing. The tables at the end of this file are all there is to know about kinds and options; help texts
and completion can be made of them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chamelio.engine.ports.port import IP_MTU_MAX, IP_MTU_MIN, PortError


@dataclass(frozen=True)
class PortSpec:
    """A parsed port: `options` holds converted values of those options that were given."""

    kind: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)
    inner: PortSpec | None = None


@dataclass(frozen=True)
class Option:
    """How an option's text becomes a value, and what it means."""

    convert: Callable[[str], Any]
    help: str


@dataclass(frozen=True)
class Kind:
    """One kind of port. Wrappers take their arguments in brackets; `target` names what else they need."""

    target: str
    options: Mapping[str, Option]
    wrapper: bool = False


def parse(text: str) -> PortSpec:
    """The port that a text describes. Raises PortError."""
    text = text.strip()
    name = re.match(r"[A-Za-z0-9_-]*", text)
    kind_name = name.group() if name else ""
    kind = KINDS.get(kind_name)
    if kind is None:
        raise PortError(f"port '{text}': unknown kind '{kind_name}'{did_you_mean(kind_name, KINDS)} (kinds: {', '.join(KINDS)})")
    rest = text[len(kind_name) :]
    if kind.wrapper:
        arguments, inner = _brackets(text, kind_name, rest)
        target, options = _arguments(text, kind_name, kind, arguments)
        return PortSpec(kind_name, target, options, parse(inner))
    if not rest.startswith(":"):
        raise PortError(f"port '{text}': expected '{kind_name}:{kind.target}'")
    target, *settings = rest[1:].split(",")
    if not target:
        raise PortError(f"port '{text}': {kind.target} is missing, as in '{kind_name}:{kind.target}'")
    return PortSpec(kind_name, target, _options(text, kind_name, kind, settings))


def _brackets(text: str, kind: str, rest: str) -> tuple[str, str]:
    """`(ARGUMENTS):INNER` in its two parts; brackets in arguments must be balanced."""
    depth = 0
    for i, char in enumerate(rest):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            if i == 0 or rest[i + 1 : i + 2] != ":":
                break
            return rest[1:i], rest[i + 2 :]
    raise PortError(f"port '{text}': '{kind}' wraps another port: write '{kind}(...):INNER', as in '{kind}(...):wire:w0'")


def _arguments(text: str, name: str, kind: Kind, arguments: str) -> tuple[str, dict[str, Any]]:
    parts = [part.strip() for part in arguments.split(",") if part.strip()]
    target = ""
    if kind.target:
        if not parts or not parts[0]:
            raise PortError(f"port '{text}': {kind.target} is missing, as in '{name}({kind.target}):INNER'")
        target = parts.pop(0)
    return target, _options(text, name, kind, parts)


def _options(text: str, name: str, kind: Kind, settings: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        option = kind.options.get(key)
        if option is None:
            known = ", ".join(kind.options)
            raise PortError(f"port '{text}': '{name}' has no option '{key}'{did_you_mean(key, kind.options)} (it has {known})")
        if not equals or not value:
            raise PortError(f"port '{text}': option '{key}' needs a value: {option.help}")
        if key in options:
            raise PortError(f"port '{text}': option '{key}' is given twice")
        try:
            options[key] = option.convert(value)
        except ValueError as error:
            raise PortError(f"port '{text}': option '{key}={value}': {error}") from None
    return options


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" if something known is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


# ---- values -----------------------------------------------------------------------------------------------------------


def integer(low: int, high: int) -> Callable[[str], int]:
    """Converter of an integer within bounds, decimal or 0x."""

    def convert(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            raise ValueError("not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"must lie between {low} and {high}")
        return value

    return convert


def probability(text: str) -> float:
    """`0.01` or `1%`, from 0 to 1."""
    percent = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        raise ValueError("not a probability: write 0.01 or 1%") from None
    if not 0 <= value <= 1:
        raise ValueError("a probability lies between 0 and 1 (0% and 100%)")
    return value


_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
MAX_DURATION_NS = 60 * 10**9


def duration(text: str) -> int:
    """`1ms`, `250us`, `0.2s` or `0`, in ns; at most a minute."""
    match = re.fullmatch(r"([0-9.]+)\s*(ns|us|ms|s)?", text)
    try:
        value = float(match.group(1)) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or math.isnan(value) or (not match.group(2) and value):
        raise ValueError("not a duration: write a number and ns, us, ms or s")
    ns = round(value * _UNITS[match.group(2) or "ns"])
    if ns > MAX_DURATION_NS:
        raise ValueError("longer than a minute")
    return ns


def duration_range(text: str) -> tuple[int, int]:
    """`2ms` or `1ms..3ms`, as (minimum, maximum) in ns."""
    low, dots, high = text.partition("..")
    ends = duration(low), duration(high if dots else low)
    if ends[0] > ends[1]:
        raise ValueError("the shorter delay comes first")
    return ends


def mac(text: str) -> bytes:
    """`02:00:00:00:00:01`, unicast."""
    if not re.fullmatch(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", text):
        raise ValueError("not a MAC address: write six pairs of hexadecimal digits with colons")
    value = bytes.fromhex(text.replace(":", ""))
    if value[0] & 1 or not any(value):
        raise ValueError("a multicast or zero address cannot be a port's own")
    return value


def choice(*values: str) -> Callable[[str], str]:
    """Converter that accepts these words."""

    def convert(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}{did_you_mean(text, values)}")
        return text

    return convert


def switch(text: str) -> bool:
    """`on` or `off`."""
    return choice("on", "off")(text) == "on"


# ---- what there is ----------------------------------------------------------------------------------------------------

_COMMON = {
    "network": Option(integer(0, 2**32 - 2), "number of the virtual network whose packets the port carries (default 0)"),
    "mtu": Option(integer(IP_MTU_MIN, IP_MTU_MAX), "longest IP packet in bytes"),
    "mac": Option(mac, "the port's own MAC address"),
}
_NETNS = {"netns": Option(str, "name or path of the network namespace in which the interface is")}
_PROBABILITY = "probability per packet, as 0.01 or 1%"

KINDS: dict[str, Kind] = {
    "wire": Kind(
        "NAME[:a|b]",
        {**_COMMON, "offload": Option(switch, "on: both ends vouch for transport checksums (default off)")},
    ),
    "afxdp": Kind(
        "INTERFACE[:QUEUE]",
        {
            "network": _COMMON["network"],
            "mtu": _COMMON["mtu"],
            **_NETNS,
            "mode": Option(choice("auto", "drv", "skb"), "how the XDP program is attached (default auto: drv, else skb)"),
        },
    ),
    "tap": Kind("INTERFACE", {**_COMMON, **_NETNS}),
    "fault": Kind(
        "",
        {
            "loss": Option(probability, _PROBABILITY),
            "dup": Option(probability, _PROBABILITY),
            "reorder": Option(probability, _PROBABILITY),
            "biterr": Option(probability, f"{_PROBABILITY}, of one flipped bit"),
            "delay": Option(duration_range, "a delay, as 2ms, or a uniform range, as 1ms..3ms"),
            "hold": Option(duration, "how much later a reordered packet comes (default 1ms)"),
            "seed": Option(integer(0, 2**64 - 1), "seed of the random generator (default 1)"),
            "limit": Option(integer(1, 1 << 20), "packets that may wait in each direction (default 1024)"),
            "direction": Option(choice("both", "rx", "tx"), "which packets are touched (default both)"),
        },
        wrapper=True,
    ),
    "pcap": Kind("FILE", {"snaplen": Option(integer(64, 65535), "bytes of a packet that are kept (default all)")}, wrapper=True),
}
