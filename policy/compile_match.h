// policy/compile_match.h - one conjunction of a rule, from names to sets and numbers.
//
//   MatchSpec --[compile_match, SetTable]--> Match
#pragma once

#include <vector>

#include "policy/model.h"
#include "policy/program.h"
#include "policy/resolve.h"
#include "policy/set_table.h"

namespace tierlog::policy {

Match compile_match(const MatchSpec& spec, SetTable& sets);
// A match that compares namespaces, as one for each value that a subject's namespace has: what an address
// set cannot say at once. Any other match is given back as it is. None: it can match nothing here.
std::vector<MatchSpec> expand_relation(const MatchSpec& spec, Direction direction,
                                       const Population& population);

}  // namespace tierlog::policy
