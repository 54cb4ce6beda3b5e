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
inline constexpr std::uint32_t kFlagsWord = 3;
constexpr std::uint32_t label_word(Direction d) {
  return d == Direction::Egress ? kEgressWord : kIngressWord;
}

// Bytes of a flow key.
inline constexpr std::uint32_t kFlowKeyV4 = 20;
inline constexpr std::uint32_t kFlowKeyV6 = 44;

std::string rule_chain_name(RuleId id);          // "r<hex>": what a match goes to
bool is_verdict_chain(const std::string& name);  // whether it is such a chain's name
std::string log_chain_name(RuleId id);           // "g<hex>": Log action, jumped to

// Deny: count, id into the mark, on to the shared deny chain; in audit mode count, meter, log, and let it be.
// Allow: count once a connection, id into the label, and fall off the end; what has no connection is
// counted packet by packet.
Chain verdict_chain(RuleId id, Direction direction, bool allows, const std::string& comment,
                    const TableOptions& options);
// "g<hex>": count, and of each flow one packet an interval to "m<hex>", which keeps to the rule's rate.
std::vector<Chain> log_chains(RuleId id, const std::string& comment, const policy::LogRate& rate,
                              const TableOptions& options);
// Where denied packets of all rules end, their id in the mark. `of` frames in a netdev table or packets.
enum class Seen : std::uint8_t { Packets, Frames };
Chain deny_chain(Seen of, const TableOptions& options);
// Sets that deny_chain and flow_key refer to.
std::vector<Set> flow_sets(const TableOptions& options);
Set metered_set(std::string name, std::uint32_t key_length, const TableOptions& options);

enum class FlowKind : std::uint8_t { Ports, Icmp, Other };
// Restricts to the family and kind and loads saddr . daddr . l4proto . (dport | type,code | 0) . id from
// register 0; the id is the packet's mark unless given. 20 bytes (v4) or 44 (v6).
Phrase flow_key(Family family, FlowKind kind, std::optional<RuleId> id, Seen of = Seen::Packets);

}  // namespace tierlog::dataplane::nftables
