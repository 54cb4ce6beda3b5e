// dataplane/ebpf/packet.bpf.h - from a frame to room->packet, and what a pod may send at all.
//
// The usual frame is read in place; options, extension headers, fragments, ICMP and what lies in no linear
// part are read by copies, in a function of its own.
#pragma once
#include "dataplane/ebpf/classify.bpf.h"
#include "dataplane/ebpf/maps.bpf.h"

/* What parsing says: a packet to judge, or why there is none. */
enum { PARSED, PARSE_SLOWLY, NOT_IP, TAGGED, IS_ARP, TRUNCATED, STRANGE_FRAGMENT };

#define ETHER_HEAD 14
#define FRAGMENT_BITS 0x1fff
#define MORE_FRAGMENTS 0x2000

static __always_inline int has_ports(__u32 protocol) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
         protocol == IPPROTO_UDPLITE;
}

static __always_inline void begin_packet(struct __sk_buff* skb, struct packet* packet, __u32 head) {
  __builtin_memset(packet, 0, sizeof *packet);
  packet->length = skb->len > head ? skb->len - head : 0;
}

/* TCP or UDP right behind an IP header without options. */
static __always_inline int parse_fast(struct __sk_buff* skb, struct packet* packet) {
  void *data = (void*)(long)skb->data, *end = (void*)(long)skb->data_end;
  struct ethhdr* ether = data;
  if (skb->vlan_present || (void*)(ether + 1) > end) return PARSE_SLOWLY;
  void* l4;
  if (ether->h_proto == bpf_htons(ETH_P_IP)) {
    struct iphdr* ip = (void*)(ether + 1);
    if ((void*)(ip + 1) > end || ip->ihl != 5 || ip->version != 4) return PARSE_SLOWLY;
    if (ip->frag_off & bpf_htons(FRAGMENT_BITS | MORE_FRAGMENTS)) return PARSE_SLOWLY;
    *(__u32*)packet->source = ip->saddr;
    *(__u32*)packet->destination = ip->daddr;
    packet->protocol = ip->protocol;
    packet->family = 4;
    l4 = ip + 1;
    packet->l4 = ETHER_HEAD + sizeof *ip;
  } else if (ether->h_proto == bpf_htons(ETH_P_IPV6)) {
    struct ipv6hdr* ip = (void*)(ether + 1);
    if ((void*)(ip + 1) > end || ip->version != 6) return PARSE_SLOWLY;
    __builtin_memcpy(packet->source, &ip->saddr, 16);
    __builtin_memcpy(packet->destination, &ip->daddr, 16);
    packet->protocol = ip->nexthdr;
    packet->family = 6;
    l4 = ip + 1;
    packet->l4 = ETHER_HEAD + sizeof *ip;
  } else {
    return PARSE_SLOWLY;
  }
  packet->kind = KIND_PORTS;
  packet->ether_type = bpf_ntohs(ether->h_proto);
  if (packet->protocol == IPPROTO_TCP) {
    struct tcphdr* tcp = l4;
    if ((void*)(tcp + 1) > end) return PARSE_SLOWLY;
    packet->source_port = bpf_ntohs(tcp->source);
    packet->destination_port = bpf_ntohs(tcp->dest);
    packet->tcp_flags = ((__u8*)l4)[13] & 0x3f;
    return PARSED;
  }
  if (packet->protocol != IPPROTO_UDP || l4 + 8 > end) return PARSE_SLOWLY;
  packet->source_port = bpf_ntohs(((__u16*)l4)[0]);
  packet->destination_port = bpf_ntohs(((__u16*)l4)[1]);
  return PARSED;
}

static __always_inline int asks_for_answer(__u32 protocol, __u32 type) {
  return protocol == IPPROTO_ICMP ? type == 8 || type == 13 || type == 15 || type == 17
                                  : type == 128 || type == 139;
}
static __always_inline int is_answer(__u32 protocol, __u32 type) {
  return protocol == IPPROTO_ICMP ? type == 0 || type == 14 || type == 16 || type == 18
                                  : type == 129 || type == 140;
}
static __always_inline int is_error(__u32 protocol, __u32 type) {
  return protocol == IPPROTO_ICMP ? type == 3 || type == 4 || type == 5 || type == 11 || type == 12
                                  : type >= 1 && type <= 4;
}
/* Of a question the type of its answer, of an answer that of its question. */
static __always_inline __u32 counterpart(__u32 protocol, __u32 type) {
  if (protocol == IPPROTO_ICMPV6) return type == 128 ? 129 : type == 129 ? 128 : type == 139 ? 140 : 139;
  return type == 0 ? 8 : type == 8 ? 0 : type & 1 ? type + 1 : type - 1; /* 13-14, 15-16, 17-18 */
}
static __always_inline int is_icmp(__u32 protocol) {
  return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* Ports, types and flags at `at`, into room->packet. */
__noinline int tl_parse_l4(struct __sk_buff* skb, __u32 at) {
  struct room* room = room_of();
  if (!room) return TRUNCATED;
  struct packet* packet = &room->packet;
  __u8* buffer = room->buffer;
  packet->l4 = at;
  if (has_ports(packet->protocol)) {
    packet->kind = KIND_PORTS;
    if (bpf_skb_load_bytes(skb, at, buffer, 8)) return TRUNCATED;
    packet->source_port = (__u16)(buffer[0] << 8 | buffer[1]);
    packet->destination_port = (__u16)(buffer[2] << 8 | buffer[3]);
    if (packet->protocol != IPPROTO_TCP) return PARSED;
    if (bpf_skb_load_bytes(skb, at, buffer, 20)) return TRUNCATED;
    packet->tcp_flags = buffer[13] & 0x3f;
    return PARSED;
  }
  if (!is_icmp(packet->protocol)) {
    packet->kind = KIND_OTHER;
    return PARSED;
  }
  packet->kind = KIND_ICMP;
  if (bpf_skb_load_bytes(skb, at, buffer, 8)) return TRUNCATED;
  packet->icmp_type = buffer[0];
  packet->icmp_code = buffer[1];
  if (asks_for_answer(packet->protocol, buffer[0]) || is_answer(packet->protocol, buffer[0]))
    packet->icmp_id = (__u16)(buffer[4] << 8 | buffer[5]);
  return PARSED;
}

/* A header of IPv6 behind which another one follows. */
static __always_inline int is_extension(__u32 next) {
  return next == 0 || next == 43 || next == 44 || next == 51 || next == 60;
}

/* A first fragment leaves its ports for the later ones. `first`: 1 for it. */
__noinline int tl_fragment(struct __sk_buff* skb, __u32 at, __u32 id, __u32 first) {
  struct room* room = room_of();
  if (!room) return TRUNCATED;
  struct packet* packet = &room->packet;
  /* Headers between a fragment's and the ports are not followed: what they hide would be judged as none of TCP. */
  if (packet->family == 6 && is_extension(packet->protocol)) return STRANGE_FRAGMENT;
  __builtin_memset(&room->fragment_key, 0, sizeof room->fragment_key);
  __builtin_memcpy(room->fragment_key.source, packet->source, 16);
  __builtin_memcpy(room->fragment_key.destination, packet->destination, 16);
  room->fragment_key.id = id;
  room->fragment_key.protocol = packet->protocol;
  room->fragment_key.family = packet->family;
  if (first) {
    if (tl_parse_l4(skb, at) != PARSED) return STRANGE_FRAGMENT;
    room->fragment.source_port = packet->source_port;
    room->fragment.destination_port = packet->destination_port;
    room->fragment.icmp_type = packet->icmp_type;
    room->fragment.icmp_code = packet->icmp_code;
    room->fragment.icmp_id = packet->icmp_id;
    bpf_map_update_elem(&fragments, &room->fragment_key, &room->fragment, BPF_ANY);
    return PARSED;
  }
  if (!has_ports(packet->protocol) && !is_icmp(packet->protocol)) {
    packet->kind = KIND_OTHER;
    return PARSED;
  }
  struct tl_fragment* known = bpf_map_lookup_elem(&fragments, &room->fragment_key);
  if (!known) {
    packet->kind = KIND_FRAGMENT;
    return PARSED;
  }
  packet->kind = is_icmp(packet->protocol) ? KIND_ICMP : KIND_PORTS;
  packet->source_port = known->source_port;
  packet->destination_port = known->destination_port;
  packet->icmp_type = known->icmp_type;
  packet->icmp_code = known->icmp_code;
  packet->icmp_id = known->icmp_id;
  /* Its first was judged as what it is; a later one begins nothing. */
  packet->tcp_flags = 0;
  return PARSED;
}

#define EXTENSIONS 8

/* From the IPv6 header in room->buffer on. */
__noinline int tl_parse_v6(struct __sk_buff* skb) {
  struct room* room = room_of();
  if (!room) return TRUNCATED;
  struct packet* packet = &room->packet;
  __u8* buffer = room->buffer;
  if (bpf_skb_load_bytes(skb, room->head, buffer, 40) || buffer[0] >> 4 != 6) return TRUNCATED;
  __builtin_memcpy(packet->source, buffer + 8, 16);
  __builtin_memcpy(packet->destination, buffer + 24, 16);
  packet->family = 6;
  __u32 at = room->head + 40, next = buffer[6];
  for (int i = 0; i < EXTENSIONS; i++) {
    if (!is_extension(next)) {
      packet->protocol = next;
      if (next == 59) {
        packet->kind = KIND_OTHER;
        return PARSED;
      }
      return tl_parse_l4(skb, at);
    }
    if (bpf_skb_load_bytes(skb, at, buffer, 8)) return TRUNCATED;
    if (next == 44) {
      __u32 offset = (__u32)(buffer[2] << 8 | buffer[3]), id = *(__u32*)(buffer + 4);
      packet->protocol = buffer[0];
      if (offset & 0xfff8) return tl_fragment(skb, at + 8, id, 0);
      if (offset & 1) return tl_fragment(skb, at + 8, id, 1);
    }
    __u32 length = next == 44 ? 8 : next == 51 ? (buffer[1] + 2u) * 4 : (buffer[1] + 1u) * 8;
    next = buffer[0];
    at += length;
  }
  return TRUNCATED;
}

#define VLAN_BITS 0xfff

/* Of VLAN 0, the frame would be the node's own; of another, it is that VLAN's. */
static __always_inline int tagged_again(struct __sk_buff* skb, __u8* buffer) {
  if (bpf_skb_load_bytes(skb, ETHER_HEAD, buffer, 2)) return TRUNCATED;
  return ((buffer[0] << 8 | buffer[1]) & VLAN_BITS) ? TAGGED : TRUNCATED;
}

/* Of a device without headers: where the IP packet begins. Some kernels leave the tunnel's own header before what came out
   of it. */
#define RAW_UNKNOWN 0xffffu
__noinline int tl_raw_head(struct __sk_buff* skb) {
  __u64 wanted = 0, here = 0;
  if (bpf_skb_load_bytes_relative(skb, 0, &wanted, sizeof wanted, BPF_HDR_START_NET)) return RAW_UNKNOWN;
  for (__u32 at = 0; at <= 40; at += 20)
    if (!bpf_skb_load_bytes(skb, at, &here, sizeof here) && here == wanted) return (int)at;
  return RAW_UNKNOWN;
}

__noinline int tl_parse_slowly(struct __sk_buff* skb) {
  struct room* room = room_of();
  if (!room) return TRUNCATED;
  struct packet* packet = &room->packet;
  __u8* buffer = room->buffer;
  const __u32 at = room->head;
  const int framed = at == ETHER_HEAD;
  begin_packet(skb, packet, at);
  if (framed && bpf_skb_load_bytes(skb, 12, buffer, 2)) return NOT_IP;
  __u32 type = framed ? (__u32)(buffer[0] << 8 | buffer[1]) : bpf_ntohs((__u16)skb->protocol);
  packet->ether_type = (__u16)type;
  const int tags = type == ETH_P_8021Q || type == ETH_P_8021AD;
  /* At the node's own interface, a tag of VLAN 0 has a priority only: the kernel takes the frame without it. Behind
     such a tag another one is not looked through. */
  const int of_vlan = skb->vlan_present && (room->place != TL_AT_HOST || (skb->vlan_tci & VLAN_BITS));
  if (of_vlan || (tags && room->place != TL_AT_HOST)) return TAGGED;
  if (tags) return tagged_again(skb, buffer);
  if (type == ETH_P_ARP) return IS_ARP;
  if (type == ETH_P_IPV6) return tl_parse_v6(skb);
  if (type != ETH_P_IP) return NOT_IP;
  if (bpf_skb_load_bytes(skb, at, buffer, 20) || buffer[0] >> 4 != 4) return TRUNCATED;
  __u32 head = (buffer[0] & 15u) * 4;
  if (head < 20) return TRUNCATED;
  __builtin_memcpy(packet->source, buffer + 12, 4);
  __builtin_memcpy(packet->destination, buffer + 16, 4);
  packet->protocol = buffer[9];
  packet->family = 4;
  __u32 fragment = (__u32)(buffer[6] << 8 | buffer[7]), id = (__u32)(buffer[4] << 8 | buffer[5]);
  if (fragment & FRAGMENT_BITS) return tl_fragment(skb, at + head, id, 0);
  if (fragment & MORE_FRAGMENTS) return tl_fragment(skb, at + head, id, 1);
  return tl_parse_l4(skb, at + head);
}

/* What guarding says: judge it by policies, let it through unjudged, or a reserved rule's id. */
enum { GUARD_JUDGE = 0, GUARD_PASS = -1 };
enum {
  RULE_SPOOFED_EGRESS = 21,
  RULE_SPOOFED_INGRESS = 22,
  RULE_VLAN = 23,
  RULE_ETHERTYPE = 24,
  RULE_OTHER_EGRESS = 25,
  RULE_OTHER_INGRESS = 26
};

static __always_inline struct tl_endpoint* endpoint_at(char* base, __u32 offset) {
  HOLD(offset);
  offset &= (TL_SEGMENT_SIZE - 1) & ~127u;
  if (offset > TL_SEGMENT_SIZE - sizeof(struct tl_endpoint)) return 0;
  return (struct tl_endpoint*)(base + offset);
}

static __always_inline int same16(const __u8* a, const __u8* b) {
  const __u64 *x = (const __u64*)a, *y = (const __u64*)b;
  return x[0] == y[0] && x[1] == y[1];
}

static __always_inline int is_own(struct tl_endpoint* end, const __u8* address, __u32 family) {
  for (__u32 i = 0; i < TL_END_ADDRESSES; i++) {
    if (family == 4) {
      if (i < end->count4 && end->v4[i] == *(const __u32*)address) return 1;
    } else if (i < end->count6 && same16(end->v6[i], address)) {
      return 1;
    }
  }
  return 0;
}

static __always_inline int is_link_local6(const __u8* address) {
  return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}
static __always_inline int is_udp(const struct packet* packet, __u16 from, __u16 to) {
  return packet->protocol == IPPROTO_UDP && packet->kind == KIND_PORTS && packet->source_port == from &&
         packet->destination_port == to;
}

/* Neighbour discovery that every pod may send. */
static __always_inline int asks(__u32 type) {
  return type == 131 || type == 132 || type == 133 || type == 135 || type == 143;
}
static __always_inline int hears(__u32 type) {
  return (type >= 130 && type <= 137) || type == 143;
}

__noinline int tl_guard_advertisement(struct __sk_buff* skb, __u32 root, __u32 offset) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return RULE_SPOOFED_EGRESS;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end || bpf_skb_load_bytes(skb, room->packet.l4 + 8, room->buffer, 16)) return RULE_SPOOFED_EGRESS;
  if (is_own(end, room->buffer, 6) || is_link_local6(room->buffer)) return GUARD_PASS;
  return RULE_SPOOFED_EGRESS;
}

/* Routers let nothing through that pretends to be of the link. */
static __always_inline int is_of_link(struct __sk_buff* skb, struct room* room) {
  return !bpf_skb_load_bytes(skb, room->head + 7, room->buffer, 1) && room->buffer[0] == 255;
}

/* Of one pod to its link, its node or, on a bridge, its neighbours. Everything else would be routed, and is judged. */
static __always_inline int is_discovery(struct __sk_buff* skb, struct room* room, __u32 root, __u32 bridged) {
  const __u8* to = room->packet.destination;
  if (!is_of_link(skb, room)) return 0;
  if (to[0] == 0xff || is_link_local6(to)) return 1;
  char* base = segment_of(root);
  if (!base) return 0;
  tl_find_identity(FIELD(base, root, struct tl_root, addresses), 1);
  return room->destination_flags & (bridged ? TL_OF_NODE | TL_IS_LOCAL : TL_OF_NODE);
}

static __always_inline int guard_v6(struct __sk_buff* skb, struct room* room, __u32 root, __u32 offset,
                                    int own, __u32 bridged) {
  struct packet* packet = &room->packet;
  const int icmp = packet->protocol == IPPROTO_ICMPV6 && packet->kind == KIND_ICMP;
  const __u64* words = (const __u64*)packet->source;
  const int unspecified = !words[0] && !words[1], local = is_link_local6(packet->source);
  if (own && icmp && (packet->icmp_type == 134 || packet->icmp_type == 137)) return RULE_SPOOFED_EGRESS;
  if (icmp && (own || unspecified || local)) {
    const int advertises = packet->icmp_type == 136 && !unspecified;
    if (advertises && tl_guard_advertisement(skb, root, offset) != GUARD_PASS) return RULE_SPOOFED_EGRESS;
    if ((advertises || asks(packet->icmp_type)) && (!own || is_discovery(skb, room, root, bridged))) return GUARD_PASS;
  }
  if (!own) {
    if (local && is_udp(packet, 546, 547)) return GUARD_PASS;
    return local ? RULE_OTHER_EGRESS : RULE_SPOOFED_EGRESS;
  }
  if (packet->destination[0] == 0xff || is_link_local6(packet->destination)) return RULE_OTHER_EGRESS;
  return skb->pkt_type == 1 || skb->pkt_type == 2 ? RULE_OTHER_EGRESS : GUARD_JUDGE;
}

/* What comes out of a pod: only its own addresses, to single receivers. */
__noinline int tl_guard_out(struct __sk_buff* skb, __u32 root, __u32 offset, int parsed) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return RULE_SPOOFED_EGRESS;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end || (end->flags & TL_CLOSED)) return RULE_SPOOFED_EGRESS;
  struct packet* packet = &room->packet;
  if (end->flags & TL_HAS_MAC) {
    __u8* mac = room->buffer;
    if (bpf_skb_load_bytes(skb, 6, mac, 6)) return RULE_SPOOFED_EGRESS;
    for (int i = 0; i < 6; i++)
      if (mac[i] != end->mac[i]) return RULE_SPOOFED_EGRESS;
  }
  if (parsed == TAGGED) return RULE_VLAN;
  if (parsed == NOT_IP) return RULE_ETHERTYPE;
  if (parsed == IS_ARP) {
    if (bpf_skb_load_bytes(skb, ETHER_HEAD + 14, room->buffer, 4)) return RULE_SPOOFED_EGRESS;
    __u32 sender = *(__u32*)room->buffer;
    return !sender || is_own(end, room->buffer, 4) ? GUARD_PASS : RULE_SPOOFED_EGRESS;
  }
  const int own = is_own(end, packet->source, packet->family);
  if (packet->family == 6) return guard_v6(skb, room, root, offset, own, end->flags & TL_BRIDGED);
  const __u32 to = *(__u32*)packet->destination;
  if (!own)
    return !*(__u32*)packet->source && to == 0xffffffff && is_udp(packet, 68, 67) ? GUARD_PASS
                                                                                  : RULE_SPOOFED_EGRESS;
  if (skb->pkt_type == 1 || skb->pkt_type == 2 || (packet->destination[0] & 0xf0) == 0xe0 || to == 0xffffffff)
    return RULE_OTHER_EGRESS;
  return GUARD_JUDGE;
}

/* What is delivered to a pod: by a bridge only what is for its addresses. */
__noinline int tl_guard_in(struct __sk_buff* skb, __u32 root, __u32 offset, int parsed) {
  struct room* room = room_of();
  char* base = segment_of(root);
  if (!room || !base) return RULE_OTHER_INGRESS;
  struct tl_endpoint* end = endpoint_at(base, offset);
  if (!end) return RULE_OTHER_INGRESS;
  struct packet* packet = &room->packet;
  if (parsed == IS_ARP) return GUARD_PASS;
  const int bridged = end->flags & TL_BRIDGED;
  if (parsed == NOT_IP || parsed == TAGGED)
    return bridged && parsed == TAGGED ? RULE_OTHER_INGRESS : GUARD_PASS;
  /* Neighbours ask and answer each other by their own addresses too; the node is one of each. */
  if (packet->family == 6 && packet->protocol == IPPROTO_ICMPV6 && (bridged || !skb->ingress_ifindex) &&
      hears(packet->icmp_type) && is_of_link(skb, room))
    return GUARD_PASS;
  if (is_own(end, packet->destination, packet->family)) return GUARD_JUDGE;
  if (packet->family == 6 && packet->protocol == IPPROTO_ICMPV6 && hears(packet->icmp_type))
    return GUARD_PASS;
  if (is_udp(packet, 67, 68) || is_udp(packet, 547, 546)) return GUARD_PASS;
  /* The node speaks to its link, and routes nothing but what is a pod's. */
  if (!bridged && !skb->ingress_ifindex) return GUARD_PASS;
  return RULE_OTHER_INGRESS;
}
