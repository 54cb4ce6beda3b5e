// query/moment.h - what was in force at an earlier time, made again from the flow index's history.
//
//   store/history.h --past_at--> Past --program_of--> policy::Program --> policy/explain.h, revisions.h
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "policy/compile.h"
#include "store/query.h"

namespace tierlog::query {

// Ids of keys that were never in force begin here; they stand for no record.
inline constexpr std::uint32_t kFirstUnknownRuleId = 0xf0000000;

// The registry of a node as far as its flow index knows it; gives nothing out.
class KnownRuleIds final : public policy::RuleIdRegistry {
 public:
  explicit KnownRuleIds(std::unordered_map<std::uint64_t, policy::RuleIdentity> known)
      : known_(std::move(known)) {}
  static Result<KnownRuleIds> of(store::FlowReader& reader);

  // A key that is not known gets a new id from kFirstUnknownRuleId on and revision 0.
  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys) override;

 private:
  std::unordered_map<std::uint64_t, policy::RuleIdentity> known_;
  std::uint32_t next_ = kFirstUnknownRuleId;
};

struct Past {
  store::PolicySetRow set;
  policy::PolicySet policies;
  std::shared_ptr<const policy::Cluster> cluster;
};

// Errors: NotFound (the history begins later, or retention took it), Corrupt.
Result<Past> past_at(store::FlowReader& reader, WallTime at);
// The Program as the node had it, rule ids included.
Result<policy::Program> program_of(store::FlowReader& reader, const Past& past);
// The policies of one kept set. Errors: as past_at.
Result<policy::PolicySet> policies_of(store::FlowReader& reader, const store::PolicySetRow& set);

}  // namespace tierlog::query
