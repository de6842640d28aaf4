/* One variable of every type that Python lays out. Compiled for its type information only (engine/abi.py). */
#include "control.h"
#include "core.h"
#include "port_wire.h"
#if __has_include("port_xdp.h")
#include "port_xdp.h"
#endif
#if __has_include("port_tap.h")
#include "port_tap.h"
#endif
#if __has_include("port_fault.h")
#include "port_fault.h"
#endif
#if __has_include("port_pcap.h")
#include "port_pcap.h"
#endif

struct cham_core abi_core;
struct cham_frame abi_frame;
struct cham_map abi_map;
struct cham_raw abi_raw;
struct hash_bucket abi_bucket;
struct wheel abi_wheel;
struct wheel_node abi_node;
struct ring_shared abi_ring_shared;
struct cham_turn abi_turn;
struct cham_wire abi_wire;
struct wire_ring abi_wire_ring;
enum cham_drop abi_drop;
enum cham_event abi_event;
enum cham_hook abi_hook;
enum cham_instance_state abi_instance_state;
enum cham_neighbour_state abi_neighbour_state;
enum cham_port_state abi_port_state;
enum cham_op abi_op;
enum cham_status abi_status;
#ifdef CHAM_PORT_XDP_H
struct cham_xdp abi_xdp;
#endif
#ifdef CHAM_PORT_TAP_H
struct cham_tap abi_tap;
#endif
#ifdef CHAM_PORT_FAULT_H
struct cham_fault abi_fault;
#endif
#ifdef CHAM_PORT_PCAP_H
struct cham_pcap abi_pcap;
#endif
