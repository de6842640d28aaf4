"""What r1 points to in kernel-style programs: `struct xdp_md` and `struct __sk_buff` (linux/bpf.h), as each type sees them."""

from __future__ import annotations

import re
from dataclasses import replace

from chamelio.verify.catalogue import Context, CtxField
from chamelio.verify.kernel.helpers import HELPERS

PACKET_MAX = 0xFFFF  # the kernel proves no byte beyond

_XDP_MD = (
    CtxField("data", 0, 4, "packet", "first byte of the frame"),
    CtxField("data_end", 4, 4, "packet_end", "one past its last byte"),
    CtxField("data_meta", 8, 4, "packet_meta", "first byte of the metadata before the frame"),
    CtxField("ingress_ifindex", 12, 4, "scalar", "interface that it came in by"),
    CtxField("rx_queue_index", 16, 4, "scalar", "queue that it came in by"),
)
_EGRESS = CtxField("egress_ifindex", 20, 4, "scalar", "interface that it goes out by")


def _number(name: str, offset: int, size: int = 4) -> CtxField:
    return CtxField(name, offset, size, "scalar", narrow=True)


def _row(name: str, offset: int, count: int) -> tuple[CtxField, ...]:
    """An array of words that can only be read whole."""
    return tuple(CtxField(f"{name}[{i}]", offset + 4 * i, 4, "scalar") for i in range(count))


_SK_BUFF = {
    f.name: f
    for f in (
        *(_number(name, 4 * i) for i, name in enumerate(("len", "pkt_type", "mark", "queue_mapping", "protocol", "vlan_present",
          "vlan_tci", "vlan_proto", "priority", "ingress_ifindex", "ifindex", "tc_index"))),
        # five words of the program's own, of which the kernel takes aligned pairs as one, too
        _number("cb[0..1]", 48, 8), _number("cb[2..3]", 56, 8), _number("cb[4]", 64),
        _number("hash", 68), _number("tc_classid", 72),
        CtxField("data", 76, 4, "packet", "first byte of the packet"),
        CtxField("data_end", 80, 4, "packet_end", "one past the last byte that can be accessed"),
        _number("napi_id", 84), _number("family", 88),
        CtxField("remote_ip4", 92, 4, "scalar"), CtxField("local_ip4", 96, 4, "scalar"),
        *_row("remote_ip6", 100, 4), *_row("local_ip6", 116, 4),
        _number("remote_port", 132), _number("local_port", 136),
        CtxField("data_meta", 140, 4, "packet_meta", "first byte of the metadata before the packet"),
        CtxField("tstamp", 152, 8, "scalar"), _number("wire_len", 160), _number("gso_segs", 164),
        CtxField("sk", 168, 8, "sock_common_or_null", "the socket that it belongs to"),
        _number("gso_size", 176), CtxField("tstamp_type", 180, 1, "scalar"), CtxField("hwtstamp", 184, 8, "scalar"),
    )
}  # fmt: skip
_CB = ("cb[0..1]", "cb[2..3]", "cb[4]")
_ADDRESSES = (
    "family", "remote_ip4", "local_ip4", *(f"{side}_ip6[{i}]" for side in ("remote", "local") for i in range(4)), "remote_port",
    "local_port",
)  # fmt: skip
_TC_ONLY = ("tc_classid", "data_meta", "tstamp", "wire_len", "tstamp_type", "hwtstamp")


def _sk_buff(name: str, sections: tuple[str, ...], hidden: tuple[str, ...], writable: tuple[str, ...]) -> Context:
    """`struct __sk_buff` of one program type. Of what can be written only `cb` can be in parts."""
    fields = tuple(
        replace(f, writable=f.name in writable, narrow_stores=f.name in _CB and f.name in writable)
        for f in _SK_BUFF.values()
        if f.name not in hidden
    )
    return Context(name, 192, fields, (name,), PACKET_MAX, HELPERS[name], sections)


CONTEXTS: dict[str, Context] = {
    c.name: c
    for c in (
        Context("xdp_md", 24, _XDP_MD, ("xdp",), PACKET_MAX, HELPERS["xdp_md"], ("xdp",)),
        Context("xdp_devmap", 24, (*_XDP_MD, _EGRESS), ("xdp",), PACKET_MAX, HELPERS["xdp_md"],
                ("xdp/devmap", "xdp_devmap", "xdp.frags/devmap")),
        _sk_buff("__sk_buff", ("tc", "tcx", "classifier", "cls", "action", "act", "ingress", "egress"), _ADDRESSES,
                 ("mark", "queue_mapping", "priority", "tc_index", *_CB, "tc_classid", "tstamp")),
        _sk_buff("socket_filter", ("socket", "socket_filter"), (*_ADDRESSES, *_TC_ONLY, "data", "data_end"), _CB),
        _sk_buff("lwt_xmit", ("lwt_xmit",), (*_ADDRESSES, *_TC_ONLY), ("mark", "priority", *_CB)),
        _sk_buff("sk_skb", ("sk_skb",), ("mark", *_TC_ONLY), ("priority", "tc_index")),
    )
}  # fmt: skip

_SOCK_COMMON = (
    CtxField("bound_dev_if", 0, 4, "scalar"), _number("family", 4), _number("src_ip4", 24),
    *(_number(f"src_ip6[{i}]", 28 + 4 * i) for i in range(4)), _number("src_port", 44), _number("dst_port", 48),
    _number("dst_ip4", 52), *(_number(f"dst_ip6[{i}]", 56 + 4 * i) for i in range(4)), _number("state", 72),
    _number("rx_queue_mapping", 76),
)  # fmt: skip
_FULL_SOCK = (
    *_SOCK_COMMON, _number("type", 8), _number("protocol", 12), CtxField("mark", 16, 4, "scalar"),
    CtxField("priority", 20, 4, "scalar"),
)  # fmt: skip
_TCP_WORDS = (
    "snd_cwnd", "srtt_us", "rtt_min", "snd_ssthresh", "rcv_nxt", "snd_nxt", "snd_una", "mss_cache", "ecn_flags",
    "rate_delivered", "rate_interval_us", "packets_out", "retrans_out", "total_retrans", "segs_in", "data_segs_in", "segs_out",
    "data_segs_out", "lost_out", "sacked_out",
)  # fmt: skip
_TCP_SOCK = (
    *(CtxField(name, 4 * i, 4, "scalar") for i, name in enumerate(_TCP_WORDS)),
    CtxField("bytes_received", 80, 8, "scalar"), CtxField("bytes_acked", 88, 8, "scalar"),
    *(CtxField(name, 96 + 4 * i, 4, "scalar")
      for i, name in enumerate(("dsack_dups", "delivered", "delivered_ce", "icsk_retransmits"))),
)  # fmt: skip

#: Fields of the sockets that programs get addresses of, by kind of address; all can only be read.
SOCKETS: dict[str, Context] = {
    c.name: c
    for c in (
        Context("sock_common", 80, _SOCK_COMMON, (), 0),
        Context("sock", 80, _FULL_SOCK, (), 0),
        Context("tcp_sock", 112, _TCP_SOCK, (), 0),
        Context("xsk", 4, (CtxField("queue_id", 0, 4, "scalar"),), (), 0),
    )
}

_BY_SECTION = sorted(((s, c) for c in CONTEXTS.values() for s in c.sections), key=lambda item: -len(item[0]))


def context_of(section: str) -> Context | None:
    """The context of a section: the longest name of one that its name begins with and then goes on with no letter."""
    for prefix, context in _BY_SECTION:
        if re.match(rf"\??{re.escape(prefix)}(?![A-Za-z])", section):
            return context
    return None
