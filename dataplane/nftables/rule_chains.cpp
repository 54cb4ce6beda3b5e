#include "dataplane/nftables/rule_chains.h"

#include <utility>

#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {

std::string RuleChains::verdict(RuleId id, Direction direction, bool allows, const std::string& comment) {
  if (find_reserved(id) == nullptr && verdicts_.insert(id).second) {
    counters_.insert(id);
    objects_.chains.push_back(verdict_chain(id, direction, allows, comment, options_));
  }
  return rule_chain_name(id);
}

std::string RuleChains::log(const policy::ProgramRule& rule, const std::string& comment) {
  counters_.insert(rule.id);
  if (logs_.insert(rule.id).second) {
    for (Chain& chain : log_chains(rule.id, comment, rule.log_rate.value_or(options_.log_rate), options_))
      objects_.chains.push_back(std::move(chain));
    objects_.counters.push_back(message_counter_name(rule.id));
  }
  return log_chain_name(rule.id);
}

std::string RuleChains::named_by_content(char kind, Chain chain) {
  chain.content = content_of(chain);
  chain.name = kind + hex(chain.content);
  std::string name = chain.name;
  if (named_.insert(name).second) objects_.chains.push_back(std::move(chain));
  return name;
}

// A packet that meets two alternatives of one Log rule must be counted once: they share a chain which
// the first of them leaves.
void RuleChains::add_log(Chain& chain, const policy::ProgramRule& rule, const std::string& comment,
                         const std::vector<Phrase>& alternatives) {
  if (alternatives.empty()) return;
  const std::string target = log(rule, comment);
  if (alternatives.size() == 1) {
    chain.rules.push_back({(alternatives[0] + jump(target)).expressions, comment});
    return;
  }
  Chain any;
  for (const Phrase& match : alternatives) any.rules.push_back({(match + go_to(target)).expressions, comment});
  chain.rules.push_back({jump(named_by_content('a', std::move(any))).expressions, comment});
}

}  // namespace tierlog::dataplane::nftables
