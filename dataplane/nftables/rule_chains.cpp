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

}  // namespace tierlog::dataplane::nftables
