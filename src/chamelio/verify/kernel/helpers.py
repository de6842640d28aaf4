"""The kernel's helpers that XDP, tc and socket filter programs call: arguments, results, and which program type has which.

Argument kinds are those of `catalogue.Arg`. Prices are classes, not measurements: nothing here ever runs.
"""

from __future__ import annotations

from dataclasses import replace

from chamelio.verify.catalogue import Arg, Cost, Helper
from chamelio.verify.kernel import maps as m
from chamelio.verify.kernel.names import helper_names

_QUICK, _MAP, _COPY, _HEAVY = Cost(30, 0, 2), Cost(100, 0, 8), Cost(100, 16, 8, 128), Cost(1000, 64, 40, 128)

_CTX = Arg("ctx", "ctx")
_FLAGS = Arg("flags", "scalar")
_SIZE, _SIZE_OR_ZERO = Arg("size", "size"), Arg("size", "size_or_zero")
_KEY = Arg("key", "key")
_SOCK = Arg("sk", "sock")
_CALLBACK, _CALLBACK_CTX = Arg("callback", "callback"), Arg("callback_ctx", "stack_or_null")
_WALKED = Arg("map", "map", m.WALKED)
_RINGBUF = Arg("ringbuf", "map", (m.RINGBUF,))
_EVENTS = Arg("map", "map", (m.PERF_EVENT_ARRAY,))
_CGROUPS = Arg("map", "map", (m.CGROUP_ARRAY,))
_QUEUES, _QUEUES_AND_FILTERS = (m.QUEUE, m.STACK), (m.QUEUE, m.STACK, m.BLOOM_FILTER)

IPV4_HEADER, IPV6_HEADER, TCP_HEADER = 20, 40, 20


def _num(name: str) -> Arg:
    return Arg(name, "scalar")


def _nums(*names: str) -> tuple[Arg, ...]:
    return tuple(_num(name) for name in names)


def _read(name: str, size: int = 0, nullable: bool = False) -> Arg:
    return Arg(name, "read", size=size, nullable=nullable)


def _write(name: str, size: int = 0, nullable: bool = False) -> Arg:
    return Arg(name, "write", size=size, nullable=nullable)


def _map(*kinds: int) -> Arg:
    return Arg("map", "map", kinds)


_NUMBERS = {name: number for number, name in helper_names.items()}


def _helper(
    name: str, *args: Arg, ret: str = "scalar", cost: Cost = _MAP, ends_packet: bool = False, acquires: bool = False,
    releases: int | None = None,
) -> Helper:  # fmt: skip
    sizes = [register for register, arg in enumerate(args, 1) if arg.kind in ("size", "size_or_zero")]
    return Helper(
        _NUMBERS[name], f"bpf_{name}", args, ret, cost, "", "a negative error" if ret == "scalar" else "", ends_packet,
        length_arg=sizes[-1] if sizes and cost.per_line else None, acquires=acquires, releases=releases,
    )  # fmt: skip


_BASE = (
    _helper("map_lookup_elem", _map(*m.LOOKED_UP), _KEY, ret="map_value_or_null"),
    _helper("map_update_elem", _map(*m.UPDATED), _KEY, Arg("value", "value"), _FLAGS),
    _helper("map_delete_elem", _map(*m.DELETED), _KEY),
    _helper("map_push_elem", _map(*_QUEUES_AND_FILTERS), Arg("value", "value"), _FLAGS),
    _helper("map_pop_elem", _map(*_QUEUES), Arg("value", "value_out")),
    _helper("map_peek_elem", _map(*_QUEUES_AND_FILTERS), Arg("value", "value_out")),
    _helper("map_lookup_percpu_elem", _map(*m.PER_CPU), _KEY, _num("cpu"), ret="map_value_or_null"),
    _helper("for_each_map_elem", _WALKED, _CALLBACK, _CALLBACK_CTX, _FLAGS),
    _helper("loop", _num("nr_loops"), _CALLBACK, _CALLBACK_CTX, _FLAGS),
    _helper("tail_call", _CTX, _map(m.PROG_ARRAY), _num("index"), ret="void", ends_packet=True),
    _helper("ktime_get_ns", cost=_QUICK),
    _helper("ktime_get_boot_ns", cost=_QUICK),
    _helper("ktime_get_coarse_ns", cost=_QUICK),
    _helper("ktime_get_tai_ns", cost=_QUICK),
    _helper("jiffies64", cost=_QUICK),
    _helper("get_prandom_u32", cost=_QUICK),
    _helper("get_smp_processor_id", cost=_QUICK),
    _helper("get_numa_node_id", cost=_QUICK),
    _helper("get_current_pid_tgid", cost=_QUICK),
    _helper("get_current_uid_gid", cost=_QUICK),
    _helper("get_current_comm", _write("buf"), _SIZE, cost=_COPY),
    _helper("get_current_task", cost=_QUICK),
    _helper("get_current_cgroup_id", cost=_QUICK),
    _helper("get_current_ancestor_cgroup_id", _num("level"), cost=_QUICK),
    _helper("get_cgroup_classid", cost=_QUICK),
    _helper("get_ns_current_pid_tgid", *_nums("dev", "ino"), _write("nsdata"), _SIZE, cost=_COPY),
    _helper("current_task_under_cgroup", _CGROUPS, _num("index")),
    _helper("send_signal", _num("sig")),
    _helper("send_signal_thread", _num("sig")),
    _helper("trace_printk", _read("fmt"), _SIZE, cost=_HEAVY),
    _helper("trace_vprintk", _read("fmt"), _SIZE, _read("data", nullable=True), _SIZE_OR_ZERO, cost=_HEAVY),
    _helper("snprintf", _write("str", nullable=True), _SIZE_OR_ZERO, Arg("fmt", "text"), _read("data", nullable=True),
            _SIZE_OR_ZERO, cost=_HEAVY),
    _helper("snprintf_btf", _write("str"), _SIZE, _read("ptr"), _SIZE, _FLAGS, cost=_HEAVY),
    _helper("strncmp", _read("s1"), _SIZE, Arg("s2", "text"), cost=_COPY),
    _helper("strtol", _read("buf"), _SIZE, _FLAGS, _write("res", 8), cost=_COPY),
    _helper("strtoul", _read("buf"), _SIZE, _FLAGS, _write("res", 8), cost=_COPY),
    _helper("perf_event_read", _EVENTS, _FLAGS),
    _helper("perf_event_read_value", _EVENTS, _FLAGS, _write("buf"), _SIZE, cost=_COPY),
    _helper("perf_event_output", _CTX, _EVENTS, _FLAGS, _read("data"), _SIZE_OR_ZERO, cost=_COPY),
    _helper("ringbuf_output", _RINGBUF, _read("data"), _SIZE_OR_ZERO, _FLAGS, cost=_COPY),
    _helper("ringbuf_reserve", _RINGBUF, Arg("size", "constant"), _FLAGS, ret="allocated_or_null", acquires=True),
    _helper("ringbuf_submit", Arg("data", "allocated"), _FLAGS, ret="void", releases=1),
    _helper("ringbuf_discard", Arg("data", "allocated"), _FLAGS, ret="void", releases=1),
    _helper("ringbuf_query", _RINGBUF, _FLAGS),
    *(_helper(f"probe_read_{what}", _write("dst"), _SIZE_OR_ZERO, _num("unsafe_ptr"), cost=_COPY)
      for what in ("user", "kernel", "user_str", "kernel_str")),
    _helper("get_branch_snapshot", _write("entries"), _SIZE_OR_ZERO, cost=_COPY),
)  # fmt: skip

_TUPLE = _CTX, _read("tuple"), _SIZE_OR_ZERO, *_nums("netns", "flags")
_HEADERS = _SOCK, _read("iph"), _SIZE, _read("th"), Arg("th_len", "size")

_NETWORK = (
    # what several of the program types have
    _helper("skb_load_bytes", _CTX, _num("offset"), _write("to"), _SIZE, cost=_COPY),
    _helper("skb_load_bytes_relative", _CTX, _num("offset"), _write("to"), _SIZE, _num("start_header"), cost=_COPY),
    _helper("skb_store_bytes", _CTX, _num("offset"), _read("from"), _SIZE, _FLAGS, cost=_COPY, ends_packet=True),
    _helper("l3_csum_replace", _CTX, *_nums("offset", "from", "to", "flags"), ends_packet=True),
    _helper("l4_csum_replace", _CTX, *_nums("offset", "from", "to", "flags"), ends_packet=True),
    _helper("csum_diff", _read("from", nullable=True), Arg("from_size", "size_or_zero"), _read("to", nullable=True),
            Arg("to_size", "size_or_zero"), _num("seed"), cost=_COPY),
    _helper("csum_update", _CTX, _num("csum")),
    _helper("csum_level", _CTX, _num("level")),
    _helper("skb_vlan_push", _CTX, *_nums("proto", "tci"), cost=_HEAVY, ends_packet=True),
    _helper("skb_vlan_pop", _CTX, cost=_HEAVY, ends_packet=True),
    _helper("skb_change_proto", _CTX, *_nums("proto", "flags"), cost=_HEAVY, ends_packet=True),
    _helper("skb_change_type", _CTX, _num("type")),
    _helper("skb_change_tail", _CTX, *_nums("len", "flags"), cost=_HEAVY, ends_packet=True),
    _helper("skb_change_head", _CTX, *_nums("len", "flags"), cost=_HEAVY, ends_packet=True),
    _helper("skb_pull_data", _CTX, _num("len"), cost=_HEAVY, ends_packet=True),
    _helper("skb_adjust_room", _CTX, *_nums("len_diff", "mode", "flags"), cost=_HEAVY, ends_packet=True),
    _helper("skb_set_tstamp", _CTX, *_nums("tstamp", "type")),
    _helper("skb_ecn_set_ce", _CTX),
    _helper("clone_redirect", _CTX, *_nums("ifindex", "flags"), cost=_HEAVY, ends_packet=True),
    _helper("redirect", *_nums("ifindex", "flags")),
    _helper("redirect_peer", *_nums("ifindex", "flags")),
    _helper("redirect_neigh", _num("ifindex"), _read("params", nullable=True), _SIZE_OR_ZERO, _FLAGS),
    _helper("redirect_map", _map(m.DEVMAP, m.DEVMAP_HASH, m.CPUMAP, m.XSKMAP), *_nums("key", "flags")),
    _helper("skb_get_tunnel_key", _CTX, _write("to"), _SIZE, _FLAGS, cost=_COPY),
    _helper("skb_set_tunnel_key", _CTX, _read("from"), _SIZE, _FLAGS, cost=_COPY),
    _helper("skb_get_tunnel_opt", _CTX, _write("to"), _SIZE, cost=_COPY),
    _helper("skb_set_tunnel_opt", _CTX, _read("from"), _SIZE, cost=_COPY),
    _helper("skb_get_xfrm_state", _CTX, _num("index"), _write("to"), _SIZE, _FLAGS, cost=_COPY),
    _helper("get_route_realm", _CTX),
    _helper("get_hash_recalc", _CTX),
    _helper("set_hash_invalid", _CTX),
    _helper("set_hash", _CTX, _num("hash")),
    _helper("skb_under_cgroup", _CTX, _CGROUPS, _num("index")),
    _helper("skb_cgroup_classid", _CTX),
    _helper("skb_cgroup_id", _CTX),
    _helper("skb_ancestor_cgroup_id", _CTX, _num("level")),
    _helper("get_socket_cookie", _CTX),
    _helper("get_socket_uid", _CTX),
    _helper("get_netns_cookie", replace(_CTX, nullable=True)),
    _helper("fib_lookup", _CTX, Arg("params", "read_write"), _SIZE, _FLAGS, cost=_HEAVY),
    _helper("check_mtu", _CTX, _num("ifindex"), Arg("mtu_len", "read_write", size=4), *_nums("len_diff", "flags")),
    _helper("lwt_push_encap", _CTX, _num("type"), _read("hdr"), _SIZE, cost=_HEAVY, ends_packet=True),
    # XDP
    _helper("xdp_adjust_head", _CTX, _num("delta"), ends_packet=True),
    _helper("xdp_adjust_meta", _CTX, _num("delta"), ends_packet=True),
    _helper("xdp_adjust_tail", _CTX, _num("delta"), ends_packet=True),
    _helper("xdp_get_buff_len", _CTX, cost=_QUICK),
    _helper("xdp_load_bytes", _CTX, _num("offset"), _write("buf"), _SIZE, cost=_COPY),
    _helper("xdp_store_bytes", _CTX, _num("offset"), _read("buf"), _SIZE, cost=_COPY),
    # sockets
    _helper("sk_lookup_tcp", *_TUPLE, ret="sock_or_null", cost=_HEAVY, acquires=True),
    _helper("sk_lookup_udp", *_TUPLE, ret="sock_or_null", cost=_HEAVY, acquires=True),
    _helper("skc_lookup_tcp", *_TUPLE, ret="sock_common_or_null", cost=_HEAVY, acquires=True),
    _helper("sk_release", _SOCK, releases=1),
    _helper("sk_fullsock", _SOCK, ret="sock_or_null"),
    _helper("tcp_sock", _SOCK, ret="tcp_sock_or_null"),
    _helper("get_listener_sock", _SOCK, ret="sock_or_null"),
    _helper("sk_assign", _CTX, _SOCK, _FLAGS),
    _helper("sk_storage_get", _map(m.SK_STORAGE), _SOCK, Arg("value", "value", nullable=True), _FLAGS, ret="map_value_or_null"),
    _helper("sk_storage_delete", _map(m.SK_STORAGE), _SOCK),
    _helper("sk_redirect_map", _CTX, _map(m.SOCKMAP), *_nums("key", "flags")),
    _helper("sk_redirect_hash", _CTX, _map(m.SOCKHASH), _KEY, _FLAGS),
    _helper("tcp_check_syncookie", *_HEADERS, cost=_HEAVY),
    _helper("tcp_gen_syncookie", *_HEADERS, cost=_HEAVY),
    _helper("tcp_raw_gen_syncookie_ipv4", _read("iph", IPV4_HEADER), _read("th"), _SIZE_OR_ZERO, cost=_HEAVY),
    _helper("tcp_raw_gen_syncookie_ipv6", _read("iph", IPV6_HEADER), _read("th"), _SIZE_OR_ZERO, cost=_HEAVY),
    _helper("tcp_raw_check_syncookie_ipv4", _read("iph", IPV4_HEADER), _read("th", TCP_HEADER), cost=_HEAVY),
    _helper("tcp_raw_check_syncookie_ipv6", _read("iph", IPV6_HEADER), _read("th", TCP_HEADER), cost=_HEAVY),
)  # fmt: skip

#: Helpers that exist for these program types, but whose use is not understood here: number -> what it is about.
UNSUPPORTED: dict[int, str] = {
    _NUMBERS[name]: what
    for what, names in {
        "locks in map values": "spin_lock spin_unlock",
        "timers": "timer_init timer_set_callback timer_start timer_cancel",
        "pointers in map values": "kptr_xchg",
        "dynamic pointers": "dynptr_from_mem dynptr_read dynptr_write dynptr_data ringbuf_reserve_dynptr ringbuf_submit_dynptr "
        "ringbuf_discard_dynptr",
        "a ring that user space writes": "user_ringbuf_drain",
        "the kernel's own structures": "skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock "
        "skc_to_udp6_sock skc_to_unix_sock skc_to_mptcp_sock get_current_task_btf get_task_stack task_pt_regs find_vma",
        "the kernel's own variables": "per_cpu_ptr this_cpu_ptr",
        "storage of tasks and cgroups": "task_storage_get task_storage_delete cgrp_storage_get cgrp_storage_delete "
        "get_local_storage",
        "programs that can sleep": "copy_from_user copy_from_user_task",
    }.items()
    for name in names.split()
}

_ALL = {h.name.removeprefix("bpf_"): h for h in _BASE + _NETWORK}
_SOCKET_INFO = "get_socket_cookie get_socket_uid"
_SOCKET_LOOKUP = "sk_lookup_tcp sk_lookup_udp skc_lookup_tcp sk_release"
_SYN_COOKIES = (
    "tcp_check_syncookie tcp_gen_syncookie tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 "
    "tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6"
)
_LWT = "skb_load_bytes skb_pull_data csum_diff get_cgroup_classid get_route_realm get_hash_recalc skb_under_cgroup"

#: What each context has beyond what all have.
_OWN = {
    "socket_filter": f"skb_load_bytes skb_load_bytes_relative {_SOCKET_INFO} get_netns_cookie",
    "xdp_md": "csum_diff xdp_adjust_head xdp_adjust_meta xdp_adjust_tail xdp_get_buff_len xdp_load_bytes xdp_store_bytes redirect "
    f"redirect_map fib_lookup check_mtu {_SOCKET_LOOKUP} {_SYN_COOKIES}",
    "__sk_buff": f"{_LWT} skb_store_bytes skb_load_bytes_relative l3_csum_replace l4_csum_replace csum_update csum_level "
    "skb_vlan_push skb_vlan_pop skb_change_proto skb_change_type skb_change_tail skb_change_head skb_adjust_room skb_set_tstamp "
    "skb_ecn_set_ce clone_redirect redirect redirect_peer redirect_neigh skb_get_tunnel_key skb_set_tunnel_key "
    "skb_get_tunnel_opt skb_set_tunnel_opt skb_get_xfrm_state set_hash_invalid set_hash skb_cgroup_classid skb_cgroup_id "
    f"skb_ancestor_cgroup_id {_SOCKET_INFO} get_netns_cookie fib_lookup check_mtu {_SOCKET_LOOKUP} sk_fullsock tcp_sock "
    f"get_listener_sock sk_assign sk_storage_get sk_storage_delete {_SYN_COOKIES}",
    "lwt_xmit": f"{_LWT} skb_store_bytes l3_csum_replace l4_csum_replace csum_update csum_level skb_change_tail skb_change_head "
    "clone_redirect redirect skb_get_tunnel_key skb_set_tunnel_key skb_get_tunnel_opt skb_set_tunnel_opt set_hash_invalid "
    "lwt_push_encap",
    "sk_skb": f"skb_load_bytes skb_store_bytes skb_pull_data skb_change_tail skb_change_head skb_adjust_room {_SOCKET_INFO} "
    f"{_SOCKET_LOOKUP} sk_redirect_map sk_redirect_hash",
}


def _of(context: str) -> dict[int, Helper]:
    found = {h.id: h for h in _BASE} | {_ALL[name].id: _ALL[name] for name in _OWN[context].split()}
    if "get_cgroup_classid" in _OWN[context].split():  # of the packet's socket here, else of the current task
        found[_NUMBERS["get_cgroup_classid"]] = _helper("get_cgroup_classid", _CTX, cost=_QUICK)
    if context == "sk_skb":  # runs on the sockets of such maps, and must not change them
        found[_NUMBERS["map_delete_elem"]] = _helper(
            "map_delete_elem", _map(*(kind for kind in m.DELETED if kind not in m.OF_SOCKETS)), _KEY
        )
    return found


#: Context -> number -> helper.
HELPERS: dict[str, dict[int, Helper]] = {context: _of(context) for context in _OWN}

_PACKET_ACCESS = (
    "map_lookup_elem map_update_elem map_delete_elem map_push_elem map_lookup_percpu_elem csum_diff sk_lookup_tcp sk_lookup_udp "
    f"skc_lookup_tcp {_SYN_COOKIES}"
)

#: Helpers whose arguments in memory can lie in the packet.
PACKET_ACCESS = frozenset(_NUMBERS[name] for name in _PACKET_ACCESS.split())

#: Helpers that change what a map holds.
CHANGES_MAP = frozenset(_NUMBERS[f"map_{what}_elem"] for what in ("update", "delete", "push", "pop"))
