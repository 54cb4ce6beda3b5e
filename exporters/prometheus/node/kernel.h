// exporters/prometheus/node/kernel.h - memory that the BPF program (events.bpf.c) and its reader share.
//
// All of it is in the program's .bss, which libbpf maps: after loading nobody needs the bpf() call any more,
// and the daemon's filter of system calls does not allow it. Counters only grow.
#pragma once

#ifdef __cplusplus
#include <cstdint>
using tl_u64 = std::uint64_t;
using tl_u32 = std::uint32_t;
using tl_u8 = std::uint8_t;
#else
typedef unsigned long long tl_u64;
typedef unsigned int tl_u32;
typedef unsigned char tl_u8;
#endif

enum {
  TL_REASONS = 512,      // of the core; those of subsystems (above 16 bits) count in slot 0
  TL_DIRECTIONS = 2,     // 0 ingress: it came in at an interface; 1 egress: a socket of the node made it
  TL_FLAGS = 8,          // FIN SYN RST PSH ACK URG ECE CWR
  TL_INTERFACES = 1024,  // by ifindex
  TL_ADDRESSES = 4096,   // of pods, a table with open addressing
  TL_PROBES = 16,
};

struct tl_amount {
  tl_u64 packets, bytes;
};

struct tl_address {
  tl_u64 used;      // written last
  tl_u64 words[2];  // the address's 16 bytes; IPv4 as ::ffff:a.b.c.d
  tl_u64 retransmissions, rtt_us, rtt_samples;
};

// FNV-1a over the 16 bytes: where an address is looked for first.
static inline tl_u32 tl_slot(const tl_u8* bytes) {
  tl_u32 hash = 2166136261u;
  for (int i = 0; i < 16; ++i) hash = (hash ^ bytes[i]) * 16777619u;
  return hash % TL_ADDRESSES;
}
