// dataplane/ebpf/layout.h - what the BPF programs and user space both know: map entries, and the objects of
// the arena. C, so that both can read it.
//
//   encode_class.h, address_table.h --bytes--> arena --> classify.bpf.h
//
// The arena is segments of 4 MiB; a reference is segment << 22 | offset, inside one object an offset from
// the segment's start. 0 refers to nothing; offset 0 of each segment begins an empty row and an empty page.
// Numbers are in host byte order but for addresses, which are bytes: an IPv4 address takes the first four of
// sixteen. A change of anything that is pinned (flow, denied, counter, slot, loss, event) is another TL_LAYOUT.
#ifndef TIERLOG_EBPF_LAYOUT_H
#define TIERLOG_EBPF_LAYOUT_H

#include <linux/types.h>

#define TL_LAYOUT 3 /* those before it that are taken over: older_maps.h */
#define TL_SEGMENT_BITS 22
#define TL_SEGMENT_SIZE (1u << TL_SEGMENT_BITS)
#define TL_SEGMENTS 256
#define TL_FIRST_OFFSET 1024 /* of a segment: before it lie the empty row and page */

#define TL_SUMMARIES 4               /* words of a row's summary */
#define TL_WORDS (TL_SUMMARIES * 64) /* of 64 positions */
#define TL_POSITIONS (TL_WORDS * 64) /* of one class */
#define TL_ROW_HEAD (TL_SUMMARIES * 8 + TL_SUMMARIES * 2)
#define TL_SETS 64 /* that policies name and one address is in */
#define TL_SET_PROBES 8
#define TL_END_PROBES 16
#define TL_LOGS 16  /* Log rules of one packet that are told */
#define TL_PASSES 8 /* passing rules of one packet that are counted */
#define TL_CACHED 4 /* of each that the tuple cache keeps */
#define TL_NONE 0xffffffffu

/* As Direction and Action in user space. */
enum { TL_INGRESS = 0, TL_EGRESS = 1 };
enum { TL_ALLOW = 0, TL_DENY = 1, TL_PASS = 2, TL_LOG = 3, TL_NOBODY = 4 /* a class that leaves it to others */ };

struct tl_class {
  __u32 generation; /* this content's, never another one's */
  __u32 uses_source_port;
  __u32 any_source, any_destination, any_source_port, any_destination_port; /* rows without the condition */
  __u32 protocols;         /* __u32[512]: row of family (0: IPv4) << 8 | protocol */
  __u32 destination_ports; /* __u32[256] pages of __u32[256] rows */
  __u32 source_ports;
  __u32 icmp;                            /* the same form, by type << 8 | code */
  __u32 other_destination, other_source; /* rows of packets without ports (and, for the source, ICMP) */
  __u32 sets, set_mask;                  /* struct tl_set_rows[set_mask + 1] */
  __u32 rules;                           /* struct tl_rule by position, then ends of tiers and the fallback */
  __u32 word_best;                       /* __u32 per word: the best priority in it */
  __u32 tiers, tier_count;
  __u32 fallback; /* into rules */
  __u32 size;
};

struct tl_set_rows {
  __u32 set; /* 0: free */
  __u32 source, not_source, destination, not_destination;
  __u32 spare[3];
};

struct tl_rule {
  __u32 id, slot, action, priority;
};

/* Words of positions; Log rules have words of their own. */
struct tl_tier {
  __u32 word, word_end, log_word, log_end;
  __u32 end; /* into rules; TL_NONE: the tier has none and is left */
  __u32 spare[3];
};

/* Leaves of the tries and the exact table are offsets of identities; bit 31 set: of the next block. */
struct tl_addresses {
  __u32 v4;     /* __u32[65536], then blocks of 256, 16-8-8 */
  __u32 v6;     /* the same, 16-8-...-8 */
  __u32 exact6; /* struct tl_exact6[exact6_mask + 1] */
  __u32 exact6_mask;
  __u32 nobody; /* the identity of an address that is in no set */
};

/* Where an IPv6 address is looked for first; the last bytes of addresses differ most. */
static inline __u32 tl_hash6(const __u32* words) {
  __u32 hash = words[0] * 2654435761u ^ words[1] * 2246822519u ^ words[2] * 3266489917u ^ words[3];
  hash ^= hash >> 16;
  hash *= 2246822507u;
  hash ^= hash >> 13;
  hash *= 3266489909u;
  return hash ^ hash >> 16;
}

struct tl_exact6 {
  __u8 address[16];
  __u32 identity; /* 0: free */
  __u32 spare[3];
};

#define TL_OF_NODE 1u  /* an address of the node, which may reach its pods */
#define TL_IS_LOCAL 2u /* of an endpoint that is enforced here */
struct tl_identity {
  __u32 number; /* means the same for ever */
  __u16 count, flags;
  /* __u32 sets[count] follow */
};

#define TL_AUDITED 1u
#define TL_CLOSED 2u /* its pod is gone */
#define TL_BRIDGED 4u
#define TL_HAS_MAC 8u
#define TL_HOST 16u /* an interface of the node itself, under policies */
#define TL_END_ADDRESSES 4
struct tl_endpoint {
  __u32 ifindex; /* 0: free */
  __u32 flags;
  __u32 classes[2]; /* references, by direction */
  __u32 generations[2];
  __u32 count4, count6;
  __u32 v4[TL_END_ADDRESSES]; /* as in the packet */
  union {
    __u8 v6[TL_END_ADDRESSES][16];
    struct { /* of a host endpoint; references, 0: nobody is asked. By direction. */
      __u32 forward[2], untracked[2];
      __u32 pre_dnat;
    } host;
  };
  __u8 mac[6];
  __u8 spare[10];
};

struct tl_root {
  __u32 addresses; /* reference */
  __u32 address_epoch;
  __u32 endpoints, endpoint_mask; /* struct tl_endpoint[endpoint_mask + 1] */
  __u32 failsafes;                /* struct tl_failsafe[failsafe_in + failsafe_out] */
  __u32 failsafe_in, failsafe_out;
};

#define TL_FAILSAFES 64 /* of one direction */
struct tl_failsafe {
  __u8 net[16], mask[16]; /* of the other end */
  __u16 port;
  __u8 protocol, family; /* 0: any address */
  __u32 spare;
};

#define TL_HOST_BY_POLICY 1u /* what the node itself sends to its pods is judged like everything else */
#define TL_AUDITS 2u         /* nothing is dropped */
struct tl_config {
  __u32 root; /* reference: one store puts a whole Program into force */
  __u32 flags; /* TL_HOST_… */
  __u64 deny_interval, log_interval; /* nanoseconds */
  /* CLOCK_MONOTONIC: when a connection was not noted last, when an overflow was told last, when something began
     to be judged whose connections are older. */
  __u64 flows_missed_at, overflow_told_at, older_until;
};

struct tl_flow_key {
  __u8 low[16], high[16];
  __u16 low_port, high_port; /* an echo's id in both */
  __u8 protocol, family;     /* 4 or 6 */
  /* Of an exchange by ICMP: what `low` sends of it, a question or the answer. */
  __u8 icmp_type, icmp_code;
  __u8 place; /* TL_AT_… */
  __u8 spare[3];
};
/* Where it is followed: what pods send and get; what passes an interface of the node itself. */
enum { TL_AT_POD = 0, TL_AT_HOST = 1 };

#define TL_BIT_INGRESS (1u << TL_INGRESS)
#define TL_BIT_EGRESS (1u << TL_EGRESS)
#define TL_SPOKE 1
struct tl_flow {
  __u64 packets[2], bytes[2]; /* by the originator, by the other */
  __u64 first, last;          /* CLOCK_MONOTONIC, nanoseconds */
  __u32 rules[2];             /* by direction */
  __u32 generations[2];       /* of the class that said so */
  __u32 epochs[2];            /* of the addresses then */
  __u8 high_begins;           /* the originator is key.high */
  __u8 needed, allowed, cut;  /* directions: judged here, allowed, ended by a change */
  __u8 tcp[2];                /* flags seen, by side as packets; of other protocols TL_SPOKE */
  __u8 told;
  __u8 forwarded; /* at an interface of the node: it only passes, and is nobody's connection here */
  /* Who it comes from where the source was rewritten on the way (the key has the node's address); else 0. */
  __u8 real_source[16];
  /* Where the Service in the key leads, if it has one backend; else 0. */
  __u8 backend[16];
  __u16 backend_port;
  __u16 judged_at[2]; /* at an interface of the node: the lower half of its index, by direction; 0: not known */
  __u16 spare2;
};

enum { TL_ENTRY_DENIED = 0, TL_ENTRY_LOGGED = 1 };
struct tl_denied_key {
  __u8 source[16], destination[16];
  __u32 rule; /* 0: without a connection, allowed */
  __u16 port; /* destination port; type << 8 | code */
  __u8 protocol, family;
  __u8 kind;
  __u8 alone; /* as in the event: who lets it out by another key tells of it by itself */
  __u8 spare[2];
};
struct tl_denied {
  __u64 packets, bytes;
  __u64 last, told; /* CLOCK_MONOTONIC */
};

struct tl_counter {
  __u64 packets, bytes, messages, frames;
};
/* The rule of a counter's slot, and what maps before these counted for it. Only user space reads and writes it. */
struct tl_slot {
  __u32 rule, spare; /* 0: free, or reserved */
  struct tl_counter before;
};
#define TL_SLOTS 65536
#define TL_RING_BYTES 16777216
#define TL_FIRST_SLOT 256 /* below it the slot of a reserved rule is its id */

enum {
  TL_LOSS_RING,
  TL_LOSS_DENIED_FULL,
  TL_LOSS_FLOW_FULL,
  TL_LOSS_LOGS, /* Log rules of one packet beyond TL_LOGS */
  TL_LOSS_LEFT, /* entries of maps before these that were not taken over */
  TL_LOSSES     /* behind these, the same of maps before these: written by user space only */
};

/* As EventKind in user space, and the end of a connection. */
enum {
  TL_EVENT_ALLOWED,
  TL_EVENT_DENIED,
  TL_EVENT_LOGGED,
  TL_EVENT_OVERFLOW,
  TL_EVENT_STATELESS,
  TL_EVENT_ENDED
};
struct tl_event {
  __u64 time; /* CLOCK_MONOTONIC */
  __u32 kind, rule;
  __u32 length, in_interface, out_interface;
  __u16 source_port, destination_port, icmp_id;
  __u8 source[16], destination[16];
  __u8 protocol, family, icmp_type, icmp_code, tcp_flags;
  __u8 is_service; /* sent to `service`; `destination` is its only backend, or the same where it has several */
  __u16 service_port;
  __u8 service[16];
  __u8 in_connection; /* denied: it was allowed until now; counted by no entry */
  __u8 alone;         /* denied: what let it leave its source has told so by itself */
  __u8 spare[6];
};
struct tl_ended {
  __u64 time;
  __u32 kind, spare;
  struct tl_flow_key key;
  struct tl_flow flow;
};

#define TL_SERVICES 65536
#define TL_BACKENDS 16
struct tl_service_key {
  __u8 address[16];
  __u16 port;
  __u8 protocol, family;
};
struct tl_backend {
  __u8 address[16];
  __u16 port, spare;
};
struct tl_service {
  __u32 count; /* TL_NONE: more than TL_BACKENDS that policies may tell apart */
  struct tl_backend backends[TL_BACKENDS];
};

struct tl_fragment_key {
  __u8 source[16], destination[16];
  __u32 id;
  __u8 protocol, family, spare[2];
};
struct tl_fragment {
  __u16 source_port, destination_port;
  __u8 icmp_type, icmp_code;
  __u16 icmp_id;
};

/* Who sent what comes in by an interface of the node and gets another source on its way to a pod: the packet carries
   TL_CARRIES | slot in tc_index. Taken by whoever comes first, given back by user space. */
#define TL_CARRIES 0x8000u
#define TL_ORIGINS 32768
#define TL_ORIGIN_PROBES 8
struct tl_origin_of {
  __u8 address[16];
  __u64 last; /* CLOCK_MONOTONIC */
};

/* Messages of one Log rule, in nanoseconds: each costs so much, and so much may be owed. */
struct tl_log_limit {
  __u64 cost, depth;
  __u64 paid_until; /* CLOCK_MONOTONIC */
};

/* To the program `merge`, behind an Ethernet header: what a map before this one noted of a connection or a denied flow
   since it was copied, or all of it. */
enum { TL_MERGE_FLOW, TL_MERGE_DENIED };
struct tl_merged {
  __u32 kind, is_new;
  union {
    struct {
      struct tl_flow_key key;
      struct tl_flow value;
    } flow;
    struct {
      struct tl_denied_key key;
      struct tl_denied value;
    } denied;
  };
};

/* To the program `ask`, behind an Ethernet header; the answer takes its place. */
struct tl_question {
  __u32 root, klass;
  __u8 source[16], destination[16];
  __u16 source_port, destination_port;
  __u8 protocol, family, icmp_type, icmp_code;
};
struct tl_answer {
  __u32 id, action;
  __u32 pass_count, log_count;
  __u32 logs[4];
  __u32 cached;
};

#endif
