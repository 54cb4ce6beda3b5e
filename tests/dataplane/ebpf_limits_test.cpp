// Limits of the eBPF data plane: what is at one is taken, what is beyond is refused with the number, the limit and whose
// it is, before anything is in a kernel.
#include "dataplane/ebpf/limits.h"

#include <set>

#include "dataplane/ebpf/address_table.h"
#include "dataplane/ebpf/encode_class.h"
#include "tests/dataplane/programs.h"

namespace tierlog::dataplane::test {
namespace {

using ebpf::Limits;
using tierlog::testing::local_pod;

// What making all objects of `program` says; empty: it was taken.
std::string refusal(const policy::Program& program, const Limits& limits) {
  if (const auto good = ebpf::check_limits(program, limits); !good) return good.error().message;
  ebpf::GroupNumbers groups;
  ebpf::IdentityNumbers identities;
  const auto slot_of = [](RuleId id) -> Result<std::uint32_t> { return number(id); };
  for (std::uint32_t index = 0; index < program.classes.size(); ++index)
    if (const auto encoded = ebpf::encode_class(program, index, groups, slot_of, limits); !encoded)
      return encoded.error().message;
  const auto plan = ebpf::plan_addresses(program, groups, identities, limits);
  if (!plan) return plan.error().message;
  const auto addresses = ebpf::AddressTable::encode(*plan);
  return addresses ? "" : addresses.error().message;
}

constexpr const char* kTwoPolicies = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: first, namespace: a}
spec:
  selector: role == 'db'
  order: 1
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'web'}, destination: {ports: [80]}}
  - {action: Allow, protocol: TCP, source: {selector: tier == 'front'}, destination: {ports: [81]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: second, namespace: a}
spec:
  selector: role == 'db'
  order: 2
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [53]}}
  - {action: Deny, source: {selector: role != 'web'}}
)";

std::shared_ptr<const policy::Program> two_policies() {
  policy::MemoryRuleIds ids;
  return tierlog::testing::compile(kTwoPolicies,
                                   {local_pod("a", "web", {"10.1.0.1"}, {{"role", "web"}, {"tier", "front"}}),
                                    local_pod("a", "db", {"10.1.0.2"}, {{"role", "db"}}),
                                    local_pod("a", "third", {"10.1.0.3"}, {})},
                                   ids);
}

TEST(EbpfLimits, WhatIsBeyondIsRefusedWithItsName) {
  const auto program = two_policies();
  EXPECT_EQ(refusal(*program, {}), "");
  const std::uint32_t rules = 5;  // and one end of a tier
  const struct {
    const char* name;
    std::uint32_t Limits::*limit;
    std::uint32_t enough;
    std::string said;
  } cases[] = {
      {"endpoints", &Limits::endpoints, 3,
       "a/third: it is one of 3 endpoints of this node; 2 are the limit (ebpf.max_endpoints)"},
      {"rules", &Limits::rules, rules,
       "default/a/second: the rules and ends of tiers of this node are 5, and this policy's 3 pass the limit; 4 are the "
       "limit (ebpf.max_rules)"},
      {"matches", &Limits::matches, 4,
       "default/a/second: with its rules an endpoint has 4 matches in ingress; 3 are the limit (ebpf.max_matches)"},
      {"sets", &Limits::sets, 2,
       "default/a/first: address 10.1.0.1/32 is in 2 of the sets that policies name; 1 are the limit (ebpf.max_sets)"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.name);
    Limits limits;
    limits.*one.limit = one.enough;
    EXPECT_EQ(refusal(*program, limits), "");
    limits.*one.limit = one.enough - 1;
    EXPECT_EQ(refusal(*program, limits), one.said);
  }
}

TEST(EbpfLimits, AreReadByName) {
  EXPECT_EQ(ebpf::parse_limits("").value_or(Limits{.rules = 1}), Limits{});
  Limits some;
  some.rules = 1000;
  some.sets = 8;
  EXPECT_EQ(ebpf::parse_limits("max_rules=1000,max_sets=8").value_or(Limits{}), some);
  const std::pair<const char*, const char*> bad[] = {
      {"rules=1", "unknown limit \"rules\"; expected one of max_endpoints, "},
      {"max_sets=65", "max_sets: \"65\" is out of range; expected a number from 1 to 64"},
      {"max_sets", "max_sets: \"\" is out of range"},
      {"max_rules=1k", "max_rules: \"1k\" is out of range"},
      {"max_rules=0", "expected a number from 1 to 1000000"}};
  for (const auto& [text, said] : bad) {
    const auto parsed = ebpf::parse_limits(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::InvalidArgument);
    EXPECT_NE(parsed.error().message.find(said), std::string::npos) << parsed.error().message;
  }
}

TEST(EbpfLimits, TheirDefaultsAreWithinTheirRange) {
  std::set<std::string_view> names;
  const Limits limits;
  for (const ebpf::LimitSetting& setting : ebpf::limit_settings()) {
    EXPECT_TRUE(names.insert(setting.name).second);
    EXPECT_GE(limits.*setting.value, setting.least) << setting.name;
    EXPECT_LE(limits.*setting.value, setting.most) << setting.name;
  }
}

}  // namespace
}  // namespace tierlog::dataplane::test
