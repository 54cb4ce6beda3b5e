// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What the kernel tells at its tracepoints, summed up: dropped packets by reason, TCP flags at the uplinks,
// retransmissions and round trip times by a pod's address. No map but the program's own variables (kernel.h).
#include <linux/bpf.h>
#include <linux/types.h>
// after the types
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "exporters/prometheus/node/kernel.h"

// BPF_PROG makes functions of parameters that not every program reads.
#pragma clang diagnostic ignored "-Wunused-parameter"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define KERNEL __attribute__((preserve_access_index))

// Of the running kernel's types only the fields that are read; libbpf finds them.
struct ns_common {
  unsigned int inum;
} KERNEL;
struct net {
  struct ns_common ns;
} KERNEL;
typedef struct {
  struct net* net;
} possible_net_t;
struct net_device {
  int ifindex;
  possible_net_t nd_net;
} KERNEL;
struct in6_addr___tl {
  __u8 bytes[16];
};
struct sock_common {
  unsigned short skc_family;
  unsigned int skc_rcv_saddr;
  struct in6_addr___tl skc_v6_rcv_saddr;
  possible_net_t skc_net;
} KERNEL;
struct sock {
  struct sock_common __sk_common;
} KERNEL;
struct tcp_sock {
  __u32 srtt_us;
} KERNEL;
struct sk_buff {
  unsigned int len;
  struct net_device* dev;
  struct sock* sk;
  int skb_iif;
  __u16 protocol;
  __u16 network_header;
  unsigned char* head;
  unsigned char* data;
} KERNEL;

// Written by the reader before it attaches.
const volatile __u32 own_netns = 0;  // inode of the network namespace whose drops count

struct tl_amount drops[TL_REASONS][TL_DIRECTIONS];
__u64 flags[TL_FLAGS];
__u8 uplink[TL_INTERFACES];
struct tl_address addresses[TL_ADDRESSES];

enum { kInet = 2, kInet6 = 10, kTcp = 6, kEstablished = 1, kClose = 7 };

static __always_inline void add(__u64* to, __u64 value) {
  __sync_fetch_and_add(to, value);
}

// Packets of the node's namespace: at an interface of it, or of an internet socket of it (then the field that holds the
// interface may hold something else). Messages of netlink and of local sockets are no packets.
static __always_inline int is_ours(struct sk_buff* skb, struct sock* sk) {
  struct net_device* dev = BPF_CORE_READ(skb, dev);
  if (dev && BPF_CORE_READ(dev, nd_net.net, ns.inum) == own_netns) return 1;
  if (!sk) return 0;
  unsigned short family = BPF_CORE_READ(sk, __sk_common.skc_family);
  if (family != kInet && family != kInet6) return 0;
  return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) == own_netns;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_drop, struct sk_buff* skb, void* location, unsigned int reason) {
  struct sock* sk = BPF_CORE_READ(skb, sk);
  if (!is_ours(skb, sk)) return 0;
  __u32 slot = reason < TL_REASONS ? reason : 0;
  __u32 direction = BPF_CORE_READ(skb, skb_iif) == 0 && sk ? 1 : 0;
  struct tl_amount* amount = &drops[slot & (TL_REASONS - 1)][direction & 1];
  add(&amount->packets, 1);
  add(&amount->bytes, BPF_CORE_READ(skb, len));
  return 0;
}

static __always_inline int is_uplink(struct sk_buff* skb) {
  struct net_device* dev = BPF_CORE_READ(skb, dev);
  if (!dev || BPF_CORE_READ(dev, nd_net.net, ns.inum) != own_netns) return 0;
  __u32 index = BPF_CORE_READ(dev, ifindex);
  return index < TL_INTERFACES && uplink[index & (TL_INTERFACES - 1)];
}

static __always_inline void count_flags(struct sk_buff* skb, unsigned char* ip) {
  __u8 header[40];
  __u16 protocol = BPF_CORE_READ(skb, protocol);
  __u32 at;
  if (protocol == bpf_htons(0x0800)) {
    if (bpf_probe_read_kernel(header, 20, ip) < 0) return;
    // Later fragments have no TCP header.
    if (header[9] != kTcp || ((header[6] & 0x1f) | header[7])) return;
    at = (header[0] & 0x0f) * 4;
  } else if (protocol == bpf_htons(0x86dd)) {
    if (bpf_probe_read_kernel(header, 40, ip) < 0) return;
    if (header[6] != kTcp) return;
    at = 40;
  } else {
    return;
  }
  __u8 bits = 0;
  if (bpf_probe_read_kernel(&bits, 1, ip + at + 13) < 0) return;
  for (int i = 0; i < TL_FLAGS; ++i)
    if (bits & (1 << i)) add(&flags[i], 1);
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive, struct sk_buff* skb) {
  if (is_uplink(skb)) count_flags(skb, BPF_CORE_READ(skb, data));
  return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_send, struct sk_buff* skb) {
  if (is_uplink(skb)) count_flags(skb, BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header));
  return 0;
}

// The pod's row; its sockets are in a namespace of their own, their addresses are the node's business.
static __always_inline struct tl_address* row_of(struct sock* sk) {
  __u64 words[2] = {0, 0};
  __u8* bytes = (__u8*)words;
  unsigned short family = BPF_CORE_READ(sk, __sk_common.skc_family);
  if (family == kInet) {
    __u32 address = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
    __builtin_memcpy(bytes + 12, &address, 4);
    bytes[10] = bytes[11] = 0xff;
  } else if (family == kInet6) {
    bpf_core_read(words, sizeof words, &sk->__sk_common.skc_v6_rcv_saddr);
  } else {
    return 0;
  }
  __u32 slot = tl_slot(bytes);
  for (int i = 0; i < TL_PROBES; ++i) {
    struct tl_address* row = &addresses[(slot + i) & (TL_ADDRESSES - 1)];
    if (!row->used) return 0;
    if (row->words[0] == words[0] && row->words[1] == words[1]) return row;
  }
  return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(on_retransmission, struct sock* sk) {
  struct tl_address* row = row_of(sk);
  if (row) add(&row->retransmissions, 1);
  return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock* sk, int before, int now) {
  if (now != kClose || before == now) return 0;
  __u32 rtt = BPF_CORE_READ((struct tcp_sock*)sk, srtt_us) >> 3;  // kept times eight
  if (rtt == 0) return 0;
  struct tl_address* row = row_of(sk);
  if (!row) return 0;
  add(&row->rtt_us, rtt);
  add(&row->rtt_samples, 1);
  return 0;
}
