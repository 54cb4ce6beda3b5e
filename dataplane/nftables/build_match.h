// dataplane/nftables/build_match.h - one Match of the Program -> the expressions of one or more rules.
//
// Several when nftables needs it: a rule per address family, ranges OR named ports, negations that also
// hold for packets without ports. Address and port sets that matches refer to are collected here.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_cache.h"
#include "dataplane/nftables/expr.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

class MatchBuilder {
 public:
  MatchBuilder(const policy::Program& program, const SetVersions& versions, BuildCache* cache = nullptr);

  // Alternatives: a packet matches when it meets one of them. Empty for a match that can never hold.
  std::vector<Phrase> phrases(const policy::Match& match);
  std::vector<Phrase> phrases(const policy::ProgramRule& rule);
  // The same of one family, which the packet is known to have.
  std::vector<Phrase> rest_phrases(const policy::Match& match, Family family);
  // The address of `side` in every set of the one list and in none of the other; false: can never hold.
  bool add_test(const std::vector<std::uint32_t>& in, const std::vector<std::uint32_t>& not_in, Side side,
                Family family, Phrase& phrase);
  // "s4_<meaning>" with the version in force.
  std::string versioned(const std::string& base) const;
  // The sets that the phrases made so far refer to, ranges of ports apart.
  std::vector<Set> take_sets();
  // What the phrases look up since the last call: sets of the Program, and ranges of ports.
  std::vector<LookedUp> take_looked_up();
  std::vector<Set> take_ranges();
  // The same for phrases that were made for another Program.
  void look_up(const LookedUp& set);

  // How rules look a set up, as one number: nothing else of its members is in them.
  Content face_of_set(std::uint32_t index);
  Content face_of_port_set(std::uint32_t index);
  Content members_of_set(std::uint32_t index);
  std::optional<std::uint32_t> set_with_key(const std::string& key);

 private:
  using Alternatives = std::vector<Phrase>;
  void in_family(const policy::Match& match, std::optional<Family> family, const Phrase& known,
                 std::vector<Phrase>& into);
  // The only net of a set that is written as one; such a set can never have other members.
  const Cidr* single_net(std::uint32_t index, Family family) const;
  bool add_addresses(const policy::PeerMatch& peer, Side side, Family family, Phrase& phrase);
  std::optional<Alternatives> ports(const policy::Match& match, const policy::PeerMatch& peer, Side side,
                                    std::optional<Family> family);
  Phrase port_ranges(Side side, const std::vector<PortRange>& ranges, bool negate);
  const std::string* address_set(std::uint32_t index, Family family);  // nullptr: no member of that family
  const std::string* port_tuple_set(std::uint32_t index, Family family);
  // Of a set in one family: its name with and without version; empty when it has no member there.
  struct Name {
    std::string base, versioned;
    bool interval = false;
  };
  const Name& name_of_set(std::uint32_t index, Family family);
  const Name& name_of_port_set(std::uint32_t index, Family family);
  template <typename Make>
  SharedVector<Element> elements_for(const std::string& base, Content members, const Make& make);
  void index_keys();

  const policy::Program& program_;
  const SetVersions& versions_;
  BuildCache* cache_;
  using Key = std::pair<std::uint32_t, Family>;
  std::map<Key, Name> names_, port_names_;
  std::set<Key> made_, ports_made_;            // in sets_
  std::map<Key, const std::string*> looked_up_, ports_looked_up_;  // to the set's key
  std::map<std::uint32_t, Content> members_, faces_;
  std::unordered_map<std::string, std::uint32_t> by_key_, ports_by_key_;
  std::map<std::vector<PortRange>, Set> range_sets_;
  std::map<std::string, const Set*> ranges_looked_up_;
  std::vector<Set> sets_;
};

}  // namespace tierlog::dataplane::nftables
