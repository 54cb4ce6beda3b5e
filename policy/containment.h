// policy/containment.h - whether one rule matches everything that another one matches.
//
//   two PolicyRules --[covers]--> lint.h (a rule that an earlier one shadows)
//
// By what the criteria mean: nets and ports are compared as sets of numbers, a list in parts may cover a whole.
// Says no where it cannot be sure.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "policy/model.h"

namespace tierlog::policy {

// Whether `wide` selects everything that `narrow` selects; asked only where their texts differ.
using SelectsMore = std::function<bool(const Selector& wide, const Selector& narrow)>;

bool covers(const PolicyRule& wide, const PolicyRule& narrow, const SelectsMore& selects_more = {});
// Why no packet can match, in words that go behind "this rule can never match: "; nothing when one can.
std::optional<std::string> why_never(const MatchSpec& match);

}  // namespace tierlog::policy
