// dataplane/nftables/expr.h - the phrases that rules are made of. Each returns expressions that hold or end
// the rule; register use is local to the phrase (a phrase loads all it compares).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/ids.h"
#include "base/net_types.h"
#include "dataplane/nftables/ruleset.h"

namespace tierlog::dataplane::nftables {

enum class Side : std::uint8_t { Source, Destination };

// Joins phrases into one rule.
class Phrase {
 public:
  Phrase& operator+=(Expression expression);
  Phrase& operator+=(const Phrase& other);
  std::vector<Expression> expressions;
};
Phrase operator+(Phrase left, const Phrase& right);
Phrase just(Expression expression);

Bytes big_endian16(std::uint16_t value);
Bytes host_word(std::uint32_t value);
Bytes address_bytes(const IpAddr& address);
Bytes interface_bytes(const std::string& name);  // as `meta iifname` loads it

Phrase family_is(Family family);
Phrase frame_family_is(Family family);  // the same where no IP layer is known yet: in a netdev table
Phrase protocol_is(std::uint8_t number);
Phrase protocol_is_not(std::uint8_t number);
Phrase protocol_in(const std::string& set);
Phrase protocol_not_in(const std::string& set);
Phrase load_address(Family family, Side side, std::uint32_t reg);
Phrase address_in(Family family, Side side, const std::string& set, bool negate);
Phrase address_in_net(Side side, const Cidr& net, bool negate);
Phrase load_port(Side side, std::uint32_t reg);
Phrase port_in(Side side, const PortRange& range);
Phrase port_not_in(Side side, const PortRange& range);  // single range
Phrase port_in_set(Side side, const std::string& set, bool negate);
// (address . protocol . port) of that side in a set with that key.
Phrase endpoint_port_in(Family family, Side side, const std::string& set, bool negate);
Phrase icmp_is(std::uint8_t type, std::optional<std::uint8_t> code, bool negate);
Phrase ct_state_in(std::uint32_t bits);
Phrase ct_first_packet();  // the entry is not confirmed yet
Phrase ct_word_is_zero(std::uint32_t word);
Phrase ct_word_is_not_zero(std::uint32_t word);  // leaves the label in registers 0 to 3
Phrase ct_word_has(std::uint32_t word, std::uint32_t bits);  // any of them
Phrase ct_word_in(std::uint32_t word, const std::string& set);
Phrase ct_original();  // what the originator sends
Phrase ct_word_set(std::uint32_t word, RuleId id);
Phrase ct_word_to_verdict(std::uint32_t word, const std::string& map);
Phrase mark_set(RuleId id);
Phrase mark_is_not(RuleId id);
Phrase jump(std::string chain);
Phrase go_to(std::string chain);

}  // namespace tierlog::dataplane::nftables
