// cli/format.h - values as people read them: numbers, sizes, ages, peers, ports, rules, verdicts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/text.h"
#include "base/time.h"
#include "cli/table.h"
#include "store/record.h"

namespace tierlog::cli {

std::string short_count(std::uint64_t value);                         // "999", "1.2 k", "19.2 M"
std::string bytes_text(std::uint64_t bytes);                          // "960 B", "1.9 GiB"
std::string ago(std::optional<WallTime> then, WallTime now);          // "3 s ago", "never"
Cell time_cell(WallTime t);                                           // full, brief without the year

// "tenant-01/db-0", "node n1", "set ns/NAME 198.51.100.7", "outside 203.0.113.9".
std::string peer_text(const store::Peer& peer);
Cell peer_cell(const store::Peer& peer);  // brief without what the address or name says by itself
// "5432/tcp", "icmp echo-request", "icmp type 3 code 1", "protocol 47".
std::string port_text(std::uint8_t proto, std::optional<std::uint16_t> port,
                      std::optional<std::uint8_t> icmp_type, std::optional<std::uint8_t> icmp_code);
Cell port_cell(const store::FlowRecord& record);  // brief "icmp echo", "icmp 3/1"

// "ingress[2]", "end-of-tier", or the reason when no rule decided.
std::string rule_text(Direction direction, std::optional<int> index, std::string_view reason);
std::string rule_text(const store::FlowRecord& record);
std::string id_text(RuleId rule);  // "2a", "-" for none
Style style_of(store::Verdict verdict);

std::string or_dash(std::string_view text);

}  // namespace tierlog::cli
