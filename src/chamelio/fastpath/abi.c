/* One variable of every type that Python lays out. Compiled for its type information only (engine/abi.py). */
#include "control.h"
#include "core.h"
#include "handover.h"
#include "pool.h"
#include "port_wire.h"
#include "port_xdp.h"
#include "port_tap.h"
#include "port_fault.h"
#include "port_pcap.h"

struct cham_core abi_core;
struct cham_counters abi_counters;
struct cham_instance abi_instance;
struct cham_unit abi_unit;
struct cham_port abi_port;
struct cham_frame abi_frame;
struct cham_map abi_map;
struct cham_raw abi_raw;
struct hash_bucket abi_bucket;
struct wheel abi_wheel;
struct pool abi_pool;
struct pool_node abi_pool_node;
struct cham_place abi_place;
struct wheel_node abi_node;
struct ring_shared abi_ring_shared;
struct cham_turn abi_turn;
struct cham_handover abi_handover;
enum cham_steer abi_steer;
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
enum cham_price abi_price;
enum cham_limit abi_limit;
struct cham_xdp abi_xdp;
struct cham_tap abi_tap;
struct cham_fault abi_fault;
struct cham_pcap abi_pcap;
