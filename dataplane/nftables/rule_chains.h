// dataplane/nftables/rule_chains.h - chains as they are needed, each once: of rule ids and by content.
//
//   build_classes.h --[RuleChains]--> TableObjects
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/expr.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

class RuleChains {
 public:
  RuleChains(TableObjects& objects, const TableOptions& options) : objects_(objects), options_(options) {}

  // Each returns the chain's name.
  std::string verdict(RuleId id, Direction direction, bool allows, const std::string& comment);
  std::string log(const policy::ProgramRule& rule, const std::string& comment);
  std::string named_by_content(char kind, Chain chain);
  // Counts and tells in `chain` what meets any of the alternatives, once.
  void add_log(Chain& chain, const policy::ProgramRule& rule, const std::string& comment,
               const std::vector<Phrase>& alternatives);

  void count(RuleId id) { counters_.insert(id); }
  const std::unordered_set<RuleId>& counters() const { return counters_; }

 private:
  TableObjects& objects_;
  const TableOptions& options_;
  std::unordered_set<std::string> named_;
  std::unordered_set<RuleId> counters_, verdicts_, logs_;
};

}  // namespace tierlog::dataplane::nftables
