"""The kernel's kinds of maps (`enum bpf_map_type` of linux/bpf.h), and what programs can do with each."""

from __future__ import annotations

from dataclasses import dataclass

(
    HASH, ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_HASH, PERCPU_ARRAY, STACK_TRACE, CGROUP_ARRAY, LRU_HASH,
    LRU_PERCPU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS, DEVMAP, SOCKMAP, CPUMAP, XSKMAP, SOCKHASH, CGROUP_STORAGE,
    REUSEPORT_SOCKARRAY, PERCPU_CGROUP_STORAGE, QUEUE, STACK, SK_STORAGE, DEVMAP_HASH, STRUCT_OPS, RINGBUF, INODE_STORAGE,
    TASK_STORAGE, BLOOM_FILTER, USER_RINGBUF, CGRP_STORAGE, ARENA,
) = range(1, 34)  # fmt: skip


@dataclass(frozen=True)
class KernelMap:
    """One kind.

    `lookup`: what an element is to a program that looks one up: "value", the address of its bytes; "map", an inner map;
    "sock", a socket that must be released; "xsk", an AF_XDP socket; "", nothing: it cannot be looked up. `writable`: those
    bytes can be stored to. `update`, `delete`: programs can. `unsupported`: why programs that use such a map are refused.
    """

    kind: int
    name: str
    lookup: str = ""
    update: bool = False
    delete: bool = False
    writable: bool = True
    unsupported: str = ""


def _plain(kind: int, name: str) -> KernelMap:
    return KernelMap(kind, name, "value", update=True, delete=True)


#: All kinds by number. Deleting from an array is an error at run time, not a fault. The kernel lets programs put sockets into
#: maps of sockets, too; here they cannot.
MAPS: dict[int, KernelMap] = {
    m.kind: m
    for m in (
        _plain(HASH, "hash"),
        _plain(ARRAY, "array"),
        KernelMap(PROG_ARRAY, "prog_array"),
        KernelMap(PERF_EVENT_ARRAY, "perf_event_array"),
        _plain(PERCPU_HASH, "percpu_hash"),
        _plain(PERCPU_ARRAY, "percpu_array"),
        KernelMap(STACK_TRACE, "stack_trace", unsupported="stack traces"),
        KernelMap(CGROUP_ARRAY, "cgroup_array"),
        _plain(LRU_HASH, "lru_hash"),
        _plain(LRU_PERCPU_HASH, "lru_percpu_hash"),
        _plain(LPM_TRIE, "lpm_trie"),
        KernelMap(ARRAY_OF_MAPS, "array_of_maps", "map"),
        KernelMap(HASH_OF_MAPS, "hash_of_maps", "map"),
        KernelMap(DEVMAP, "devmap", "value", writable=False),
        KernelMap(SOCKMAP, "sockmap", "sock", delete=True),
        KernelMap(CPUMAP, "cpumap"),
        KernelMap(XSKMAP, "xskmap", "xsk"),
        KernelMap(SOCKHASH, "sockhash", "sock", delete=True),
        KernelMap(CGROUP_STORAGE, "cgroup_storage", unsupported="storage of a cgroup"),
        KernelMap(REUSEPORT_SOCKARRAY, "reuseport_sockarray"),
        KernelMap(PERCPU_CGROUP_STORAGE, "percpu_cgroup_storage", unsupported="storage of a cgroup"),
        KernelMap(QUEUE, "queue"),
        KernelMap(STACK, "stack"),
        KernelMap(SK_STORAGE, "sk_storage"),
        KernelMap(DEVMAP_HASH, "devmap_hash", "value", writable=False),
        KernelMap(STRUCT_OPS, "struct_ops", unsupported="operations that BPF implements for the kernel"),
        KernelMap(RINGBUF, "ringbuf"),
        KernelMap(INODE_STORAGE, "inode_storage", unsupported="storage of an inode"),
        KernelMap(TASK_STORAGE, "task_storage", unsupported="storage of a task"),
        KernelMap(BLOOM_FILTER, "bloom_filter"),
        KernelMap(USER_RINGBUF, "user_ringbuf", unsupported="a ring that user space writes"),
        KernelMap(CGRP_STORAGE, "cgrp_storage", unsupported="storage of a cgroup"),
        KernelMap(ARENA, "arena", unsupported="memory shared by addresses"),
    )
}

LOOKED_UP = tuple(m.kind for m in MAPS.values() if m.lookup)
UPDATED = tuple(m.kind for m in MAPS.values() if m.update)
DELETED = tuple(m.kind for m in MAPS.values() if m.delete)
OF_SOCKETS = (SOCKMAP, SOCKHASH)
PER_CPU = (PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH)
WALKED = (HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH)  # by for_each_map_elem
