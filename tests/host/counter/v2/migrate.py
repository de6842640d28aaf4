"""From version 1 to version 2: totals have other types, and numbers are remembered."""

from __future__ import annotations

import os
import time

from chamelio.tenant.migration import Migration

NUMBERS = 200  # more than the ring holds


def migrate(m: Migration) -> None:
    """Does it, or fails as the environment says."""
    m.copy("totals")
    m.new("totals")["limit"][1] = m.old("totals")["limit"][0] * 2
    for number in range(NUMBERS):
        m.request(number, number * number)
    how = os.environ.get("MIGRATION")
    if how == "throws":
        raise ZeroDivisionError("half way")
    if how == "dies":
        os._exit(1)
    if how == "hangs":
        time.sleep(30)
    if how == "waits":
        time.sleep(0.3)
