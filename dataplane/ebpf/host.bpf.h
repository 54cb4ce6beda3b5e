// dataplane/ebpf/host.bpf.h - the node's own interfaces: policies of host endpoints, and who sent what is forwarded.
//
//   comes in:  doNotTrack -> known? -> preDNAT -> the node's own: failsafe, policies / forwarded: applyOnForward
//   goes out:  doNotTrack (the node's own) -> known? -> the same two
//
// All of it at one hook, before the kernel tracks or translates anything: whether a packet is for the node itself, its
// routes tell, or the Services, whose addresses lead to backends. A packet that leaves has its source rewritten already;
// whose it is, it carries (decide.bpf.h).
#pragma once
#include "dataplane/ebpf/decide.bpf.h"
#include "dataplane/ebpf/flow.bpf.h"

/* Whose list; by source port; the other end is the destination. */
#define FAILSAFE_OUT 1
#define FAILSAFE_ANSWERS 2
#define FAILSAFE_TO 4

__noinline int tl_is_failsafe(__u32 root, __u32 how) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  const struct packet* packet = &room->packet;
  if (packet->kind != KIND_PORTS) return 0;
  const __u32 first = how & FAILSAFE_OUT ? FIELD(base, root, struct tl_root, failsafe_in) : 0;
  const __u32 count = how & FAILSAFE_OUT ? FIELD(base, root, struct tl_root, failsafe_out)
                                         : FIELD(base, root, struct tl_root, failsafe_in);
  __u64 at = (__u64)FIELD(base, root, struct tl_root, failsafes) + first * sizeof(struct tl_failsafe);
  const __u32 port = how & FAILSAFE_ANSWERS ? packet->source_port : packet->destination_port;
  const __u64* other = (const __u64*)(how & FAILSAFE_TO ? packet->destination : packet->source);
  for (__u32 i = 0; i < TL_FAILSAFES; i++, at += sizeof(struct tl_failsafe)) {
    if (i >= count) break;
    const __u32 what = load32(base, at + 32); /* port, protocol, family */
    if ((what & 0xffff) != port || ((what >> 16) & 0xff) != packet->protocol) continue;
    const __u32 family = what >> 24;
    if (!family) return 1;
    if (family == packet->family && (other[0] & load64(base, at + 16)) == load64(base, at) &&
        (other[1] & load64(base, at + 24)) == load64(base, at + 8))
      return 1;
  }
  return 0;
}

/* What a class that leaves the rest to others says. 1: it decides, by room->rule. */
__noinline int tl_host_early(struct __sk_buff* skb, __u32 root, __u32 klass) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  room->klass = klass;
  room->pass_count = room->log_count = 0;
  if (!tl_classify(FIELD(base, root, struct tl_root, addresses))) return 0;
  tl_count_way(skb);
  return room->rule.action == TL_ALLOW || room->rule.action == TL_DENY;
}

/* In `how`: it only passes; asked as the answer to the packet. */
#define FORWARDED 1u

/* Who decides about room->packet, sent as its originator sends it, at the host endpoint at `offset`. 0: nobody. */
__noinline int tl_host_decide(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction, __u32 how) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return 0;
  direction &= 1;
  const __u32 addresses = FIELD(base, root, struct tl_root, addresses);
  const __u32 ingress = direction == TL_INGRESS;
  const int failsafe = tl_is_failsafe(root, ingress ? 0 : FAILSAFE_OUT | FAILSAFE_TO);
  tl_find_identity(addresses, 0);
  tl_find_identity(addresses, 1);
  if (ingress && !failsafe && end->host.pre_dnat && tl_host_early(skb, root, end->host.pre_dnat)) return 1;
  room->pass_count = room->log_count = 0;
  room->rule.action = TL_ALLOW;
  if (!(how & FORWARDED) && failsafe) {
    room->rule.id = room->rule.slot = by_direction(direction, RULE_FAILSAFE);
    return 1;
  }
  room->klass = how & FORWARDED ? end->host.forward[direction] : end->classes[direction];
  if (!room->klass) {
    room->rule.id = room->rule.slot = 0;
    return 1;
  }
  struct packet* packet = &room->packet;
  /* Sources are rewritten behind policies, and before this hook. */
  if (!ingress && (how & FORWARDED) && !packet->is_rewritten && !packet->is_reply) {
    const int carried = skb->tc_index & TL_CARRIES;
    const __u32 sender = carried ? 0 : (__u32)tl_origin(skb, root);
    struct tl_endpoint* origin = sender ? endpoint_at(base, sender) : 0;
    const int rewritten = carried || (origin ? !is_own(origin, packet->source, packet->family)
                                             : tl_is_own_address(skb, 0));
    if (rewritten && !tl_restore_source(skb, root)) {
      deny_by(room, RULE_SOURCE_REWRITTEN);
      return 1;
    }
    if (rewritten) tl_find_identity(addresses, 0);
  }
  if (!classify_at_backends(root, end, ingress && (how & FORWARDED))) return 0;
  tl_count_way(skb);
  return 1;
}

/* Notes what was allowed. In `side`: who begins, and as in `how`. */
#define HOST_FORWARDED 2u
#define HOST_SILENT 4u
__noinline int tl_begin_host_flow(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction, __u32 side) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return 0;
  direction &= 1;
  const __u8 bit = (__u8)(1 << direction);
  struct tl_flow* known = bpf_map_lookup_elem(&flows, &room->key);
  if (known) {
    /* It came in by another interface of the node. */
    known->rules[direction] = side & HOST_SILENT ? 0 : room->rule.id;
    known->generations[direction] = end->generations[direction];
    known->epochs[direction] = FIELD(base, root, struct tl_root, address_epoch);
    known->judged_at[direction] = (__u16)skb->ifindex;
    known->needed |= bit;
    known->allowed |= bit;
    return 1;
  }
  struct tl_flow* flow = &room->flow;
  __builtin_memset(flow, 0, sizeof *flow);
  flow->packets[0] = 1;
  flow->bytes[0] = room->packet.length;
  flow->first = flow->last = now_of(room);
  flow->rules[direction] = side & HOST_SILENT ? 0 : room->rule.id;
  flow->generations[direction] = end->generations[direction];
  flow->epochs[direction] = FIELD(base, root, struct tl_root, address_epoch);
  flow->judged_at[direction] = (__u16)skb->ifindex;
  flow->high_begins = side & 1;
  flow->forwarded = side & HOST_FORWARDED ? 1 : 0;
  flow->needed = flow->allowed = bit;
  flow->tcp[0] = room->packet.tcp_flags;
  if (room->packet.is_rewritten) __builtin_memcpy(flow->real_source, room->packet.source, 16);
  const int tells = !(side & (HOST_FORWARDED | HOST_SILENT));
  flow->told = tells ? 1 : 0;
  const long failed = bpf_map_update_elem(&flows, &room->key, flow, BPF_NOEXIST);
  if (failed && failed != -17) {
    struct tl_config* settings = settings_of();
    lose(TL_LOSS_FLOW_FULL);
    if (settings) settings->flows_missed_at = flow->first;
  }
  if (tells) tl_tell(skb, TL_EVENT_ALLOWED, room->rule.id);
  return 1;
}

/* Of no connection and beginning none: an ICMP message that asks nothing, a fragment of something unknown. */
static __always_inline int host_stateless(struct __sk_buff* skb, struct room* room, __u32 direction, __u32 forwarded,
                                          __u32 audited) {
  if (room->rule.action != TL_ALLOW) {
    __u32 rule = room->rule.id, slot = room->rule.slot;
    if (room->packet.kind == KIND_FRAGMENT) rule = slot = by_direction(direction, RULE_FRAGMENT);
    return tl_deny(skb, rule, slot, audited);
  }
  if (forwarded) return ALLOW;
  count(room->rule.slot, room->packet.length);
  if (tl_aggregate(TL_ENTRY_DENIED, 0) == 1) tl_tell(skb, TL_EVENT_STATELESS, 0);
  return ALLOW;
}

/* To a group, or to everybody on the link: the node gets it, whatever routes say, which are not asked. */
static __always_inline int is_for_many(const struct packet* packet) {
  const __u32 to = *(const __u32*)packet->destination;
  if (packet->family == 6) return packet->destination[0] == 0xff;
  return (packet->destination[0] & 0xf0) == 0xe0 || to == 0xffffffff || !to;
}

/* A packet of no connection that is known here. `side`: of its sender, in the key. */
__noinline int tl_host_first(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction, __u32 side) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  const struct tl_config* settings = settings_of();
  if (!end || !settings) return DROP;
  direction &= 1;
  struct packet* packet = &room->packet;
  const __u32 audited = end->flags & TL_AUDITED;
  __u32 how = 0;
  if (direction == TL_EGRESS ? skb->ingress_ifindex != 0
                             : find_service(room) || (!is_for_many(packet) && !tl_is_own_address(skb, 1)))
    how = FORWARDED;
  const __u32 notes = (side & 1) | (how ? HOST_FORWARDED : 0);
  const int no_connection =
      packet->kind == KIND_FRAGMENT ||
      (packet->kind == KIND_ICMP && !asks_for_answer(packet->protocol, packet->icmp_type));
  const int mid_stream = packet->protocol == IPPROTO_TCP && packet->kind == KIND_PORTS && !is_first_syn(packet);
  /* Without a beginning of its own; of the others servers have the lower ports, or the same. */
  const int may_answer = packet->protocol == IPPROTO_TCP  ? mid_stream
                         : packet->kind == KIND_ICMP ? is_answer(packet->protocol, packet->icmp_type)
                                                     : packet->source_port <= packet->destination_port;
  if (may_answer && may_go_on(packet, settings)) {
    /* As an answer, then as its originator's. */
    turn(packet);
    packet->is_reply = 1;
    int allowed = tl_host_decide(skb, root, offset, !direction, how) && room->rule.action == TL_ALLOW;
    packet->is_reply = 0;
    turn(packet);
    if (allowed) {
      if (!how) count(room->rule.slot, packet->length);
      tl_begin_host_flow(skb, root, offset, !direction, notes ^ 1);
      return ALLOW;
    }
  }
  if (!tl_host_decide(skb, root, offset, direction, how)) {
    __u32 rule = by_direction(direction, RULE_NO_VERDICT);
    return tl_deny(skb, rule, rule, audited);
  }
  if (no_connection) return host_stateless(skb, room, direction, how, audited);
  if (mid_stream && room->rule.id && !may_go_on(packet, settings)) {
    __u32 rule = by_direction(direction, RULE_MID_STREAM);
    return tl_deny(skb, rule, rule, audited);
  }
  if (room->rule.action != TL_ALLOW) {
    if (audited) tl_begin_host_flow(skb, root, offset, direction, notes | HOST_SILENT);
    return tl_deny(skb, room->rule.id, room->rule.slot, audited);
  }
  if (!how) count(room->rule.slot, packet->length);
  tl_begin_host_flow(skb, root, offset, direction, notes);
  return ALLOW;
}

/* A packet of a connection that is known, but was judged under other policies. */
__noinline int tl_host_again(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction, __u32 reply) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!end || !flow) return DROP;
  direction &= 1;
  struct packet* packet = &room->packet;
  const __u8 bit = (__u8)(1 << direction);
  const __u64* real = (const __u64*)flow->real_source;
  const int carried = real[0] || real[1];
  if (reply) turn(packet);
  if (carried) {
    __builtin_memcpy(packet->source, flow->real_source, 16);
    packet->is_rewritten = 1;
  }
  packet->is_reply = (__u8)reply;
  const int decided = tl_host_decide(skb, root, offset, direction, flow->forwarded ? FORWARDED : 0);
  const __u32 audited = end->flags & TL_AUDITED;
  flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!flow) return DROP;
  if (carried) __builtin_memcpy(packet->source, flow->high_begins ? room->key.high : room->key.low, 16);
  if (reply) turn(packet);
  const int allowed = (decided && room->rule.action == TL_ALLOW) || audited;
  if (allowed || !reply) {
    flow->generations[direction] = end->generations[direction];
    flow->epochs[direction] = FIELD(base, root, struct tl_root, address_epoch);
    flow->judged_at[direction] = (__u16)skb->ifindex;
  }
  if (allowed) {
    flow->allowed |= bit;
    flow->cut &= ~bit;
    flow->rules[direction] = decided && room->rule.action == TL_ALLOW ? room->rule.id : 0;
    return ALLOW;
  }
  flow->allowed &= ~bit;
  flow->cut |= bit;
  __u32 rule = room->rule.id, slot = room->rule.slot;
  if (!decided) rule = slot = by_direction(direction, RULE_NO_VERDICT);
  if (reply) rule = slot = by_direction(direction, RULE_CUT);
  return tl_deny_living(skb, rule, slot);
}

/* Neighbour discovery passes, and what listeners say to the link: nothing that a router has let through, or would. */
static __always_inline int is_of_neighbours(struct __sk_buff* skb, struct room* room) {
  const struct packet* packet = &room->packet;
  if (packet->protocol != IPPROTO_ICMPV6 || packet->kind != KIND_ICMP) return 0;
  if (packet->icmp_type >= 133 && packet->icmp_type <= 137) return is_of_link(skb, room);
  return hears(packet->icmp_type) && (packet->destination[0] == 0xff || is_link_local6(packet->destination));
}

/* doNotTrack: packet by packet. 1: it decides. */
__noinline int tl_host_untracked(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return 0;
  direction &= 1;
  const __u32 klass = end->host.untracked[direction];
  if (!klass || (direction == TL_EGRESS && skb->ingress_ifindex)) return 0;
  const __u32 to = direction == TL_EGRESS ? FAILSAFE_TO : 0, own = direction == TL_EGRESS ? FAILSAFE_OUT : 0;
  if (tl_is_failsafe(root, own | to) || tl_is_failsafe(root, (own ^ FAILSAFE_OUT) | to | FAILSAFE_ANSWERS)) return 0;
  const __u32 addresses = FIELD(base, root, struct tl_root, addresses);
  tl_find_identity(addresses, 0);
  tl_find_identity(addresses, 1);
  return tl_host_early(skb, root, klass);
}

__noinline int tl_host(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return DROP;
  direction &= 1;
  struct packet* packet = &room->packet;
  if (is_of_neighbours(skb, room)) return ALLOW;
  const __u32 audited = end->flags & TL_AUDITED;
  if (!audited && tl_host_untracked(skb, root, offset, direction)) {
    const __u32 rule = room->rule.id;
    if (room->rule.action == TL_DENY) return tl_deny(skb, rule, room->rule.slot, 0);
    count(room->rule.slot, packet->length);
    if (tl_aggregate(TL_ENTRY_DENIED, rule) == 1) tl_tell(skb, TL_EVENT_STATELESS, rule);
    return ALLOW;
  }
  if (packet->kind == KIND_FRAGMENT) return tl_host_first(skb, root, offset, direction, 0);
  if (packet->kind == KIND_ICMP) {
    if (is_error(packet->protocol, packet->icmp_type) && tl_related(skb, 0)) return ALLOW;
    if (!asks_for_answer(packet->protocol, packet->icmp_type) && !is_answer(packet->protocol, packet->icmp_type))
      return tl_host_first(skb, root, offset, direction, 0);
  }
  const __u32 side = (__u32)tl_key_of_packet() & 1;
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!flow) return tl_host_first(skb, root, offset, direction, side);
  const __u32 reply = side != flow->high_begins;
  const __u32 of = (reply ? !direction : direction) & 1;
  const __u8 bit = (__u8)(1 << of);
  const __u32 ends = (flow->tcp[0] & flow->tcp[1] & FIN) | ((flow->tcp[0] | flow->tcp[1]) & RST);
  const int begins_anew = ends && packet->protocol == IPPROTO_TCP && is_first_syn(packet);
  if (!(flow->needed & bit)) {
    /* Of a connection at another interface, which this one judges as well. What answers one that was allowed may take
       another way back; anything else begins something. */
    if (reply && is_complete(flow) && !begins_anew) {
      account(flow, packet, reply, 1);
      return ALLOW;
    }
    if (reply) tl_end_flow();
    return tl_host_first(skb, root, offset, direction, side);
  }
  const int settled = flow->generations[of] == end->generations[of] &&
                      flow->epochs[of] == FIELD(base, root, struct tl_root, address_epoch);
  if ((settled || reply) && (flow->cut & bit)) {
    const __u32 rule = by_direction(of, RULE_CUT);
    return tl_deny(skb, rule, rule, audited);
  }
  /* Whoever judged this connection at another interface judges it anew there: its answers may take any way back. */
  const int is_elsewhere = flow->judged_at[of] && flow->judged_at[of] != (__u16)skb->ifindex;
  if (!settled && !(reply && is_elsewhere && is_complete(flow))) return tl_host_again(skb, root, offset, of, reply);
  if (begins_anew) {
    tl_end_flow();
    return tl_host_first(skb, root, offset, direction, side);
  }
  account(flow, packet, reply, 1);
  return ALLOW;
}

/* What comes in for a Service may get the node's address as its source: who sent it goes with it. */
__noinline int tl_carry_origin(struct __sk_buff* skb) {
  struct room* room = room_of();
  if (!room) return 0;
  const struct packet* packet = &room->packet;
  /* Who decided about it may have put the backend in the Service's place. */
  if (!packet->is_service && !find_service(room)) return 0;
  const __u32* words = (const __u32*)packet->source;
  const __u32 hash = tl_hash6(words);
  struct tl_origin_of* fresh = &room->origin;
  __builtin_memcpy(fresh->address, packet->source, 16);
  fresh->last = now_of(room);
  for (__u32 i = 0; i < TL_ORIGIN_PROBES; i++) {
    __u32 slot = (hash + i) & (TL_ORIGINS - 1);
    struct tl_origin_of* taken = bpf_map_lookup_elem(&origins, &slot);
    if (!taken) {
      if (bpf_map_update_elem(&origins, &slot, fresh, BPF_NOEXIST)) continue;
    } else if (!same16(taken->address, packet->source)) {
      continue;
    } else {
      taken->last = fresh->last;
    }
    skb->tc_index = (__u16)(TL_CARRIES | slot);
    return 1;
  }
  return 0;
}
