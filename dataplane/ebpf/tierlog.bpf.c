// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// dataplane/ebpf/tierlog.bpf.c - the programs at the host side of a pod's interface.
//
//   frame --parse, guard (packet.bpf.h)--> flow known? --no--> classify.bpf.h --> flow, counters, events
//
// One program out of the pod (tc ingress), one into it (tc egress). What is allowed gets TC_ACT_UNSPEC, so
// that the filters of others behind ours still run.
#include "dataplane/ebpf/classify.bpf.h"
#include "dataplane/ebpf/decide.bpf.h"
#include "dataplane/ebpf/flow.bpf.h"
#include "dataplane/ebpf/host.bpf.h"
#include "dataplane/ebpf/packet.bpf.h"
#include "dataplane/ebpf/verdict.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Allowed without a connection: an ICMP message that asks nothing, a fragment of something unknown. */
__noinline int tl_stateless(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 out) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return DROP;
  const __u32 direction = out ? TL_EGRESS : TL_INGRESS, audited = end->flags & TL_AUDITED;
  if (!tl_decide(skb, root, offset, direction)) {
    __u32 none = by_direction(direction, RULE_NO_VERDICT);
    return tl_deny(skb, none, none, audited);
  }
  if (!out && (room->source_flags & TL_IS_LOCAL) && skb->ingress_ifindex && !tl_origin(skb, root))
    return tl_deny(skb, RULE_SPOOFED_INGRESS, RULE_SPOOFED_INGRESS, audited);
  if (room->rule.action != TL_ALLOW) {
    __u32 rule = room->rule.id, slot = room->rule.slot;
    if (room->packet.kind == KIND_FRAGMENT) rule = slot = by_direction(direction, RULE_FRAGMENT);
    return tl_deny(skb, rule, slot, audited);
  }
  count(room->rule.slot, room->packet.length);
  if (out && (room->destination_flags & TL_IS_LOCAL)) return ALLOW; /* the other end tells */
  if (tl_aggregate(TL_ENTRY_DENIED, 0) == 1) tl_tell(skb, TL_EVENT_STATELESS, 0);
  return ALLOW;
}

/* In `side`, beside who begins: what an audited endpoint's denial let through is followed, under no rule. */
#define SILENT 2
/* And: this packet is not the first one. */
#define GOES_ON 4

/* The first packet of a connection was allowed here. 0: it found no room. */
__noinline int tl_begin_flow(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 out, __u32 side) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return 0;
  struct tl_flow* flow = &room->flow;
  __builtin_memset(flow, 0, sizeof *flow);
  const __u32 direction = out ? TL_EGRESS : TL_INGRESS;
  flow->packets[0] = 1;
  flow->bytes[0] = room->packet.length;
  flow->first = flow->last = now_of(room);
  flow->rules[direction] = side & SILENT ? 0 : room->rule.id;
  flow->generations[direction] = end->generations[direction];
  flow->epochs[direction] = FIELD(base, root, struct tl_root, address_epoch);
  flow->high_begins = side & 1;
  flow->needed = (__u8)(1 << direction);
  if (out && (room->destination_flags & TL_IS_LOCAL)) flow->needed |= TL_BIT_INGRESS;
  flow->allowed = (__u8)(1 << direction);
  flow->tcp[0] = room->packet.tcp_flags;
  if (room->packet.one_backend) {
    __builtin_memcpy(flow->backend, room->packet.destination, 16);
    flow->backend_port = room->packet.destination_port;
  }
  if (room->packet.is_rewritten) __builtin_memcpy(flow->real_source, room->packet.source, 16);
  long failed = bpf_map_update_elem(&flows, &room->key, flow, BPF_NOEXIST);
  if (failed && failed != -17) {
    if (side & GOES_ON) return 0;
    struct tl_config* settings = settings_of();
    lose(TL_LOSS_FLOW_FULL);
    if (settings) settings->flows_missed_at = flow->first;
    if (!(side & SILENT)) tl_tell(skb, TL_EVENT_ALLOWED, room->rule.id);
    return 0;
  }
  tl_tell_allowed(skb);
  return 1;
}

/* Judges a connection's packet anew, as its originator sent it. */
__noinline int tl_judge_again(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction, __u32 reply) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return DROP;
  direction &= 1;
  const __u32 audited = end->flags & TL_AUDITED, bit = 1u << direction;
  struct tl_flow* known = bpf_map_lookup_elem(&flows, &room->key);
  if (!known) return DROP;
  if (audited && direction == TL_INGRESS && !known->told && (known->needed & TL_BIT_EGRESS) && !known->rules[TL_EGRESS]) {
    /* Its source's policies would not have let it come here. */
    known->allowed |= bit;
    return ALLOW;
  }
  if (reply) {
    /* Who this connection comes from is seen with its originator's packets only. */
    const int by_node = known->rules[TL_INGRESS] == RULE_HOST && !(config_flags() & TL_HOST_BY_POLICY);
    const __u64* real = (const __u64*)known->real_source;
    if (direction == TL_INGRESS && (by_node || real[0] || real[1])) return ALLOW;
    turn(&room->packet);
  }
  room->packet.is_reply = (__u8)reply;
  int decided = tl_decide(skb, root, offset, direction);
  if (reply) turn(&room->packet);
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!flow) return DROP;
  const int by_rule = decided && room->rule.action == TL_ALLOW, allowed = by_rule || audited;
  const int was_told = flow->told;
  if (allowed || !reply) {
    /* What an answer ends, its originator's next packet is still to name the rule of. */
    flow->generations[direction] = end->generations[direction];
    flow->epochs[direction] = FIELD(base, root, struct tl_root, address_epoch);
  }
  if (!allowed) {
    flow->allowed &= ~bit;
    if (was_told) flow->cut |= bit;
    __u32 rule = room->rule.id, slot = room->rule.slot;
    if (!decided) rule = slot = by_direction(direction, RULE_NO_VERDICT);
    if (reply) rule = slot = by_direction(direction, RULE_CUT);
    return was_told ? tl_deny_living(skb, rule, slot) : tl_deny(skb, rule, slot, 0);
  }
  flow->allowed |= bit;
  flow->cut &= ~bit;
  flow->rules[direction] = by_rule ? room->rule.id : 0;
  if (was_told) return ALLOW;
  if (by_rule) {
    count(room->rule.slot, room->packet.length);
  } else {
    __u32 rule = room->rule.id, slot = room->rule.slot;
    if (!decided) rule = slot = by_direction(direction, RULE_NO_VERDICT);
    tl_deny(skb, rule, slot, audited);
  }
  tl_tell_allowed(skb);
  return ALLOW;
}

/* In `side`: as an answer to the connection, not as its originator's packet. */
#define ANSWERS 8
enum { MISSED_DENIED, MISSED_BEGUN, MISSED_NO_ROOM };

__noinline int tl_join_missed(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 out, __u32 side) {
  struct room* room = room_of();
  if (!room) return MISSED_DENIED;
  struct packet* packet = &room->packet;
  const __u32 answers = side & ANSWERS ? 1 : 0, from = answers ? !out : out;
  if (answers) turn(packet);
  packet->is_reply = (__u8)answers;
  int result = MISSED_DENIED;
  if (tl_decide(skb, root, offset, from ? TL_EGRESS : TL_INGRESS) && room->rule.action == TL_ALLOW)
    result = tl_begin_flow(skb, root, offset, from, ((side & 1) ^ answers) | GOES_ON) ? MISSED_BEGUN : MISSED_NO_ROOM;
  if (result == MISSED_BEGUN) count(room->rule.slot, packet->length);
  packet->is_reply = 0;
  if (answers) turn(packet);
  return result;
}

/* Whether rules allow this packet as one of a connection that was missed: on its way, or back. */
__noinline int tl_goes_on(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 out, __u32 side) {
  struct room* room = room_of();
  const struct tl_config* settings = settings_of();
  if (!room || !settings || !may_go_on(&room->packet, settings)) return 0;
  const struct packet* packet = &room->packet;
  const int tcp = packet->protocol == IPPROTO_TCP;
  /* Servers have the lower ports; both have the same where there are none, and of protocols between equals. */
  const int from_server = packet->source_port <= packet->destination_port;
  if (!tcp && (packet->kind == KIND_ICMP ? !is_answer(packet->protocol, packet->icmp_type) : !from_server)) return 0;
  const int only_answers = !tcp || (packet->tcp_flags & SYN);
  const __u32 first = only_answers || from_server ? ANSWERS : 0;
  int result = tl_join_missed(skb, root, offset, out, side | first);
  if (result == MISSED_DENIED && !only_answers) result = tl_join_missed(skb, root, offset, out, side | (first ^ ANSWERS));
  if (result == MISSED_NO_ROOM && tl_aggregate(TL_ENTRY_DENIED, 0) == 1) tl_tell(skb, TL_EVENT_STATELESS, 0);
  return result != MISSED_DENIED;
}

/* No connection is known: is this the beginning of one? */
__noinline int tl_judge_first(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 out, __u32 high_begins) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return DROP;
  const struct packet* packet = &room->packet;
  const __u32 direction = out ? TL_EGRESS : TL_INGRESS, audited = end->flags & TL_AUDITED;
  if (packet->protocol == IPPROTO_TCP && !is_first_syn(packet)) {
    __u32 rule = by_direction(direction, RULE_MID_STREAM);
    return tl_deny(skb, rule, rule, audited);
  }
  if (packet->kind == KIND_ICMP && !asks_for_answer(packet->protocol, packet->icmp_type))
    return tl_stateless(skb, root, offset, out);
  if (!tl_decide(skb, root, offset, direction)) {
    __u32 rule = by_direction(direction, RULE_NO_VERDICT);
    return tl_deny(skb, rule, rule, audited);
  }
  /* A pod's packets got a mark where they came out of it: this one did not come from there. */
  if (!out && (room->source_flags & TL_IS_LOCAL) && skb->ingress_ifindex && !tl_origin(skb, root))
    return tl_deny(skb, RULE_SPOOFED_INGRESS, RULE_SPOOFED_INGRESS, audited);
  const __u32 rule = room->rule.id, slot = room->rule.slot;
  if (room->rule.action != TL_ALLOW) {
    /* Let out under this key, it would be known here. */
    room->is_alone = !out;
    if (audited) tl_begin_flow(skb, root, offset, out, high_begins | SILENT);
    return tl_deny(skb, rule, slot, audited);
  }
  count(slot, packet->length);
  tl_begin_flow(skb, root, offset, out, high_begins);
  return ALLOW;
}

/* A packet with addresses that may be judged, at the interface of the endpoint at `offset`. */
__noinline int tl_judge(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 out) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return DROP;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return DROP;
  struct packet* packet = &room->packet;
  if (packet->kind == KIND_FRAGMENT) return tl_stateless(skb, root, offset, out);
  if (packet->kind == KIND_ICMP && is_error(packet->protocol, packet->icmp_type) && tl_related(skb, out))
    return ALLOW;
  if (packet->kind == KIND_ICMP && !asks_for_answer(packet->protocol, packet->icmp_type) &&
      !is_answer(packet->protocol, packet->icmp_type))
    return tl_stateless(skb, root, offset, out);
  const __u32 side = (__u32)tl_key_of_packet() & 1;
  struct tl_flow* flow = bpf_map_lookup_elem(&flows, &room->key);
  if (!flow && tl_goes_on(skb, root, offset, out, side)) return ALLOW;
  if (!flow) return tl_judge_first(skb, root, offset, out, side);
  const __u32 reply = side != flow->high_begins;
  const __u32 direction = reply == out ? TL_INGRESS : TL_EGRESS, bit = 1u << direction;
  const int settled = flow->generations[direction & 1] == end->generations[direction & 1] &&
                      flow->epochs[direction & 1] == FIELD(base, root, struct tl_root, address_epoch);
  const __u32 at_originator = direction == TL_EGRESS;
  if (settled && (flow->allowed & bit) && is_complete(flow)) {
    const int begins = packet->protocol == IPPROTO_TCP && is_first_syn(packet);
    const __u32 ends = (flow->tcp[0] & flow->tcp[1] & FIN) | ((flow->tcp[0] | flow->tcp[1]) & RST);
    if (begins && ends) {
      tl_end_flow();
      return tl_judge_first(skb, root, offset, out, side);
    }
    account(flow, packet, reply, at_originator);
    return ALLOW;
  }
  if ((reply && flow->cut) || (settled && (flow->cut & bit))) {
    __u32 rule = by_direction(flow->cut & TL_BIT_EGRESS ? TL_EGRESS : TL_INGRESS, RULE_CUT);
    return tl_deny(skb, rule, rule, end->flags & TL_AUDITED);
  }
  if (reply && !flow->told) {
    /* Nobody let the other side's packet through to here, so this one begins something. */
    bpf_map_delete_elem(&flows, &room->key);
    if (tl_goes_on(skb, root, offset, out, side)) return ALLOW;
    return tl_judge_first(skb, root, offset, out, side);
  }
  account(flow, packet, reply, at_originator);
  flow->needed |= (__u8)bit;
  return tl_judge_again(skb, root, offset, direction, reply);
}

static __always_inline int handle(struct __sk_buff* skb, __u32 out) {
  struct tl_config* settings = settings_of();
  struct room* room = room_of();
  if (!settings || !room) return DROP;
  /* Once: all that a packet meets is of one Program. */
  const __u32 root = *(volatile __u32*)&settings->root;
  char* base = segment_of(root);
  const __u32 all_audited = settings->flags & TL_AUDITS;
  if (!base) return all_audited ? ALLOW : DROP;
  const __u32 offset = find_endpoint(base, root, skb->ifindex);
  room->head = ETHER_HEAD;
  begin_packet(skb, &room->packet, ETHER_HEAD);
  room->place = TL_AT_POD;
  room->now = 0;
  room->is_alone = 0;
  int parsed = parse_fast(skb, &room->packet);
  if (parsed == PARSE_SLOWLY) parsed = tl_parse_slowly(skb);
  const __u32 direction = out ? TL_EGRESS : TL_INGRESS;
  if (!offset) {
    __u32 rule = by_direction(direction, RULE_NO_VERDICT);
    return parsed == PARSED ? tl_deny(skb, rule, rule, all_audited) : refuse_frame(rule, all_audited);
  }
  const __u32 audited = FIELD(base, offset, struct tl_endpoint, flags) & TL_AUDITED;
  if (parsed == TRUNCATED || parsed == STRANGE_FRAGMENT) {
    __u32 rule = by_direction(direction, parsed == TRUNCATED ? RULE_INVALID : RULE_FRAGMENT);
    return room->packet.family ? tl_deny(skb, rule, rule, audited) : refuse_frame(rule, audited);
  }
  const int guard = out ? tl_guard_out(skb, root, offset, parsed) : tl_guard_in(skb, root, offset, parsed);
  if (guard > 0) {
    /* Where single pods are audited, nobody may send in the name of those that are not. */
    const __u32 goes_on = out ? all_audited : audited;
    if (parsed != PARSED) return refuse_frame((__u32)guard, goes_on);
    return tl_deny(skb, (__u32)guard, (__u32)guard, goes_on);
  }
  if (guard < 0) return ALLOW;
  const __u32 number = (offset - FIELD(base, root, struct tl_root, endpoints)) / sizeof(struct tl_endpoint) + 1;
  if (out) skb->tc_index = number < TL_CARRIES ? (__u16)number : 0;
  return tl_judge(skb, root, offset, out);
}

SEC("tc")
int tierlog_out(struct __sk_buff* skb) {
  return handle(skb, 1);
}

SEC("tc")
int tierlog_in(struct __sk_buff* skb) {
  return handle(skb, 0);
}

/* At an interface of the node itself: what comes in by it, and what goes out. `head`: bytes before the IP header. */
static __always_inline int handle_host(struct __sk_buff* skb, __u32 direction, __u32 head) {
  struct tl_config* settings = settings_of();
  struct room* room = room_of();
  if (!settings || !room) return ALLOW;
  const __u32 root = *(volatile __u32*)&settings->root;
  char* base = segment_of(root);
  if (!base) return ALLOW;
  /* Nobody who sends to this node says for whom. */
  if (direction == TL_INGRESS && (skb->tc_index & TL_CARRIES)) skb->tc_index = 0;
  room->head = head ? head : (__u32)tl_raw_head(skb);
  begin_packet(skb, &room->packet, room->head);
  room->place = TL_AT_HOST;
  room->now = 0;
  room->is_alone = 1;
  int parsed = head ? parse_fast(skb, &room->packet) : PARSE_SLOWLY;
  if (parsed == PARSE_SLOWLY) parsed = room->head == RAW_UNKNOWN ? TRUNCATED : tl_parse_slowly(skb);
  if (parsed == IS_ARP || parsed == NOT_IP || parsed == TAGGED) return ALLOW;
  const __u32 offset = find_endpoint(base, root, skb->ifindex);
  const __u32 flags = offset ? FIELD(base, offset, struct tl_endpoint, flags) : 0;
  if (flags & TL_HOST) {
    if (parsed != PARSED) {
      __u32 rule = by_direction(direction, parsed == TRUNCATED ? RULE_INVALID : RULE_FRAGMENT);
      if (!room->packet.family) return refuse_frame(rule, flags & TL_AUDITED);
      return tl_deny(skb, rule, rule, flags & TL_AUDITED);
    }
    if (tl_host(skb, root, offset, direction) == DROP) return DROP;
  }
  if (direction == TL_INGRESS && parsed == PARSED) tl_carry_origin(skb);
  return ALLOW;
}

SEC("tc")
int tierlog_host_in(struct __sk_buff* skb) {
  return handle_host(skb, TL_INGRESS, ETHER_HEAD);
}

SEC("tc")
int tierlog_host_out(struct __sk_buff* skb) {
  return handle_host(skb, TL_EGRESS, ETHER_HEAD);
}

/* Tunnels' devices show IP packets as they are. */
SEC("tc")
int tierlog_raw_in(struct __sk_buff* skb) {
  return handle_host(skb, TL_INGRESS, 0);
}

SEC("tc")
int tierlog_raw_out(struct __sk_buff* skb) {
  return handle_host(skb, TL_EGRESS, 0);
}

/* Adds to an entry that programs count on at the same time. Attached nowhere. 0: it found no room. */
SEC("tc")
int tierlog_merge(struct __sk_buff* skb) {
  struct room* room = room_of();
  if (!room || bpf_skb_load_bytes(skb, ETHER_HEAD, &room->merged, sizeof room->merged)) return 0;
  return room->merged.kind == TL_MERGE_FLOW ? merge_flow(&room->merged) : merge_denied(&room->merged);
}

/* What the rules of one class say to a packet that user space makes up. Attached nowhere. */
SEC("tc")
int tierlog_ask(struct __sk_buff* skb) {
  struct room* room = room_of();
  struct tl_question question;
  struct tl_answer answer = {};
  if (!room || bpf_skb_load_bytes(skb, ETHER_HEAD, &question, sizeof question)) return 0;
  char* base = segment_of(question.root);
  if (!base) return 0;
  struct packet* packet = &room->packet;
  begin_packet(skb, packet, ETHER_HEAD);
  __builtin_memcpy(packet->source, question.source, 16);
  __builtin_memcpy(packet->destination, question.destination, 16);
  packet->source_port = question.source_port;
  packet->destination_port = question.destination_port;
  packet->protocol = question.protocol;
  packet->family = question.family;
  packet->icmp_type = question.icmp_type;
  packet->icmp_code = question.icmp_code;
  packet->kind = has_ports(question.protocol) ? KIND_PORTS
                 : is_icmp(question.protocol) ? KIND_ICMP
                                              : KIND_OTHER;
  room->klass = question.klass;
  const __u32 addresses = FIELD(base, question.root, struct tl_root, addresses);
  tl_find_identity(addresses, 0);
  tl_find_identity(addresses, 1);
  if (tl_classify(addresses)) {
    answer.id = room->rule.id;
    answer.action = room->rule.action;
    answer.pass_count = room->pass_count;
    answer.log_count = room->log_count;
    answer.cached = room->cached;
    base = segment_of(room->klass);
    for (__u32 i = 0; base && i < 4; i++)
      if (i < room->log_count) answer.logs[i] = load32(base, (__u64)room->rules + room->logs[i] * 16);
  }
  bpf_skb_store_bytes(skb, ETHER_HEAD, &answer, sizeof answer, 0);
  return 1;
}
