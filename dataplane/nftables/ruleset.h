// dataplane/nftables/ruleset.h - nftables objects as plain values: what build.h makes and encode.h sends.
//
//   Program --build.h--> [chains, sets, elements] --encode.h--> netlink messages --> kernel
//                               `--> text (`tierlog compile`, goldens): nft itself cannot print these rules
//
// Registers are numbered in 32-bit units (0 = NFT_REG32_00). Bytes are as the kernel compares them: packet
// fields and ports big-endian, mark and label words in host order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/shared_vector.h"

namespace tierlog::dataplane::nftables {

using Bytes = std::vector<std::uint8_t>;

enum class VerdictKind : std::uint8_t { Accept, Drop, Jump, Goto, Return };
struct Verdict {
  VerdictKind kind{};
  std::string chain;  // of Jump and Goto
};

// --- expressions, one struct each; field order = order of thinking
struct MetaLoad {
  std::uint32_t key;
  std::uint32_t reg;
};
struct MetaSet {
  std::uint32_t key;
  std::uint32_t reg;
};
struct PayloadLoad {
  std::uint32_t base;
  std::uint32_t offset;
  std::uint32_t length;
  std::uint32_t reg;
};
struct Compare {
  std::uint32_t reg;
  std::uint32_t op;
  Bytes value;
};
struct LoadBytes {
  std::uint32_t reg;
  Bytes value;
};
struct Mask {
  std::uint32_t reg;
  Bytes mask;
};  // reg = reg & mask, length of the mask
struct Lookup {
  std::string set;
  std::uint32_t reg;
  bool negate = false;
  bool to_verdict = false;
  std::optional<std::uint32_t> into{};  // the register that takes what the map says
};
struct CtLoad {
  std::uint32_t key;
  std::uint32_t reg;
};
struct CtSet {
  std::uint32_t key;
  std::uint32_t reg;
};
struct NoTrack {};  // no connection is made of the packet
struct Count {
  RuleId id;
};  // the rule's named counter
struct CountNamed {
  std::string name;
};  // a counter that belongs to no rule
// Adds or refreshes the element with the key at `reg`, counts in it, and goes on only when the element's
// own limit (`packets` per interval) allows.
struct UpdateMetered {
  std::string set;
  std::uint32_t reg;
  std::uint64_t interval_seconds;
  std::uint32_t packets = 1;
};
struct LimitRate {
  std::uint64_t rate;
  std::uint64_t unit_seconds;
  std::uint32_t burst;
};
struct LogTo {
  std::uint16_t group;
  std::string prefix;
  std::uint32_t snaplen;
};

using Expression = std::variant<MetaLoad, MetaSet, PayloadLoad, Compare, LoadBytes, Mask, Lookup, CtLoad,
                                CtSet, NoTrack, Count, CountNamed, UpdateMetered, LimitRate, LogTo, Verdict>;

struct NftRule {
  std::vector<Expression> expressions;
  std::string comment;  // for people who read `nft list`; at most 120 bytes reach the kernel
};

struct BaseHook {
  std::uint32_t hook;  // NF_INET_…, of a guard chain NF_NETDEV_…
  std::int32_t priority;
  std::string device{};  // of a guard chain: the interface it stands at
};

struct Chain {
  std::string name{};
  SharedVector<NftRule> rules{};
  std::optional<BaseHook> hook{};  // a filter chain, policy accept
  std::uint64_t content = 0;       // content_of it, where that is known already
};

struct Element {
  Bytes key;
  std::optional<Verdict> verdict;  // of a verdict map
  bool interval_end = false;       // the first key that is no longer inside
  Bytes data{};                    // of a map to data
};

struct Set {
  std::string name{};
  std::uint32_t key_type = 0;  // nft's data type number, for listing only
  std::uint32_t key_length = 0;
  bool interval = false;
  bool verdict_map = false;
  std::uint32_t data_length = 0;  // of a map to data
  bool metered = false;    // filled by UpdateMetered: dynamic, with timeout
  std::uint32_t size = 0;  // 0 = unlimited
  std::uint64_t timeout_ms = 0;
  SharedVector<Element> elements{};
};

// Text of one chain or set, for people and goldens.
std::string to_text(const Chain& chain);
std::string to_text(const Set& set);
std::string to_text(const NftRule& rule);

}  // namespace tierlog::dataplane::nftables
