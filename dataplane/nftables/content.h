// dataplane/nftables/content.h - what an object says, as a number: names, seals and comparisons.
//
//   Chain, NftRule --[content]--> names of class chains, seal in a rule's user data, adoption
//
// Chains whose name is their content need no comparison: what has the name says the same. For the others
// each rule carries a seal in its user data, so that a restarted daemon sees what somebody changed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/nftables/ruleset.h"

namespace tierlog::dataplane::nftables {

using Content = std::uint64_t;

Content content_of(std::string_view bytes);
std::string seal_of(const NftRule& rule);                         // 8 bytes
Content content_of_seals(const std::vector<std::string>& seals);  // of a chain's rules, in order
Content content_of(const Chain& chain);                           // without its name
std::string hex(Content content);                                 // 16 digits

}  // namespace tierlog::dataplane::nftables
