// dataplane/ebpf/classify.bpf.h - from a packet's addresses and ports to the rule that decides.
//
// address -> identity (a list of sets), port and protocol -> row of positions; a tuple of these that was seen
// before is in the tuple cache, else rows of all its sets are walked, AND of ORs, 64 positions a word.
// A step of a loop is a global function with its state in the room: the verifier sees it once. The kernel
// allows eight frames, so what is called at one place only is inlined.
#pragma once
#include "dataplane/ebpf/maps.bpf.h"

static __always_inline __u32 bits_in(__u64 x) {
  x -= (x >> 1) & 0x5555555555555555ULL;
  x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
  return (x * 0x0101010101010101ULL) >> 56;
}
static __always_inline __u32 lowest_bit(__u64 x) {
  return bits_in((x & -x) - 1);
}

/* One word of a row; `bit` is the word's in the summary. */
static __always_inline __u64 row_word(char* base, __u32 row, __u32 summary, __u64 bit) {
  __u64 present = load64(base, (__u64)row + summary * 8);
  if (!(present & bit)) return 0;
  __u32 rank = load16(base, (__u64)row + TL_SUMMARIES * 8 + summary * 2) + bits_in(present & (bit - 1));
  return load64(base, (__u64)row + TL_ROW_HEAD + (__u64)rank * 8);
}

/* Which of 64 words may hold a match. */
__noinline __u64 tl_summary(__u32 summary) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  __u64 at = (summary & (TL_SUMMARIES - 1)) * 8;
  __u64 words = load64(base, room->protocol_row + at);
  words &= load64(base, room->destination_port_row + at) | load64(base, room->any_destination_port + at);
  if (room->uses_source_port)
    words &= load64(base, room->source_port_row + at) | load64(base, room->any_source_port + at);
  if (!words) return 0;
  __u64 side = load64(base, room->any_source + at);
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= room->in_count[0]) break;
    side |= load64(base, room->in_rows[0][i] + at);
  }
  words &= side;
  if (!words) return 0;
  side = load64(base, room->any_destination + at);
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= room->in_count[1]) break;
    side |= load64(base, room->in_rows[1][i] + at);
  }
  return words & side;
}

/* The positions of one word that match. */
__noinline __u64 tl_word(__u32 summary, __u64 bit) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  summary &= TL_SUMMARIES - 1;
  __u64 found = row_word(base, room->protocol_row, summary, bit);
  found &= row_word(base, room->destination_port_row, summary, bit) |
           row_word(base, room->any_destination_port, summary, bit);
  if (!found) return 0;
  if (room->uses_source_port)
    found &= row_word(base, room->source_port_row, summary, bit) |
             row_word(base, room->any_source_port, summary, bit);
  __u64 side = row_word(base, room->any_source, summary, bit);
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= room->in_count[0]) break;
    side |= row_word(base, room->in_rows[0][i], summary, bit);
  }
  found &= side;
  if (!found) return 0;
  side = row_word(base, room->any_destination, summary, bit);
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= room->in_count[1]) break;
    side |= row_word(base, room->in_rows[1][i], summary, bit);
  }
  found &= side;
  if (!found) return 0;
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= room->not_count[0]) break;
    found &= ~row_word(base, room->not_rows[0][i], summary, bit);
  }
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= room->not_count[1]) break;
    found &= ~row_word(base, room->not_rows[1][i], summary, bit);
  }
  return found;
}

/* Words [room->summary * 64 …) up to room->word_end that may hold a match. */
static __always_inline __u64 words_up_to_end(struct room* room) {
  __u32 first = room->summary * 64;
  if (first >= room->word_end) return 0;
  __u64 words = tl_summary(room->summary);
  __u32 count = room->word_end - first;
  if (count < 64) words &= (1ULL << count) - 1;
  return words;
}

static __always_inline void begin_words(struct room* room, __u32 word, __u32 end) {
  room->summary = word >> 6;
  room->word_end = end;
  room->words = words_up_to_end(room) & (~0ULL << (word & 63));
}

/* The next tier's rules, or the class's fallback. 1: decided. */
static __always_inline int tl_enter_tier(void) {
  struct room* room = room_of();
  if (!room) return 1;
  char* base = segment_of(room->klass);
  if (!base) return 1;
  if (room->tier >= room->tier_count) {
    room->result = FIELD(base, room->klass, struct tl_class, fallback);
    return 1;
  }
  __u32 at = room->tiers + room->tier * sizeof(struct tl_tier);
  room->best = TL_NONE;
  room->is_log_phase = 0;
  room->log_bits = 0;
  begin_words(room, FIELD(base, at, struct tl_tier, word), FIELD(base, at, struct tl_tier, word_end));
  return 0;
}

/* All rules of a tier were looked at. 1: decided. */
static __always_inline int tl_leave_tier(void) {
  struct room* room = room_of();
  if (!room) return 1;
  char* base = segment_of(room->klass);
  if (!base) return 1;
  __u32 at = room->tiers + room->tier * sizeof(struct tl_tier);
  if (!room->is_log_phase) {
    __u32 word = FIELD(base, at, struct tl_tier, log_word), end = FIELD(base, at, struct tl_tier, log_end);
    if (word < end) {
      room->is_log_phase = 1;
      begin_words(room, word, end);
      return 0;
    }
  }
  __u32 position = room->best == TL_NONE ? FIELD(base, at, struct tl_tier, end) : room->best_position;
  room->tier++;
  if (position != TL_NONE) {
    if (load32(base, (__u64)room->rules + position * 16 + 8) != TL_PASS) {
      room->result = position;
      return 1;
    }
    __u32 count = room->pass_count;
    if (count < TL_PASSES) {
      room->passes[count & (TL_PASSES - 1)] = position;
      room->pass_count = count + 1;
    }
  }
  return tl_enter_tier();
}

/* One Log rule among room->log_bits; those behind the deciding rule were never reached. */
static __always_inline int tl_take_log(void) {
  struct room* room = room_of();
  if (!room) return 1;
  char* base = segment_of(room->klass);
  if (!base) return 1;
  __u64 bits = room->log_bits;
  __u32 position = room->log_word_index * 64 + lowest_bit(bits);
  __u64 at = (__u64)room->rules + position * 16;
  if (load32(base, at + 12) >= room->best) {
    room->log_bits = 0;
    room->words = 0;
    room->word_end = 0;
    return 0;
  }
  room->log_bits = bits & (bits - 1);
  __u32 count = room->log_count;
  /* Alternatives of one rule lie side by side. */
  if (count > 0 && count <= TL_LOGS &&
      load32(base, (__u64)room->rules + room->logs[(count - 1) & (TL_LOGS - 1)] * 16) == load32(base, at))
    return 0;
  if (count < TL_LOGS) room->logs[count & (TL_LOGS - 1)] = position;
  room->log_count = count + 1;
  return 0;
}

/* 1: decided, in room->result. */
__noinline int tl_step(void) {
  struct room* room = room_of();
  if (!room) return 1;
  if (room->log_bits) return tl_take_log();
  __u64 words = room->words;
  if (!words) {
    room->summary++;
    if (room->summary * 64 >= room->word_end) return tl_leave_tier();
    room->words = words_up_to_end(room);
    return 0;
  }
  char* base = segment_of(room->klass);
  if (!base) return 1;
  __u64 bit = words & -words;
  room->words = words & (words - 1);
  __u32 word = room->summary * 64 + lowest_bit(bit);
  if (load32(base, (__u64)room->word_best + word * 4) >= room->best) return 0;
  __u64 found = tl_word(room->summary, bit);
  if (!found) return 0;
  if (room->is_log_phase) {
    room->log_bits = found;
    room->log_word_index = word;
    return 0;
  }
  __u32 position = word * 64 + lowest_bit(found);
  __u32 priority = load32(base, (__u64)room->rules + position * 16 + 12);
  if (priority < room->best) {
    room->best = priority;
    room->best_position = position;
  }
  return 0;
}

__noinline int tl_take_set(__u32 set, __u32 side) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  __u32 table = FIELD(base, room->klass, struct tl_class, sets);
  __u32 mask = FIELD(base, room->klass, struct tl_class, set_mask);
  __u32 hash = (set * 2654435761u) >> 7;
  side &= 1;
  for (__u32 i = 0; i < TL_SET_PROBES; i++) {
    __u64 at = (__u64)table + ((hash + i) & mask) * sizeof(struct tl_set_rows);
    __u32 found = load32(base, at);
    if (!found) return 0;
    if (found != set) continue;
    at += 4 + side * 8;
    __u32 row = load32(base, at), count = room->in_count[side];
    if (row && count < TL_SETS) {
      room->in_rows[side][count & (TL_SETS - 1)] = row;
      room->in_count[side] = count + 1;
    }
    row = load32(base, at + 4);
    count = room->not_count[side];
    if (row && count < TL_SETS) {
      room->not_rows[side][count & (TL_SETS - 1)] = row;
      room->not_count[side] = count + 1;
    }
    return 0;
  }
  return 0;
}

__noinline int tl_gather(__u32 addresses, __u32 identity, __u32 side) {
  char* base = segment_of(addresses);
  struct room* room = room_of();
  if (!base || !room) return 0;
  side &= 1;
  room->in_count[side] = 0;
  room->not_count[side] = 0;
  __u32 count = load16(base, (__u64)identity + 4);
  for (__u32 i = 0; i < TL_SETS; i++) {
    if (i >= count) break;
    tl_take_set(load32(base, (__u64)identity + 8 + i * 4), side);
  }
  return 0;
}

static __always_inline __u32 exact6(char* base, __u32 table, __u32 mask, const __u8* address) {
  const __u32* words = (const __u32*)address;
  __u32 hash = tl_hash6(words);
  for (__u32 i = 0; i < TL_SET_PROBES; i++) {
    __u64 at = (__u64)table + ((hash + i) & mask) * sizeof(struct tl_exact6);
    __u32 identity = load32(base, at + 16);
    if (!identity) return 0;
    if (load32(base, at) == words[0] && load32(base, at + 4) == words[1] &&
        load32(base, at + 8) == words[2] && load32(base, at + 12) == words[3])
      return identity;
  }
  return 0;
}

/* The identity of one end; side 0: the source. */
__noinline int tl_find_identity(__u32 addresses, __u32 side) {
  char* base = segment_of(addresses);
  struct room* room = room_of();
  if (!base || !room) return 0;
  const __u8* address = side ? room->packet.destination : room->packet.source;
  __u32 entry;
  if (room->packet.family == 4) {
    entry = load32(
        base, (__u64)FIELD(base, addresses, struct tl_addresses, v4) + (address[0] << 8 | address[1]) * 4);
    if (entry >> 31) entry = load32(base, (__u64)entry + address[2] * 4);
    if (entry >> 31) entry = load32(base, (__u64)entry + address[3] * 4);
  } else {
    entry = exact6(base, FIELD(base, addresses, struct tl_addresses, exact6),
                   FIELD(base, addresses, struct tl_addresses, exact6_mask), address);
    if (!entry) {
      entry = load32(
          base, (__u64)FIELD(base, addresses, struct tl_addresses, v6) + (address[0] << 8 | address[1]) * 4);
      for (__u32 i = 2; i < 16; i++) {
        if (!(entry >> 31)) break;
        entry = load32(base, (__u64)entry + address[i] * 4);
      }
    }
  }
  if (!entry) entry = FIELD(base, addresses, struct tl_addresses, nobody);
  __u32 number = load32(base, entry), flags = load16(base, (__u64)entry + 6);
  if (side) {
    room->destination = entry;
    room->destination_number = number;
    room->destination_flags = flags;
  } else {
    room->source = entry;
    room->source_number = number;
    room->source_flags = flags;
  }
  return 0;
}

static __always_inline __u32 port_row(char* base, __u32 table, __u32 port) {
  if (!table) return 0;
  __u32 page = load32(base, (__u64)table + (port >> 8) * 4);
  return load32(base, (__u64)page + (port & 255) * 4);
}

/* Rows of what the packet is, from the class's tables. */
__noinline int tl_find_rows(void) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  const __u32 klass = room->klass;
  room->rules = FIELD(base, klass, struct tl_class, rules);
  room->uses_source_port = FIELD(base, klass, struct tl_class, uses_source_port);
  room->protocol_row = load32(base, (__u64)FIELD(base, klass, struct tl_class, protocols) +
                                        ((room->packet.family == 6) << 8 | room->packet.protocol) * 4);
  room->source_port_row = 0;
  room->destination_port_row = 0;
  if (room->packet.kind == KIND_PORTS) {
    room->destination_port_row =
        port_row(base, FIELD(base, klass, struct tl_class, destination_ports), room->packet.destination_port);
    if (room->uses_source_port)
      room->source_port_row =
          port_row(base, FIELD(base, klass, struct tl_class, source_ports), room->packet.source_port);
  } else if (room->packet.kind != KIND_FRAGMENT) {
    if (room->packet.kind == KIND_ICMP)
      room->destination_port_row = port_row(base, FIELD(base, klass, struct tl_class, icmp),
                                            room->packet.icmp_type << 8 | room->packet.icmp_code);
    else
      room->destination_port_row = FIELD(base, klass, struct tl_class, other_destination);
    room->source_port_row = FIELD(base, klass, struct tl_class, other_source);
  }
  return 0;
}

/* The walk through all rules of the class. */
__noinline int tl_walk(__u32 addresses) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  const __u32 klass = room->klass;
  room->any_source = FIELD(base, klass, struct tl_class, any_source);
  room->any_destination = FIELD(base, klass, struct tl_class, any_destination);
  room->any_source_port = FIELD(base, klass, struct tl_class, any_source_port);
  room->any_destination_port = FIELD(base, klass, struct tl_class, any_destination_port);
  room->word_best = FIELD(base, klass, struct tl_class, word_best);
  room->tiers = FIELD(base, klass, struct tl_class, tiers);
  room->tier_count = FIELD(base, klass, struct tl_class, tier_count);
  room->tier = 0;
  room->pass_count = 0;
  room->log_count = 0;
  room->result = TL_NONE;
  tl_gather(addresses, room->source, 0);
  tl_gather(addresses, room->destination, 1);
  if (tl_enter_tier()) return 0;
  for (__u32 i = 0; i < 4 * TL_WORDS; i++)
    if (tl_step()) break;
  return 0;
}

static __always_inline int from_cache(struct room* room) {
  struct cached* found = bpf_map_lookup_elem(&tuples, &room->cache_key);
  if (!found) return 0;
  room->result = found->result;
  room->pass_count = found->pass_count;
  room->log_count = found->log_count;
  for (__u32 i = 0; i < TL_CACHED; i++) {
    room->passes[i] = found->passes[i];
    room->logs[i] = found->logs[i];
  }
  return 1;
}

static __always_inline void into_cache(struct room* room) {
  if (room->pass_count > TL_CACHED || room->log_count > TL_CACHED || room->result == TL_NONE) return;
  struct cached* value = &room->cached_value;
  value->result = room->result;
  value->pass_count = room->pass_count;
  value->log_count = room->log_count;
  for (__u32 i = 0; i < TL_CACHED; i++) {
    value->passes[i] = room->passes[i];
    value->logs[i] = room->logs[i];
  }
  bpf_map_update_elem(&tuples, &room->cache_key, value, BPF_ANY);
}

/* room->packet, identities and room->klass -> room->rule, passes, logs. 0: nobody decided. */
static __always_inline int tl_classify(__u32 addresses) {
  struct room* room = room_of();
  if (!room) return 0;
  char* base = segment_of(room->klass);
  if (!base) return 0;
  tl_find_rows();
  room->cache_key.generation = FIELD(base, room->klass, struct tl_class, generation);
  room->cache_key.source = room->source_number;
  room->cache_key.destination = room->destination_number;
  room->cache_key.source_port = room->source_port_row;
  room->cache_key.destination_port = room->destination_port_row;
  room->cache_key.protocol = room->protocol_row;
  room->cached = from_cache(room);
  if (!room->cached) {
    tl_walk(addresses);
    into_cache(room);
  }
  if (room->result == TL_NONE) return 0;
  __u64 at = (__u64)room->rules + room->result * 16;
  room->rule.id = load32(base, at);
  room->rule.slot = load32(base, at + 4);
  room->rule.action = load32(base, at + 8);
  return 1;
}
