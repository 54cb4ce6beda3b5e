#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "policy/compile.h"

namespace tierlog::policy {
namespace {

// A part of a joined text; whatever it holds, it cannot look like two parts.
std::string escaped(std::string_view part) {
  std::string text;
  for (const char c : part) {
    if (c == '\\' || c == '|') text += '\\';
    text += c;
  }
  return text;
}

std::string policy_text(const PolicyKey& key) {
  return std::string(name(key.kind)) + "|" + escaped(key.policy_namespace) + "|" + escaped(key.name);
}

}  // namespace

std::string RuleKey::text() const {
  return std::string(kind == Kind::Rule ? "rule" : "end") + "|" + policy_text(policy) + "|" + escaped(tier) +
         "|" + std::string(tierlog::name(direction)) + "|" + std::to_string(index) + "|" + escaped(canonical);
}

Result<std::vector<RuleIdentity>> MemoryRuleIds::identify(const std::vector<RuleKey>& keys) {
  std::vector<RuleIdentity> identities;
  std::map<std::string, std::uint32_t> grown;  // policies with new keys in this call
  for (const RuleKey& key : keys) {
    const auto [entry, is_new] = known_.try_emplace(key.text());
    if (is_new) {
      entry->second.id = RuleId{next_++};
      if (key.kind == RuleKey::Kind::Rule) {
        const std::string policy = policy_text(key.policy);
        const auto [revision, first] = grown.try_emplace(policy, 0);
        if (first) revision->second = ++revisions_[policy];
        entry->second.revision = revision->second;
      }
    }
    identities.push_back(entry->second);
  }
  return identities;
}

}  // namespace tierlog::policy
