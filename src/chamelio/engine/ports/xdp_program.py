"""The XDP program that tells tenants' packets from the kernel's, and its way on and off an interface.

ARP whose target address is claimed, and IPv4 whose destination is, go to the AF_XDP socket of the queue they came in by;
everything else goes on to the kernel, also when no socket listens on that queue. The program hangs on a BPF link: when
its owner ends, however it ends, the kernel detaches it. What an owner without links has left behind is told by its name.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import struct

from pyroute2 import IPRoute

from chamelio.engine.ports import kernel_bpf
from chamelio.engine.ports.kernel_bpf import BpfError, Map
from chamelio.engine.ports.port import PortError

PROGRAM_NAME = "chamelio_xdp"
MAX_ADDRESSES = 65536
MAX_QUEUES = 64

_PASS = 28  # slot of the way out
_ARP, _IPV4 = 0x0608, 0x0008  # EtherTypes as a little-endian load sees them


def instructions(addresses_fd: int, sockets_fd: int) -> bytes:
    """The program as the kernel loads it, with the descriptors of its two maps in place."""
    code = [
        # op  dst src off imm
        (0xBF, 6, 1, 0, 0),  #  0  r6 = ctx
        (0x61, 2, 1, 0, 0),  #  1  r2 = ctx->data
        (0x61, 3, 1, 4, 0),  #  2  r3 = ctx->data_end
        (0xBF, 4, 2, 0, 0),  #  3  r4 = r2
        (0x07, 4, 0, 0, 34),  #  4  r4 += 34, Ethernet and IPv4 headers
        (0x2D, 4, 3, _PASS - 6, 0),  #  5  if r4 > r3 goto pass
        (0x69, 5, 2, 12, 0),  #  6  r5 = EtherType
        (0x15, 5, 0, 14 - 8, _IPV4),  #  7  if r5 == IPv4 goto 14
        (0x55, 5, 0, _PASS - 9, _ARP),  #  8  if r5 != ARP goto pass
        (0xBF, 4, 2, 0, 0),  #  9  r4 = r2
        (0x07, 4, 0, 0, 42),  # 10  r4 += 42
        (0x2D, 4, 3, _PASS - 12, 0),  # 11  if r4 > r3 goto pass
        (0x61, 5, 2, 38, 0),  # 12  r5 = target address
        (0x05, 0, 0, 1, 0),  # 13  goto 15
        (0x61, 5, 2, 30, 0),  # 14  r5 = destination address
        (0x63, 10, 5, -4, 0),  # 15  key = r5
        (0x18, 1, 1, 0, addresses_fd),  # 16  r1 = addresses
        (0, 0, 0, 0, 0),
        (0xBF, 2, 10, 0, 0),  # 18  r2 = &key
        (0x07, 2, 0, 0, -4),  # 19
        (0x85, 0, 0, 0, 1),  # 20  call bpf_map_lookup_elem
        (0x15, 0, 0, _PASS - 22, 0),  # 21  if r0 == 0 goto pass
        (0x18, 1, 1, 0, sockets_fd),  # 22  r1 = sockets
        (0, 0, 0, 0, 0),
        (0x61, 2, 6, 16, 0),  # 24  r2 = ctx->rx_queue_index
        (0xB7, 3, 0, 0, 2),  # 25  r3 = XDP_PASS, if there is no socket
        (0x85, 0, 0, 0, 51),  # 26  call bpf_redirect_map
        (0x95, 0, 0, 0, 0),  # 27  exit
        (0xB7, 0, 0, 0, 2),  # 28  pass: r0 = XDP_PASS
        (0x95, 0, 0, 0, 0),  # 29  exit
    ]
    return b"".join(struct.pack("<BBhi", op, dst | src << 4, off, imm) for op, dst, src, off, imm in code)


class XdpProgram:
    """The program on one interface of the calling thread's network namespace. `mode` is "drv" or "skb"."""

    def __init__(self, interface: str, ifindex: int, mode: str = "auto") -> None:
        self._owned = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._owned.close)
            try:
                self._addresses = Map.create(kernel_bpf.MAP_TYPE_HASH, 4, 4, MAX_ADDRESSES, "addresses")
                self._owned.callback(self._addresses.close)
                self._sockets = Map.create(kernel_bpf.MAP_TYPE_XSKMAP, 4, 4, MAX_QUEUES, "sockets")
                self._owned.callback(self._sockets.close)
                program = kernel_bpf.load_xdp(instructions(self._addresses.fd, self._sockets.fd), PROGRAM_NAME)
                self._owned.callback(os.close, program)
            except BpfError as error:
                raise PortError(_not_loaded(interface, error)) from None
            remove_left_behind(ifindex)
            self.mode = self._attach(interface, ifindex, program, ("drv", "skb") if mode == "auto" else (mode,))
            undo.pop_all()

    def _attach(self, interface: str, ifindex: int, program: int, modes: tuple[str, ...]) -> str:
        reasons = []
        for mode in modes:
            try:
                self._owned.callback(os.close, kernel_bpf.link_xdp(program, ifindex, mode))
                return mode
            except BpfError as error:
                if error.errno in (errno.EBUSY, errno.EEXIST):
                    raise PortError(_busy(interface, ifindex)) from None
                reasons.append(f"{mode}: {error.strerror}")
        raise PortError(
            f"interface '{interface}' takes no XDP program ({'; '.join(reasons)}); a smaller MTU (at most 3500 on veth) "
            "or mode=skb may help"
        )

    def listen(self, queue: int, socket_fd: int) -> None:
        """Packets for claimed addresses that come in by this queue go to this socket."""
        self._sockets.update(queue.to_bytes(4, "little"), socket_fd.to_bytes(4, "little"))

    def claim(self, address: ipaddress.IPv4Address) -> None:
        """Take packets for this address away from the kernel. Raises PortError when there are too many."""
        try:
            self._addresses.update(address.packed, b"\1\0\0\0")
        except BpfError as error:
            raise PortError(f"address {address}: {error.strerror}; at most {MAX_ADDRESSES} fit") from None

    def release(self, address: ipaddress.IPv4Address) -> None:
        """Give packets for this address back to the kernel."""
        try:
            self._addresses.delete(address.packed)
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def close(self) -> None:
        """Detach and free."""
        self._owned.close()


def attached(ifindex: int) -> tuple[int, str] | None:
    """Number and name of the XDP program on an interface of this namespace; None if there is none."""
    with IPRoute() as route:
        for message in route.get_links(ifindex):
            xdp = message.get_attr("IFLA_XDP")
            number = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None
            if number:
                try:
                    return number, kernel_bpf.program_name(number)
                except OSError:  # gone meanwhile
                    return None
    return None


def remove_left_behind(ifindex: int) -> bool:
    """Detach a program of ours that hangs on the interface without a link: whoever attached it so has gone.

    A program that a living engine holds by its link is not removed; the kernel refuses. True if something was removed.
    """
    found = attached(ifindex)
    if not found or found[1] != PROGRAM_NAME:
        return False
    with IPRoute() as route, contextlib.suppress(Exception):
        route.link("set", index=ifindex, xdp_fd=-1)
    return attached(ifindex) is None


def _not_loaded(interface: str, error: BpfError) -> str:
    if error.errno == errno.EPERM:
        return f"interface '{interface}': no permission for bpf(2); AF_XDP needs root or CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW"
    return f"interface '{interface}': the kernel refuses the XDP program: {error.strerror}\n{error.log}".rstrip()


def _busy(interface: str, ifindex: int) -> str:
    found = attached(ifindex)
    what = f"program '{found[1]}' (number {found[0]})" if found else "another program"
    return f"interface '{interface}' already has the XDP {what}: stop its owner, or `ip link set dev {interface} xdp off`"
