// store/patterns.h - what a user types to name things: shell patterns, /RE2/, addresses, ports, POLICY.
//
//   text of an option --parse--> predicate --store/filter_sql.h--> SQL
//
// Each parse names the option's kind in its error: "policy a/b/c/d; expected NAME, NS/NAME, …".
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/net_types.h"
#include "base/result.h"

namespace tierlog::store {

using TextPredicate = std::function<bool(std::string_view)>;

// "what VALUE; expected EXPECTED".
Error bad_value(std::string_view what, std::string_view value, std::string_view expected);

// Exact text, shell pattern (* ? [a-z]) or /RE2/ (found anywhere). Never matches empty text.
Result<TextPredicate> parse_text_pattern(std::string_view what, const std::string& value);

// Over displays "tier/ns/name": NAME, NS/NAME, TIER/NS/NAME (cluster-wide: /NAME, TIER//NAME), each part
// a shell pattern, or /RE2/ over the whole display.
Result<TextPredicate> parse_policy_pattern(const std::string& value);

// Whom a peer predicate sees.
struct PeerText {
  std::string_view ip, peer_namespace, name, workload;
};
using PeerPredicate = std::function<bool(const PeerText&)>;

// An address or CIDR.
Result<PeerPredicate> parse_address(std::string_view what, const std::string& value);
// An address, CIDR, NS/POD or pattern of a name. A name means a pod (node, network set) or its workload.
Result<PeerPredicate> parse_peer(std::string_view what, const std::string& value);

// "5432", "8000-8100", "8000:8100".
Result<PortRange> parse_port_range(const std::string& value);

// "ingress[2]", "2", "0x2a", "end-of-tier".
struct RuleFilter {
  std::optional<int> index;  // -1 = end of tier
  std::optional<Direction> direction;
  std::optional<RuleId> id;
};
Result<RuleFilter> parse_rule(const std::string& value);

// KEY=VALUE or a selector expression, over labels as JSON text.
Result<TextPredicate> parse_label(const std::string& value);

// The values of an option: commas separate, but not inside /RE2/, quotes, braces or parentheses.
std::vector<std::string> split_values(const std::vector<std::string>& values);

}  // namespace tierlog::store
