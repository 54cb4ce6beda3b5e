// logger/rule_names.h - RuleId -> what it stood for when it gave its verdict.
//
// Ids are never reused and names belong to an id for ever, so every Program only adds: an event that
// comes after the next replacement still finds its rule.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "policy/program.h"
#include "store/catalog.h"

namespace tierlog::logger {

class RuleNames {
 public:
  RuleNames();  // knows the reserved ids
  void learn(const policy::Program& program);
  // Of earlier daemons; what is known already stays.
  void learn(std::span<const store::RuleRow> rows);
  const store::RuleRow* find(RuleId id) const;  // nullptr: never heard of

 private:
  std::unordered_map<RuleId, store::RuleRow> rows_;
};

// The rows of one Program, reserved ids included: what the store's catalog holds.
std::vector<store::RuleRow> rule_rows(const policy::Program& program);
// Tiers, policies, rules and endpoints of a Program.
store::Catalog make_catalog(const policy::Program& program, WallTime since);

}  // namespace tierlog::logger
