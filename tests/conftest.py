"""In several processes (`-n`), tests of whole hosts stay in one: hosts have processes and deadlines of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HOSTS = (
    "bench/test_swap.py", "bench/test_tax.py", "cli/", "docs/test_tutorial.py", "engine/ports/test_kernel.py",
    "engine/test_idle.py", "engine/test_races.py", "faults/", "host/", "protocols/tcp/test_c.py", "protocols/test_rpc_real.py",
    "sockets/test_stream_real.py", "system/",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One group for `--dist loadgroup`; it is the largest, and so it begins first."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).as_posix().startswith(HOSTS):
                item.add_marker(pytest.mark.xdist_group("hosts"))
