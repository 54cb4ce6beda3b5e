// dataplane/nftables/build_rules.h - the chains that depend on one RuleId alone, and flow keys.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {

// Words of the connection label.
inline constexpr std::uint32_t kEgressWord = 0;
inline constexpr std::uint32_t kIngressWord = 1;
constexpr std::uint32_t label_word(Direction d) {
  return d == Direction::Egress ? kEgressWord : kIngressWord;
}

std::string rule_chain_name(RuleId id);          // "r<hex>": what a match goes to
std::string log_chain_name(RuleId id);           // "g<hex>": Log action, jumped to
std::string first_packet_chain_name(RuleId id);  // "l<hex>": one message per allowed connection

// Deny: count, id into the mark, on to the shared deny chain. Allow: count once a connection, id into the
// label, and fall off the end.
Chain verdict_chain(RuleId id, Direction direction, bool allows, const std::string& comment);
Chain log_chain(RuleId id, const std::string& comment, const TableOptions& options);
Chain first_packet_chain(RuleId id, const TableOptions& options);
Element first_packet_element(RuleId id);

enum class FlowKind : std::uint8_t { Ports, Icmp, Other };
// Restricts to the family and kind and loads saddr . daddr . l4proto . (dport | type,code | 0) . id from
// register 0; the id is the packet's mark unless given. 20 bytes (v4) or 44 (v6).
Phrase flow_key(Family family, FlowKind kind, std::optional<RuleId> id);

}  // namespace tierlog::dataplane::nftables
