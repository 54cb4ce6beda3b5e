// dataplane/ebpf/verdict.bpf.h - what a verdict leaves behind: counters, denied flows, events.
//
//   rule, room->packet --> counters (per CPU), denied (by flow), events (ring buffer) --> backend.h, events.h
#pragma once
#include "dataplane/ebpf/maps.bpf.h"
#include "dataplane/ebpf/packet.bpf.h"

#define ALLOW TC_ACT_UNSPEC
#define DROP TC_ACT_SHOT
#define SYN 2
#define ACK 16
#define FIN 1
#define RST 4

/* Reserved rules, as in base/ids.h; ingress and egress. */
static __always_inline __u32 by_direction(__u32 direction, __u32 ingress) {
  return direction == TL_INGRESS ? ingress : ingress + 1;
}
enum {
  RULE_HOST = 5,
  RULE_MID_STREAM = 7,
  RULE_NO_VERDICT = 9,
  RULE_SELF = 13,
  RULE_CUT = 17,
  RULE_INVALID = 19,
  RULE_FAILSAFE = 27,
  RULE_FRAGMENT = 31,
  RULE_BACKENDS_DIFFER = 35,
  RULE_SOURCE_REWRITTEN = 33
};

static __always_inline void count(__u32 slot, __u32 length) {
  struct tl_counter* counter = bpf_map_lookup_elem(&counters, &slot);
  if (!counter) return;
  counter->packets += 1;
  counter->bytes += length;
}

/* Beside the kind. */
#define IN_CONNECTION 0x100u

/* One verdict to user space. */
__noinline int tl_tell(struct __sk_buff* skb, __u32 kind, __u32 rule) {
  struct room* room = room_of();
  if (!room) return 0;
  struct tl_event* event = bpf_ringbuf_reserve(&events, sizeof *event, 0);
  if (!event) {
    lose(TL_LOSS_RING);
    return 0;
  }
  const struct packet* packet = &room->packet;
  event->time = now_of(room);
  event->kind = kind & ~IN_CONNECTION;
  event->in_connection = kind & IN_CONNECTION ? 1 : 0;
  event->alone = room->is_alone;
  event->rule = rule;
  event->length = packet->length;
  event->in_interface = skb->ingress_ifindex;
  event->out_interface = skb->ifindex;
  event->source_port = packet->source_port;
  event->destination_port = packet->destination_port;
  event->icmp_id = packet->icmp_id;
  __builtin_memcpy(event->source, packet->source, 16);
  __builtin_memcpy(event->destination, packet->destination, 16);
  event->protocol = packet->protocol;
  event->family = packet->family;
  event->icmp_type = packet->icmp_type;
  event->icmp_code = packet->icmp_code;
  event->tcp_flags = packet->tcp_flags;
  event->is_service = packet->is_service;
  event->service_port = room->service_key.port;
  __builtin_memcpy(event->service, room->service_key.address, 16);
  bpf_ringbuf_submit(event, 0);
  return 1;
}

/* Counts the packet on its denied flow (or flow of log messages); 1: it is to be told. 2: no room. */
__noinline int tl_aggregate(__u32 kind, __u32 rule) {
  struct room* room = room_of();
  __u32 zero = 0;
  struct tl_config* settings = bpf_map_lookup_elem(&config, &zero);
  if (!room || !settings) return 0;
  const struct packet* packet = &room->packet;
  struct tl_denied_key* key = &room->denied_key;
  __builtin_memset(key, 0, sizeof *key);
  __builtin_memcpy(key->source, packet->source, 16);
  __builtin_memcpy(key->destination, packet->destination, 16);
  key->rule = rule;
  key->port = packet->kind == KIND_ICMP ? (__u16)(packet->icmp_type << 8 | packet->icmp_code)
                                        : packet->destination_port;
  key->protocol = packet->protocol;
  key->family = packet->family;
  key->kind = (__u8)kind;
  key->alone = kind == TL_ENTRY_DENIED ? room->is_alone : 0;
  const __u64 now = now_of(room);
  const __u64 interval = kind == TL_ENTRY_LOGGED ? settings->log_interval : settings->deny_interval;
  for (int attempt = 0; attempt < 2; attempt++) {
    struct tl_denied* known = bpf_map_lookup_elem(&denied, key);
    if (known) {
      __sync_fetch_and_add(&known->packets, 1);
      __sync_fetch_and_add(&known->bytes, packet->length);
      known->last = now;
      /* Another CPU may have told of it since this packet looked at the clock. */
      if ((__s64)(now - known->told) < (__s64)interval) return 0;
      known->told = now;
      return 1;
    }
    room->denied_value.packets = 1;
    room->denied_value.bytes = packet->length;
    room->denied_value.last = now;
    room->denied_value.told = now;
    long failed = bpf_map_update_elem(&denied, key, &room->denied_value, BPF_NOEXIST);
    if (!failed) return 1;
    if (failed != -17) break; /* EEXIST: another CPU was first */
  }
  return 2;
}

/* One message for all that finds no room, each 10 ms: the counter says how many there were. */
#define OVERFLOW_EVERY 10000000ull

static __always_inline void tell_overflow(struct __sk_buff* skb, __u32 rule) {
  __u32 zero = 0;
  struct tl_config* settings = bpf_map_lookup_elem(&config, &zero);
  const __u64 now = bpf_ktime_get_ns();
  if (!settings || now - settings->overflow_told_at < OVERFLOW_EVERY) return;
  settings->overflow_told_at = now;
  tl_tell(skb, TL_EVENT_OVERFLOW, rule);
}

/* Denied by `rule`. The verdict: an audited endpoint's packets go on. */
__noinline int tl_deny(struct __sk_buff* skb, __u32 rule, __u32 slot, __u32 audited) {
  struct room* room = room_of();
  if (!room) return DROP;
  count(slot, room->packet.length);
  int told = tl_aggregate(TL_ENTRY_DENIED, rule);
  if (told == 2) {
    lose(TL_LOSS_DENIED_FULL);
    tell_overflow(skb, rule);
  } else if (told) {
    tl_tell(skb, TL_EVENT_DENIED, rule);
  }
  return audited ? ALLOW : DROP;
}

/* A frame that no record can describe: not IP, tagged, or too short for its addresses. */
static __always_inline int refuse_frame(__u32 rule, __u32 audited) {
  struct tl_counter* counter = bpf_map_lookup_elem(&counters, &rule);
  if (counter) {
    counter->packets += 1;
    counter->frames += 1;
  }
  return audited ? ALLOW : DROP;
}

/* Whether one more message of this Log rule may go. Two CPUs at once may let one too many go. */
static __always_inline int may_tell(__u32 slot) {
  struct tl_log_limit* limit = bpf_map_lookup_elem(&log_limits, &slot);
  if (!limit) return 1;
  const __u64 now = bpf_ktime_get_ns();
  __u64 paid = limit->paid_until;
  if (paid < now) paid = now;
  if (paid - now > limit->depth) return 0;
  limit->paid_until = paid + limit->cost;
  return 1;
}

/* Passing and Log rules on the way. */
__noinline int tl_count_way(struct __sk_buff* skb) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  for (__u32 i = 0; i < TL_PASSES; i++) {
    if (i >= room->pass_count) break;
    count(load32(base, (__u64)room->rules + room->passes[i] * 16 + 4), room->packet.length);
  }
  if (room->log_count > TL_LOGS) lose(TL_LOSS_LOGS);
  for (__u32 i = 0; i < TL_LOGS; i++) {
    if (i >= room->log_count) break;
    __u64 at = (__u64)room->rules + room->logs[i] * 16;
    __u32 rule = load32(base, at), slot = load32(base, at + 4);
    count(slot, room->packet.length);
    if (tl_aggregate(TL_ENTRY_LOGGED, rule) != 1 || !may_tell(slot)) continue;
    struct tl_counter* counter = bpf_map_lookup_elem(&counters, &slot);
    if (counter && tl_tell(skb, TL_EVENT_LOGGED, rule)) counter->messages += 1;
  }
  return 0;
}
