"""The demo against Linux: tenants behind an AF_XDP port, an unmodified Linux host at the other end of a veth pair, as root."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyroute2 import NetlinkError

from chamelio.bench.demo import BLUE, PORT, RED, Demo, Say, Show, present
from chamelio.bench.netns import NetNs, Veth, ping
from chamelio.bench.stage import C_SOURCES, Stage, build_program, uninterrupted
from chamelio.messages import Refusal

SWAP_AT_S, END_AT_S = 3.0, 6.5
LINUX, KERNEL = "10.77.0.1", "10.77.0.2"
ADDRESSES = {RED: "10.77.0.10", BLUE: "10.77.0.20"}
PINGS = 100


class Scene(NamedTuple):
    """A host whose port is on an interface in namespace `host`, and a Linux host in namespace `linux`."""

    stage: Stage
    linux: NetNs


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """Two namespaces joined by a veth pair, and a host; all removed at the end. Raises Refusal."""
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            linux, host = (_namespace(stack, label) for label in ("linux", "host"))
            try:
                Veth(linux, host, LINUX, KERNEL).join()
            except (OSError, NetlinkError) as error:
                raise Refusal("failed", f"a veth pair cannot be made: {error}", "this needs the kernel's module veth") from None
        port = f"eth=afxdp:veth0,netns={host.name}"
        stage = stack.enter_context(Stage("--port", port, "--route", f"{LINUX}/32=eth"))
        yield Scene(stage, linux)


def _namespace(stack: contextlib.ExitStack, label: str) -> NetNs:
    try:
        made = NetNs(label)
    except (OSError, NetlinkError) as error:
        raise Refusal(
            "failed",
            f"a network namespace cannot be made: {error}",
            "`chamelio demo` needs none; in a container, allow CAP_SYS_ADMIN",
        ) from None

    def remove() -> None:
        with uninterrupted():
            made.remove()

    stack.callback(remove)
    return made


class AgainstLinux(Demo):
    """Red serves Linux, Linux serves blue, and the kernel keeps what is its own."""

    def __init__(self, where: Scene, say: Say) -> None:
        super().__init__(where.stage, say, ADDRESSES)
        self._linux = where.linux
        self._kernel_echo, self._kernel_load = (
            str(build_program(C_SOURCES / f"{name}.c", C_SOURCES / "kernel_app.c")) for name in ("echo", "load")
        )

    def pings(self) -> None:
        """Linux pings a tenant, and the kernel on the same interface."""
        red, kernel = (statistics.median(ping(self._linux, address, PINGS)) for address in (ADDRESSES[RED], KERNEL))
        self.facts["ping_us"] = {RED: red, "kernel": kernel}
        self.say(f"linux pings {RED}: {red:.0f} us; the kernel on the same interface still answers, too: {kernel:.0f} us")

    def linux_server(self) -> None:
        """An echo server of Linux."""
        self.stage.start(self._kernel_echo, "-", str(PORT), inside=self._linux)
        self.say(f"linux serves echo on {LINUX}:{PORT}")

    def linux_client(self, server: str, *options: str) -> None:
        """A load generator of Linux, to the end."""
        command = (self._kernel_load, "-", server, str(PORT), *self.load_options(*options))
        self.generators["linux"] = self.stage.start(*command, ready=False, inside=self._linux)


def perform(where: Scene, say: Say, show: Show) -> dict[str, Any]:
    """Both directions at once, and a swap while requests are under way."""
    demo = AgainstLinux(where, say)
    demo.join(RED, server=True)
    demo.pings()
    demo.join(BLUE, server=False)
    demo.linux_server()
    todo = (
        (0.0, lambda: demo.linux_client(ADDRESSES[RED], "--outstanding", "16")),
        (0.0, lambda: demo.client(BLUE, LINUX, "--outstanding", "16")),
        (SWAP_AT_S, demo.swap),
    )
    demo.play(END_AT_S, todo, show)
    return demo.finish()


def run(*, json: bool = False) -> int:
    """`chamelio demo --real`; the exit status. Raises Refusal."""
    if os.geteuid() != 0:
        raise Refusal(
            "needs_root",
            "the demo against Linux makes network namespaces and an AF_XDP socket, which only root may",
            "run it as root, as in `sudo chamelio demo --real`; `chamelio demo` shows tenants among themselves and needs no root",
        )
    return present(scene, perform, json=json)
