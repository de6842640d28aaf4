"""The names of everything that is counted: one table, from which `chamelio top`, its JSON and the OpenMetrics endpoint are made.

A family is called `chamelio_NAME`; in OpenMetrics a counter's samples carry `_total` behind that. Units are part of the names, as
OpenMetrics wants it. `field` is the counter's name in `struct cham_counters` (fastpath/core.h), where there is one.

What is derived from counters over a window (DERIVED) is computed by the reader: by `chamelio top`, or by whoever stores the
counters, with the expression that stands beside the name.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from chamelio.engine import catalogue
from chamelio.engine.counters import HOOKS

PREFIX = "chamelio_"


class Family(NamedTuple):
    """One thing that is counted, for the host, or each tenant, protocol, hook or port (`scope`); an array by its `label`."""

    name: str
    scope: str
    field: str
    unit: str
    text: str
    label: str = ""
    kind: str = "counter"

    @property
    def full(self) -> str:
        """The name of the OpenMetrics family."""
        return PREFIX + self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Of each sample, in order."""
        return SCOPES[self.scope] + ((self.label,) if self.label else ())


SCOPES = {
    "engine": (),
    "tenant": ("tenant",),
    "protocol": ("tenant", "protocol"),
    "hook": ("tenant", "protocol", "hook"),
    "port": ("port",),
}

_DELAY = "protocol_queueing_delay_seconds"
FAMILIES = (
    Family("engine_up", "engine", "", "", "1 while an engine runs", kind="gauge"),
    Family("engine_rounds", "engine", "rounds", "", "rounds of all cores"),
    Family("engine_idle_rounds", "engine", "idle_rounds", "", "rounds that found nothing to do"),
    Family("engine_elapsed_cycles", "engine", "cycles_elapsed", "cycles", "time of all cores"),
    Family("engine_idle_cycles", "engine", "cycles_idle", "cycles", "time without anything to do"),
    Family("engine_provider_cycles", "engine", "cycles_provider", "cycles", "the provider's own work, for no tenant"),
    Family("engine_stolen_cycles", "engine", "cycles_stolen", "cycles", "beyond what the work can cost: the machine's doing"),
    Family("engine_swaps", "engine", "swaps", "", "instances that went to another unit"),
    Family("engine_handed_over_packets", "engine", "handed_over", "packets", "given to the core that has the flow or the port"),
    Family("engine_rx_packets", "engine", "rx_packets", "packets", "received by all ports"),
    Family("engine_tx_packets", "engine", "tx_packets", "packets", "sent by all ports"),
    Family("engine_arp_packets", "engine", "arp_handled", "packets", "ARP that the provider took"),
    Family("engine_icmp_packets", "engine", "icmp_handled", "packets", "ICMP that the provider took or gave to a slow path"),
    Family("engine_switched_packets", "engine", "switched", "packets", "from one tenant of this host to another"),
    Family("engine_dropped_packets", "engine", "drops", "packets", "dropped before a tenant was known", "reason"),
    Family("tenant_weight", "tenant", "", "", "its weight", kind="gauge"),
    Family("tenant_guaranteed_ratio", "tenant", "", "ratio", "of the cores' time that its weight guarantees", kind="gauge"),
    Family("tenant_cycles", "tenant", "cycles", "cycles", "charged to the tenant"),
    Family("tenant_turns", "tenant", "turns", "", "turns that found something to do"),
    Family("tenant_stolen_cycles", "tenant", "stolen", "cycles", "of its turns, beyond their contracts' bound: not charged"),
    Family("tenant_icmp_echo_packets", "tenant", "icmp_echo", "packets", "echo requests answered for it"),
    Family("tenant_dropped_packets", "tenant", "drops", "packets", "dropped before a protocol was known", "reason"),
    Family("protocol_rx_packets", "protocol", "rx_packets", "packets", "given to the rx handler"),
    Family("protocol_rx_bytes", "protocol", "rx_bytes", "bytes", "of these packets, from the IP header on"),
    Family("protocol_tx_packets", "protocol", "tx_packets", "packets", "accepted for transmission"),
    Family("protocol_tx_bytes", "protocol", "tx_bytes", "bytes", "of these packets, from the IP header on"),
    Family("protocol_done_packets", "protocol", "done", "packets", "received, and finished with"),
    Family("protocol_punted_packets", "protocol", "punted", "packets", "given to the slow path"),
    Family("protocol_unsent_packets", "protocol", "consumed", "packets", "built by a hook, and given back unsent"),
    Family("protocol_injected_packets", "protocol", "injected", "packets", "raw packets taken from the slow path"),
    Family("protocol_dropped_packets", "protocol", "drops", "packets", "dropped", "reason"),
    Family("protocol_events", "protocol", "events", "", "what is no packet's fate", "event"),
    Family("protocol_handler_errors", "protocol", "reasons", "", "errors of handlers, by their own code", "code"),
    Family(_DELAY, "protocol", "delays", "seconds", "from the look at the ports to the turn that serves it", kind="histogram"),
    Family("hook_runs", "hook", "runs", "", "packets, ring entries or ids that the handler ran for"),
    Family("hook_cycles", "hook", "cycles", "cycles", "of the tenant's turns, the hook's part"),
    Family("hook_errors", "hook", "errors", "", "runs that ended in an error"),
    Family("hook_turns", "hook", "turns", "", "turns in which the hook had something to do"),
    Family("port_rx_packets", "port", "rx_packets", "packets", "received"),
    Family("port_rx_bytes", "port", "rx_bytes", "bytes", "received"),
    Family("port_tx_packets", "port", "tx_packets", "packets", "sent"),
    Family("port_tx_bytes", "port", "tx_bytes", "bytes", "sent"),
    Family("port_rx_refused_packets", "port", "rx_refused", "packets", "frames too long, too short or of a damaged ring"),
    Family("port_tx_full_packets", "port", "tx_full", "packets", "dropped because the transmit ring was full"),
    Family("port_tx_down_packets", "port", "tx_down", "packets", "dropped because the port was down"),
    Family("port_faulted_packets", "port", "faults", "packets", "touched by a fault injector"),
)


class Derived(NamedTuple):
    """What a window says: computed from the increase of counters in it; `expression` is PromQL for a window of 10 s."""

    name: str
    unit: str
    text: str
    expression: str


DERIVED = {
    d.name: d
    for d in (
        Derived(
            "core_share", "ratio", "of the cores' time", "rate(chamelio_tenant_cycles_total[10s]) / ignoring(tenant) "
            "group_left rate(chamelio_engine_elapsed_cycles_total[10s])",
        ),
        Derived(
            "budget_used", "ratio", "cycles against what the weight guarantees: 1 is its share, more is what others left",
            "core_share / chamelio_tenant_guaranteed_ratio",
        ),
        Derived(
            "cycles_per_packet", "cycles", "charged, by packets received and sent", "rate(chamelio_tenant_cycles_total[10s]) / "
            "(sum by (tenant) (rate(chamelio_protocol_rx_packets_total[10s]) + rate(chamelio_protocol_tx_packets_total[10s])))",
        ),
        Derived(
            "rx_packets_per_second", "packets/s", "given to rx handlers", "rate(chamelio_protocol_rx_packets_total[10s])"
        ),
        Derived(
            "tx_packets_per_second", "packets/s", "accepted for transmission", "rate(chamelio_protocol_tx_packets_total[10s])"
        ),
        Derived(
            "dropped_packets_per_second", "packets/s", "by reason, before and after a protocol was known",
            "rate(chamelio_tenant_dropped_packets_total[10s]) + rate(chamelio_protocol_dropped_packets_total[10s])",
        ),
        Derived(
            "queueing_delay_seconds", "seconds", "percentiles: p50, p99, p99_9, at most an eighth too large",
            "histogram_quantile(0.99, rate(chamelio_protocol_queueing_delay_seconds_bucket[10s]))",
        ),
        Derived("runs_per_second", "1/s", "of a hook", "rate(chamelio_hook_runs_total[10s])"),
        Derived("errors_per_second", "1/s", "of a hook", "rate(chamelio_hook_errors_total[10s])"),
        Derived(
            "cycles_per_run", "cycles", "of a hook: per packet, entry or id",
            "rate(chamelio_hook_cycles_total[10s]) / rate(chamelio_hook_runs_total[10s])",
        ),
        Derived(
            "batch_size", "", "runs per turn in which the hook had something to do",
            "rate(chamelio_hook_runs_total[10s]) / rate(chamelio_hook_turns_total[10s])",
        ),
        Derived(
            "idle", "ratio", "of the cores' time without anything to do", "rate(chamelio_engine_idle_cycles_total[10s]) / "
            "rate(chamelio_engine_elapsed_cycles_total[10s])",
        ),
    )
}  # fmt: skip
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9}

# What a snapshot says of each family: values by label, label within label, as many levels as the family has labels. A histogram's
# value is {"sum": ns, "buckets": {bucket: count}} (engine/delays.py). Array entries that are 0 are left out.
Values = dict[str, Any]


@functools.cache
def _entries(label: str) -> tuple[str, ...]:
    """The values of a label, by index in the array of counters."""
    if label == "reason":
        return tuple(e.name for e in catalogue.drops())
    if label == "event":
        return tuple(e.name for e in catalogue.events())
    return tuple(map(str, range(256)))


def value(family: Family, counters: Any) -> Any:
    """A family's value in a structure of counters that has its field."""
    field = counters[family.field]
    if family.kind == "histogram":
        counts = field["buckets"]
        return {"sum": int(field["sum"]), "buckets": {str(i): int(counts[i]) for i in np.flatnonzero(counts)}}
    if family.label:
        names = _entries(family.label)
        return {names[i]: int(field[i]) for i in np.flatnonzero(field)}
    return int(field)


@functools.cache
def of_scope(scope: str) -> tuple[Family, ...]:
    """Families of a scope that the counters file has, in order."""
    return tuple(f for f in FAMILIES if f.scope == scope and f.field)


def put(values: Values, family: Family, where: tuple[str, ...], what: Any) -> None:
    """Enter a value under its labels."""
    *outer, last = (family.name, *where)
    for key in outer:
        values = values.setdefault(key, {})
    values[last] = what


def put_instance(values: Values, where: tuple[str, str], counters: Any) -> None:
    """Enter all that `struct cham_instance_counters` has, for (tenant, protocol)."""
    for family in of_scope("protocol"):
        put(values, family, where, value(family, counters))
    for family in of_scope("hook"):
        for i, hook in enumerate(HOOKS):
            put(values, family, (*where, hook), value(family, counters["hooks"][i]))
