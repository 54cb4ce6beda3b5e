// policy/compile.h - PolicySet + Cluster -> Program. A pure function of its arguments and the registry.
//
//   resolve: per endpoint and direction the ordered tiers and policies that are asked (resolve.h)
//   compile: selectors -> address sets, rules -> Matches, equal resolutions -> one class, ids from the
//            registry
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "policy/cluster.h"
#include "policy/model.h"
#include "policy/program.h"
#include "policy/resolve.h"

namespace tierlog::policy {

// What identifies a rule for ever: same key, same id (design D2). Set membership and order are not in it.
struct RuleKey {
  enum class Kind : std::uint8_t { Rule, EndOfTier } kind = Kind::Rule;
  PolicyKey policy;          // of an end of tier: the last policy asked
  std::string tier;
  Direction direction{};
  int index = 0;             // -1 for an end of tier
  // Rule: action, canonical matches, the policy's selector and types.
  // End of tier: action and the ordered displays of all enforced policies asked.
  std::string canonical;

  std::string text() const;  // one string, unambiguous
};

struct RuleIdentity {
  RuleId id{};
  std::uint32_t revision = 1;  // of the policy, when the id was given (ends of tier: 1)
};

// Hands out ids. The real one is store/state_db.h (persistent); tests use MemoryRuleIds.
class RuleIdRegistry {
 public:
  virtual ~RuleIdRegistry() = default;
  // The ids of all keys of one Program at once, in the same order: one transaction. Keys that are new
  // get ids that were never used; the revision of a policy that has new keys grows by one for all of
  // them together (the policy's current revision is the highest one among its live keys).
  virtual Result<std::vector<RuleIdentity>> identify(const std::vector<RuleKey>& keys) = 0;
};

class MemoryRuleIds final : public RuleIdRegistry {
 public:
  Result<std::vector<RuleIdentity>> identify(const std::vector<RuleKey>& keys) override;

 private:
  std::map<std::string, RuleIdentity> known_;
  std::map<std::string, std::uint32_t> revisions_;  // by policy
  std::uint32_t next_ = kFirstPolicyRuleId;
};

// What one compilation leaves for the next: its cost is then what changed, in endpoints and labels. One for
// each node's Programs; nothing depends on it but time.
struct CompileMemory {
  PopulationMemory population;
  std::unordered_map<std::string, RuleIdentity> identities;  // of the registry, by RuleKey::text()
};

struct CompileOptions {
  // Which endpoints are enforced: those with `local` set, or all of the cluster (lint, explain, tests).
  enum class Scope : std::uint8_t { Local, All } scope = Scope::All;
  std::uint64_t revision = 1;
  CompileMemory* memory = nullptr;
  Failsafes failsafes = default_failsafes();
};

// Errors: those of the registry. The Program shares `cluster`.
Result<Program> compile(const PolicySet& policies, std::shared_ptr<const Cluster> cluster,
                        RuleIdRegistry& ids, const CompileOptions& options = {});

}  // namespace tierlog::policy
