"""NewReno (RFC 5681, 6582): what handlers do when nobody tells them otherwise. A loss halves, a round trip adds a segment."""

from __future__ import annotations

from chamelio.protocols.tcp.congestion import CongestionControl


class NewReno(CongestionControl):
    """Nothing to say."""

    ticks = False
