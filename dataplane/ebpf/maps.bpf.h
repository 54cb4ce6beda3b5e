// dataplane/ebpf/maps.bpf.h - the maps of the programs and the room they work in.
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "dataplane/ebpf/layout.h"

struct segment {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(key_size, 4);
  __uint(value_size, TL_SEGMENT_SIZE);
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, TL_SEGMENTS);
  __type(key, __u32);
  __array(values, struct segment);
} segments SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct tl_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 262144);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct tl_flow_key);
  __type(value, struct tl_flow);
} flows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct tl_denied_key);
  __type(value, struct tl_denied);
} denied SEC(".maps");

/* Written by user space. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, TL_SERVICES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct tl_service_key);
  __type(value, struct tl_service);
} services SEC(".maps");

/* By slot of a Log rule; written by user space. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, TL_SLOTS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u32);
  __type(value, struct tl_log_limit);
} log_limits SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, TL_ORIGINS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u32);
  __type(value, struct tl_origin_of);
} origins SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 8192);
  __type(key, struct tl_fragment_key);
  __type(value, struct tl_fragment);
} fragments SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, TL_SLOTS);
  __type(key, __u32);
  __type(value, struct tl_counter);
} counters SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, TL_SLOTS);
  __type(key, __u32);
  __type(value, struct tl_slot);
} slots SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 2 * TL_LOSSES);
  __type(key, __u32);
  __type(value, __u64);
} losses SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, TL_RING_BYTES);
} events SEC(".maps");

struct cache_key {
  __u32 generation, source, destination;
  __u32 source_port, destination_port, protocol; /* rows */
};
struct cached {
  __u32 result; /* position */
  __u16 pass_count, log_count;
  __u32 passes[TL_CACHED], logs[TL_CACHED];
};
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 131072);
  __type(key, struct cache_key);
  __type(value, struct cached);
} tuples SEC(".maps");

enum { KIND_PORTS, KIND_ICMP, KIND_OTHER, KIND_FRAGMENT };

struct packet {
  __u8 source[16], destination[16];
  __u16 source_port, destination_port;
  __u16 icmp_id, ether_type;
  __u8 protocol, family, kind, icmp_type;
  __u8 icmp_code, tcp_flags, is_reply, is_rewritten;
  __u8 is_service, one_backend; /* addressed to a Service: room->service_key; `destination` is its only backend */
  __u8 spare[2];
  __u32 l4; /* offset in the frame; 0: none */
  __u32 length;
};

/* One packet's room: a program is never interrupted by itself on its CPU. */
struct room {
  struct packet packet;
  struct tl_flow_key key;
  __u32 head; /* bytes before the IP header: Ethernet's, or none */
  __u8 buffer[64];
  __u32 place; /* TL_AT_… */
  __u64 now; /* now_of() */
  __u8 is_alone; /* what let it leave its source has another entry: told by itself */
  /* What is asked. */
  __u32 klass;
  __u32 source, destination; /* identities: offsets in the addresses' segment */
  __u16 source_flags, destination_flags;
  __u32 source_number, destination_number;
  __u32 protocol_row, source_port_row, destination_port_row;
  __u32 any_source, any_destination, any_source_port, any_destination_port;
  __u32 in_count[2], not_count[2]; /* [0] source, [1] destination */
  __u32 in_rows[2][TL_SETS], not_rows[2][TL_SETS];
  /* Where the walk is. */
  __u32 tiers, tier, tier_count, rules, word_best, uses_source_port;
  __u32 is_log_phase, summary, word_end, log_word_index;
  __u64 words, log_bits;
  __u32 best, best_position;
  /* What came of it: positions. */
  __u32 result, pass_count, log_count, cached;
  __u32 passes[TL_PASSES], logs[TL_LOGS];
  struct tl_rule rule;
  struct tl_service_key service_key; /* where packet.is_service */
  /* What is being remembered of the packet. */
  struct tl_flow flow;
  struct bpf_fib_lookup route;
  struct tl_origin_of origin;
  struct tl_merged merged;
  struct tl_denied_key denied_key;
  struct tl_denied denied_value;
  struct tl_fragment_key fragment_key;
  struct tl_fragment fragment;
  struct cache_key cache_key;
  struct cached cached_value;
};
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct room);
} rooms SEC(".maps");

static __always_inline struct room* room_of(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&rooms, &zero);
}

/* CLOCK_MONOTONIC, the same for all that is noted of one packet: asking the clock costs more than noting. */
static __always_inline __u64 now_of(struct room* room) {
  if (!room->now) room->now = bpf_ktime_get_ns();
  return room->now;
}

static __always_inline char* segment_of(__u32 reference) {
  __u32 index = reference >> TL_SEGMENT_BITS, zero = 0;
  void* inner = bpf_map_lookup_elem(&segments, &index);
  return inner ? bpf_map_lookup_elem(inner, &zero) : 0;
}

/* The compiler must not move the mask away from its load, or the verifier refuses it. */
#define HOLD(value) asm volatile("" : "+r"(value))

static __always_inline __u64 load64(char* base, __u64 offset) {
  HOLD(offset);
  offset &= (TL_SEGMENT_SIZE - 1) & ~7u;
  HOLD(offset);
  return *(__u64*)(base + offset);
}
static __always_inline __u32 load32(char* base, __u64 offset) {
  HOLD(offset);
  offset &= (TL_SEGMENT_SIZE - 1) & ~3u;
  HOLD(offset);
  return *(__u32*)(base + offset);
}
static __always_inline __u32 load16(char* base, __u64 offset) {
  HOLD(offset);
  offset &= (TL_SEGMENT_SIZE - 1) & ~1u;
  HOLD(offset);
  return *(__u16*)(base + offset);
}
#define FIELD(base, reference, type, member) \
  load32(base, (__u64)(reference) + __builtin_offsetof(type, member))

static __always_inline void lose(__u32 cause) {
  __u64* lost = bpf_map_lookup_elem(&losses, &cause);
  if (lost) *lost += 1;
}
