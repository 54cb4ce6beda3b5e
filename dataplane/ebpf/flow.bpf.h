// dataplane/ebpf/flow.bpf.h - the flow map as programs use it: its key, whose packet this is, how a connection ends.
//
//   room->packet --[make_key]--> flows --> told once (ring buffer), counted, ended
#pragma once
#include "dataplane/ebpf/maps.bpf.h"
#include "dataplane/ebpf/packet.bpf.h"
#include "dataplane/ebpf/verdict.bpf.h"

/* What two ends exchange, as one of its packets has it. Of ICMP: the id in both ports, type << 8 | code. */
struct exchange {
  __u16 source_port, destination_port, icmp;
  __u8 protocol, family;
};

/* room->key. The side of the sender: 1 is key.high. Echoes of both sides with one id are two exchanges, as are an
   echo and a timestamp: the key has what `low` sends. */
static __always_inline __u32 make_key(struct room* room, const __u8* source, const __u8* destination,
                                      struct exchange of) {
  struct tl_flow_key* key = &room->key;
  __builtin_memset(key, 0, sizeof *key);
  const __u64 *a = (const __u64*)source, *b = (const __u64*)destination;
  int swap = a[0] != b[0] ? a[0] > b[0] : a[1] != b[1] ? a[1] > b[1] : of.source_port > of.destination_port;
  __builtin_memcpy(key->low, swap ? destination : source, 16);
  __builtin_memcpy(key->high, swap ? source : destination, 16);
  key->low_port = swap ? of.destination_port : of.source_port;
  key->high_port = swap ? of.source_port : of.destination_port;
  key->protocol = of.protocol;
  key->family = of.family;
  key->place = (__u8)room->place;
  if (is_icmp(of.protocol)) {
    const __u32 type = of.icmp >> 8;
    key->icmp_type = (__u8)(swap ? counterpart(of.protocol, type) : type);
    key->icmp_code = (__u8)of.icmp;
  }
  return swap ? 1 : 0;
}

/* Its own function: the stacks of all callers together are small. */
__noinline int tl_key_of_packet(void) {
  struct room* room = room_of();
  if (!room) return 0;
  const struct packet* packet = &room->packet;
  const int by_id = packet->kind == KIND_ICMP;
  const struct exchange of = {by_id ? packet->icmp_id : packet->source_port,
                              by_id ? packet->icmp_id : packet->destination_port,
                              (__u16)(packet->icmp_type << 8 | packet->icmp_code), packet->protocol, packet->family};
  return (int)make_key(room, packet->source, packet->destination, of);
}

static __always_inline int is_complete(const struct tl_flow* flow) {
  return (flow->allowed & flow->needed) == flow->needed && !flow->cut;
}

/* The connection that an ICMP error is about, by the packet it carries. 1: it is known, and counted there. */
__noinline int tl_related(struct __sk_buff* skb, __u32 out) {
  struct room* room = room_of();
  if (!room) return 0;
  __u8* inner = room->buffer;
  __u32 at = room->packet.l4 + 8, protocol, ports;
  __u8 *source, *destination;
  struct tl_flow_key* scratch = &room->key;
  if (room->packet.family == 4) {
    if (bpf_skb_load_bytes(skb, at, inner, 20)) return 0;
    protocol = inner[9];
    ports = at + (inner[0] & 15u) * 4;
    __builtin_memset(room->fragment_key.source, 0, 32);
    __builtin_memcpy(room->fragment_key.source, inner + 12, 4);
    __builtin_memcpy(room->fragment_key.destination, inner + 16, 4);
  } else {
    if (bpf_skb_load_bytes(skb, at, inner, 40)) return 0;
    protocol = inner[6];
    ports = at + 40;
    __builtin_memcpy(room->fragment_key.source, inner + 8, 16);
    __builtin_memcpy(room->fragment_key.destination, inner + 24, 16);
  }
  source = room->fragment_key.source;
  destination = room->fragment_key.destination;
  /* It goes to who sent what it is about; to others it would be a message of its own. */
  if (!same16(source, room->packet.destination)) return 0;
  struct exchange of = {0, 0, 0, (__u8)protocol, room->packet.family};
  if (has_ports(protocol)) {
    if (bpf_skb_load_bytes(skb, ports, inner, 4)) return 0;
    of.source_port = (__u16)(inner[0] << 8 | inner[1]);
    of.destination_port = (__u16)(inner[2] << 8 | inner[3]);
  } else if (is_icmp(protocol)) {
    if (bpf_skb_load_bytes(skb, ports, inner, 8)) return 0;
    if (!asks_for_answer(protocol, inner[0]) && !is_answer(protocol, inner[0])) return 0;
    of.source_port = of.destination_port = (__u16)(inner[4] << 8 | inner[5]);
    of.icmp = (__u16)(inner[0] << 8 | inner[1]);
  }
  __u32 side = make_key(room, source, destination, of);
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, scratch);
  if (!flow || !is_complete(flow)) return 0;
  /* The error goes to who sent the packet: it counts as the other side's. */
  __u32 by = side == flow->high_begins ? 1 : 0;
  if (!room->place && (flow->needed & TL_BIT_EGRESS) && (by != 0) == (out != 0)) return 1; /* counted at the originator's */
  __sync_fetch_and_add(&flow->packets[by], 1);
  __sync_fetch_and_add(&flow->bytes[by], room->packet.length);
  return 1;
}

/* Puts the tuple the way its originator sent it, or back. */
static __always_inline void turn(struct packet* packet) {
  __u64 *a = (__u64*)packet->source, *b = (__u64*)packet->destination, first = a[0], second = a[1];
  a[0] = b[0];
  a[1] = b[1];
  b[0] = first;
  b[1] = second;
  __u16 port = packet->source_port;
  packet->source_port = packet->destination_port;
  packet->destination_port = port;
  if (packet->kind == KIND_ICMP) packet->icmp_type = (__u8)counterpart(packet->protocol, packet->icmp_type);
}

static __always_inline void account(struct tl_flow* flow, struct packet* packet, __u32 reply,
                                    __u32 at_originator) {
  if ((flow->needed & TL_BIT_EGRESS) && !at_originator) return;
  reply &= 1;
  __sync_fetch_and_add(&flow->packets[reply], 1);
  __sync_fetch_and_add(&flow->bytes[reply], packet->length);
  flow->last = bpf_ktime_get_ns();
  const __u8 seen = packet->protocol == IPPROTO_TCP ? packet->tcp_flags : TL_SPOKE;
  if ((flow->tcp[reply] | seen) != flow->tcp[reply]) flow->tcp[reply] |= seen;
}

/* The same ports begin another connection: what was ends. */
__noinline int tl_end_flow(void) {
  struct room* room = room_of();
  if (!room) return 0;
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!flow) return 0;
  if (flow->told) {
    struct tl_ended* ended = bpf_ringbuf_reserve(&events, sizeof *ended, 0);
    if (ended) {
      ended->time = now_of(room);
      ended->kind = TL_EVENT_ENDED;
      ended->spare = 0;
      __builtin_memcpy(&ended->key, &room->key, sizeof ended->key);
      __builtin_memcpy(&ended->flow, flow, sizeof ended->flow);
      bpf_ringbuf_submit(ended, 0);
    } else {
      lose(TL_LOSS_RING);
    }
  }
  bpf_map_delete_elem(&flows, &room->key);
  return 0;
}

/* Both ends agreed: told once, of each end that is judged here and allowed it: not of one that only audit let go. */
__noinline int tl_tell_allowed(struct __sk_buff* skb) {
  struct room* room = room_of();
  if (!room) return 0;
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!flow || flow->told || !is_complete(flow)) return 0;
  flow->told = 1;
  const __u32 egress = flow->rules[TL_EGRESS], ingress = flow->rules[TL_INGRESS];
  if ((flow->needed & TL_BIT_EGRESS) && egress) tl_tell(skb, TL_EVENT_ALLOWED, egress);
  if ((flow->needed & TL_BIT_INGRESS) && ingress) tl_tell(skb, TL_EVENT_ALLOWED, ingress);
  return 0;
}

/* What a map before this one has of a connection. One that began in both meanwhile was counted in both. */
static __always_inline int merge_flow(struct tl_merged* merged) {
  const struct tl_flow* more = &merged->flow.value;
  if (merged->is_new) {
    const long failed = bpf_map_update_elem(&flows, &merged->flow.key, more, BPF_NOEXIST);
    return !failed || failed == -17;
  }
  struct tl_flow* known = bpf_map_lookup_elem(&flows, &merged->flow.key);
  if (!known) return 1; /* it ended meanwhile */
  for (int side = 0; side < 2; side++) {
    __sync_fetch_and_add(&known->packets[side], more->packets[side]);
    __sync_fetch_and_add(&known->bytes[side], more->bytes[side]);
    known->tcp[side] |= more->tcp[side];
  }
  if (known->last < more->last) known->last = more->last;
  if (more->told) known->told = 1;
  return 1;
}

static __always_inline int merge_denied(struct tl_merged* merged) {
  const struct tl_denied* more = &merged->denied.value;
  for (int attempt = 0; attempt < 2; attempt++) {
    struct tl_denied* known = bpf_map_lookup_elem(&denied, &merged->denied.key);
    if (known) {
      __sync_fetch_and_add(&known->packets, more->packets);
      __sync_fetch_and_add(&known->bytes, more->bytes);
      if (known->last < more->last) known->last = more->last;
      return 1;
    }
    const long failed = bpf_map_update_elem(&denied, &merged->denied.key, more, BPF_NOEXIST);
    if (!failed) return 1;
    if (failed != -17) return 0;
  }
  return 0;
}

#define MISSED_FOR 300000000000ull

/* A connection's beginning, whatever a scanner calls one. */
static __always_inline int is_first_syn(const struct packet* packet) {
  return (packet->tcp_flags & (SYN | ACK | FIN | RST)) == SYN;
}

/* Whether what belongs to no connection may be of one that was not noted: for so long after there was no room, or
   after the first start; then only of TCP, which tells by itself that it goes on. */
static __always_inline int may_go_on(const struct packet* packet, const struct tl_config* settings) {
  struct room* room = room_of();
  if (!room) return 0;
  const __u64 now = now_of(room);
  const int tcp = packet->protocol == IPPROTO_TCP;
  if (tcp && !(packet->tcp_flags & ACK)) return 0;
  if (settings->flows_missed_at && now - settings->flows_missed_at < MISSED_FOR) return 1;
  return tcp && now < settings->older_until;
}

/* Denied at a hook where it was allowed before. Its first packet is told by itself: what let it come here counted it
   when the connection began. */
__noinline int tl_deny_living(struct __sk_buff* skb, __u32 rule, __u32 slot) {
  struct room* room = room_of();
  if (!room) return DROP;
  count(slot, room->packet.length);
  tl_tell(skb, TL_EVENT_DENIED | IN_CONNECTION, rule);
  return DROP;
}
