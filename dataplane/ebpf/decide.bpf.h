// dataplane/ebpf/decide.bpf.h - who decides about a packet in one direction: a reserved rule, or a rule of the class.
//
// It knows what classes do not: the endpoint itself, the node, a source that was rewritten on the way, and where a
// Service leads.
#pragma once
#include "dataplane/ebpf/classify.bpf.h"
#include "dataplane/ebpf/packet.bpf.h"
#include "dataplane/ebpf/verdict.bpf.h"

static __always_inline struct tl_config* settings_of(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline __u32 config_flags(void) {
  const struct tl_config* settings = settings_of();
  return settings ? settings->flags : 0;
}

/* The endpoint of an interface: offset of its entry; 0: none. */
static __always_inline __u32 find_endpoint(char* base, __u32 root, __u32 ifindex) {
  const __u32 table = FIELD(base, root, struct tl_root, endpoints);
  const __u32 mask = FIELD(base, root, struct tl_root, endpoint_mask);
  const __u32 hash = (ifindex * 2654435761u) >> 7;
  for (__u32 i = 0; i < TL_END_PROBES; i++) {
    const __u32 at = table + ((hash + i) & mask) * sizeof(struct tl_endpoint);
    const __u32 found = load32(base, at);
    if (found == ifindex) return at;
    if (!found) return 0;
  }
  return 0;
}

/* The endpoint whose interface this packet came out of: by where the kernel says that it came in, behind a
   bridge by the mark that it got there. 0: none of ours. */
__noinline int tl_origin(struct __sk_buff* skb, __u32 root) {
  char* base = segment_of(root);
  if (!base || !skb->ingress_ifindex) return 0;
  const __u32 by_interface = find_endpoint(base, root, skb->ingress_ifindex);
  if (by_interface && !(FIELD(base, by_interface, struct tl_endpoint, flags) & TL_HOST)) return (int)by_interface;
  const __u32 mark = skb->tc_index;
  if (!mark || (mark & TL_CARRIES)) return 0;
  const __u32 table = FIELD(base, root, struct tl_root, endpoints);
  if (mark - 1 > FIELD(base, root, struct tl_root, endpoint_mask)) return 0;
  const __u32 at = table + (mark - 1) * sizeof(struct tl_endpoint);
  /* Of all others the interface tells. */
  return load32(base, at) && (FIELD(base, at, struct tl_endpoint, flags) & TL_BRIDGED) ? (int)at : 0;
}

static __always_inline void deny_by(struct room* room, __u32 rule) {
  room->rule.id = room->rule.slot = rule;
  room->rule.action = TL_DENY;
  room->pass_count = room->log_count = 0;
}

/* The Service that the packet is addressed to, if it has backends. */
static __always_inline const struct tl_service* find_service(struct room* room) {
  struct packet* packet = &room->packet;
  if (packet->kind != KIND_PORTS) return 0;
  __builtin_memcpy(room->service_key.address, packet->destination, 16);
  room->service_key.port = packet->destination_port;
  room->service_key.protocol = packet->protocol;
  room->service_key.family = packet->family;
  const struct tl_service* service = bpf_map_lookup_elem(&services, &room->service_key);
  if (!service || !service->count) return 0;
  packet->is_service = 1;
  return service;
}

/* Whether an address is the node's own, by its routes; asked where no list of them was given. */
__noinline int tl_is_own_address(struct __sk_buff* skb, __u32 of_destination) {
  struct room* room = room_of();
  if (!room) return 0;
  struct bpf_fib_lookup* route = &room->route;
  const struct packet* packet = &room->packet;
  const __u8 *to = of_destination ? packet->destination : packet->source,
             *from = of_destination ? packet->source : packet->destination;
  __builtin_memset(route, 0, sizeof *route);
  route->ifindex = skb->ifindex;
  if (packet->family == 4) {
    route->family = 2;
    route->ipv4_src = *(const __u32*)from;
    route->ipv4_dst = *(const __u32*)to;
  } else {
    route->family = 10;
    __builtin_memcpy(route->ipv6_src, from, 16);
    __builtin_memcpy(route->ipv6_dst, to, 16);
  }
  const long found = bpf_fib_lookup(skb, route, sizeof *route, 0);
  return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* Who sent a packet whose source is the node's now: room->packet.source. 0: not known. */
__noinline int tl_restore_source(struct __sk_buff* skb, __u32 root) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct packet* packet = &room->packet;
  const __u32 mark = skb->tc_index;
  if (mark & TL_CARRIES) {
    const __u32 slot = mark & ~TL_CARRIES;
    const struct tl_origin_of* carried = bpf_map_lookup_elem(&origins, &slot);
    if (!carried) return 0;
    __builtin_memcpy(packet->source, carried->address, 16);
  } else {
    const __u32 sender = (__u32)tl_origin(skb, root);
    struct tl_endpoint* origin = sender ? endpoint_at(base, sender) : 0;
    if (!origin || (packet->family == 4 ? !origin->count4 : !origin->count6)) return 0;
    if (packet->family == 4)
      *(__u32*)packet->source = origin->v4[0];
    else
      __builtin_memcpy(packet->source, origin->v6[0], 16);
  }
  packet->is_rewritten = 1;
  return 1;
}

/* room->rule, by room->klass. What goes to a Service is judged by where that leads: all its backends must agree. Inlined
   at both places, as frames are few. 0: nobody decides. */
static __always_inline int classify_at_backends(__u32 root, struct tl_endpoint* end, __u32 may_be_service) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct packet* packet = &room->packet;
  const __u32 addresses = FIELD(base, root, struct tl_root, addresses);
  const struct tl_service* service = may_be_service ? find_service(room) : 0;
  const __u32 backends = service ? service->count : 1;
  if (backends > TL_BACKENDS) {
    room->destination_flags = 0;
    deny_by(room, RULE_BACKENDS_DIFFER);
    return 1;
  }
  __u32 action = TL_NONE;
  for (__u32 i = 0; i < TL_BACKENDS; i++) {
    if (i >= backends) break;
    if (service) {
      __builtin_memcpy(packet->destination, service->backends[i].address, 16);
      packet->destination_port = service->backends[i].port;
      tl_find_identity(addresses, 1);
    }
    if (!tl_classify(addresses)) return 0;
    if (service && is_own(end, packet->destination, packet->family)) {
      room->rule.id = room->rule.slot = by_direction(TL_EGRESS, RULE_SELF);
      room->rule.action = TL_ALLOW;
      room->pass_count = room->log_count = 0;
    }
    if (action != TL_NONE && action != room->rule.action) {
      deny_by(room, RULE_BACKENDS_DIFFER);
      break;
    }
    action = room->rule.action;
  }
  if (service) {
    /* Its own hook sees the backend as another connection. */
    room->destination_flags = 0;
    packet->one_backend = backends == 1;
    if (backends != 1) {
      __builtin_memcpy(packet->destination, room->service_key.address, 16);
      packet->destination_port = room->service_key.port;
    }
  }
  return 1;
}

/* Who decides about room->packet in `direction`: room->rule. 0: nobody. */
__noinline int tl_decide(struct __sk_buff* skb, __u32 root, __u32 offset, __u32 direction) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return 0;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return 0;
  direction &= 1;
  struct packet* packet = &room->packet;
  const __u32 addresses = FIELD(base, root, struct tl_root, addresses);
  room->klass = end->classes[direction];
  room->pass_count = room->log_count = 0;
  room->rule.action = TL_ALLOW;
  tl_find_identity(addresses, 0);
  tl_find_identity(addresses, 1);
  if (is_own(end, packet->source, packet->family) && is_own(end, packet->destination, packet->family)) {
    room->rule.id = room->rule.slot = by_direction(direction, RULE_SELF);
    return 1;
  }
  const int by_policy = config_flags() & TL_HOST_BY_POLICY;
  const int of_node = direction == TL_INGRESS && !packet->is_reply &&
                      ((room->source_flags & TL_OF_NODE) ||
                       (by_policy && skb->ingress_ifindex && tl_is_own_address(skb, 0)));
  if (of_node && !skb->ingress_ifindex && !by_policy) {
    room->rule.id = room->rule.slot = RULE_HOST;
    return 1;
  }
  if (of_node && skb->ingress_ifindex) {
    /* The node's address on what it only forwards: a source that was rewritten. */
    if (!tl_restore_source(skb, root)) {
      deny_by(room, RULE_SOURCE_REWRITTEN);
      return 1;
    }
    tl_find_identity(addresses, 0);
    if (is_own(end, packet->source, packet->family)) {
      room->rule.id = room->rule.slot = by_direction(direction, RULE_SELF);
      return 1;
    }
  }
  if (!classify_at_backends(root, end, direction == TL_EGRESS)) return 0;
  tl_count_way(skb);
  return 1;
}
