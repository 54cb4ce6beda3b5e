// policy/compile_match.h - one conjunction of a rule, from names to sets and numbers.
//
//   MatchSpec --[compile_match, SetTable]--> Match
#pragma once

#include "policy/model.h"
#include "policy/program.h"
#include "policy/set_table.h"

namespace tierlog::policy {

Match compile_match(const MatchSpec& spec, SetTable& sets);

}  // namespace tierlog::policy
