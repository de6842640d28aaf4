"""Ports to the world outside: opened from a text such as `pcap(/tmp/a.pcapng):fault(loss=1%):afxdp:eth1`.

port = open_port("wire:w0:a,network=1")
port.ops_symbol, port.state_address        what the C side needs; inner ports first, see `Port.chain`
port.refresh()                             once a second; "up", or why not
port.close()                               when no core runs it any more
"""

from __future__ import annotations

from chamelio.engine.ports.afxdp import AfXdpPort
from chamelio.engine.ports.fault import FaultPort
from chamelio.engine.ports.pcap import PcapPort
from chamelio.engine.ports.port import Port, PortError, Wrapper
from chamelio.engine.ports.spec import KINDS, PortSpec, parse
from chamelio.engine.ports.tap import TapPort
from chamelio.engine.ports.wire import WireMemory, WirePeer, WirePort

__all__ = [
    "KINDS",
    "AfXdpPort",
    "FaultPort",
    "PcapPort",
    "Port",
    "PortError",
    "PortSpec",
    "TapPort",
    "WireMemory",
    "WirePeer",
    "WirePort",
    "Wrapper",
    "open_port",
    "parse",
]


def open_port(spec: str | PortSpec) -> Port:
    """Open what the text describes, from the inside out. Raises PortError; nothing stays open then."""
    if isinstance(spec, str):
        spec = parse(spec)
    if spec.inner is not None:
        inner = open_port(spec.inner)
        try:
            return FaultPort(spec, inner) if spec.kind == "fault" else PcapPort(spec, inner)
        except BaseException:
            inner.close()
            raise
    if spec.kind == "afxdp":
        return AfXdpPort(spec)
    if spec.kind == "tap":
        return TapPort(spec)
    return WirePort(spec)
