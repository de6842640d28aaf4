"""Tells what was counted."""

from __future__ import annotations

from typing import Any

from chamelio.tenant.runtime import SlowPath


class Counter(SlowPath):
    """`totals` gives the shared value; `limit {to}` sets the field that is ours."""

    def on_request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        totals = self.services.region.values("totals")
        if verb == "limit":
            totals["limit"][0] = arguments["to"]
            return {}
        if verb == "totals":
            return {name: int(totals[name][0]) for name in totals.dtype.names or ()}
        return super().on_request(context, verb, arguments)
