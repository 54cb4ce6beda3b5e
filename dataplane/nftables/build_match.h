// dataplane/nftables/build_match.h - one Match of the Program -> the expressions of one or more rules.
//
// Several when nftables needs it: a rule per address family, ranges OR named ports, negations that also
// hold for packets without ports. Address and port sets that matches refer to are collected here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/expr.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

class MatchBuilder {
 public:
  MatchBuilder(const policy::Program& program, const SetVersions& versions);

  // Alternatives: a packet matches when it meets one of them. Empty for a match that can never hold.
  std::vector<Phrase> phrases(const policy::Match& match);
  std::vector<Phrase> phrases(const policy::ProgramRule& rule);
  // The sets that the phrases made so far refer to.
  std::vector<Set> take_sets();

 private:
  using Alternatives = std::vector<Phrase>;
  void in_family(const policy::Match& match, std::optional<Family> family, std::vector<Phrase>& into);
  bool add_addresses(const policy::PeerMatch& peer, Side side, Family family, Phrase& phrase);
  std::optional<Alternatives> ports(const policy::Match& match, const policy::PeerMatch& peer, Side side,
                                    std::optional<Family> family);
  Phrase port_ranges(Side side, const std::vector<PortRange>& ranges, bool negate);
  const std::string* address_set(std::uint32_t index, Family family);  // nullptr: no member of that family
  const std::string* port_tuple_set(std::uint32_t index, Family family);

  std::string versioned(const std::string& base) const;

  const policy::Program& program_;
  const SetVersions& versions_;
  std::map<std::pair<std::uint32_t, Family>, std::string> address_sets_;  // empty name: no members
  std::map<std::pair<std::uint32_t, Family>, std::string> tuple_sets_;
  std::map<std::vector<PortRange>, std::string> range_sets_;
  std::vector<Set> sets_;
};

}  // namespace tierlog::dataplane::nftables
