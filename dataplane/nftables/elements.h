// dataplane/nftables/elements.h - the elements of a set in the order in which two of them are compared.
//
//   build_*.h --[sorted]--> table_state.h (what changes), build_cache.h (what is the same)
#pragma once

#include <optional>
#include <vector>

#include "dataplane/nftables/ruleset.h"

namespace tierlog::dataplane::nftables {

// Ascending by key (an interval's end before its neighbour's begin), each once.
using Elements = SharedVector<Element>;

// The key behind, big-endian; nullopt behind the highest.
std::optional<Bytes> successor(Bytes key);

bool by_key(const Element& a, const Element& b);
bool same_value(const Element& a, const Element& b);  // what a map says
Elements sorted(std::vector<Element> elements);
// The same memory where they are in order already.
Elements sorted(const Elements& elements);

}  // namespace tierlog::dataplane::nftables
