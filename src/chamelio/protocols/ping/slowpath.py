"""The slow path of ping: what is rare. Here: being asked for totals, and being muted."""

from __future__ import annotations

from typing import Any

from chamelio.tenant.runtime import Services, SlowPath


class PingSlowPath(SlowPath):
    """Sees the shared values of map `totals` as a NumPy array; may write the fields that are marked CHAM_SLOW."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.totals = services.region.values("totals")

    def on_request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        """`totals` gives what the handlers have counted; `mute {on}` stops and starts answering."""
        if verb == "totals":
            return {name: int(self.totals[name][0]) for name in ("answered", "ignored", "muted")}
        if verb == "mute":
            self.totals["muted"][0] = bool(arguments.get("on", True))
            return {}
        return super().on_request(context, verb, arguments)
