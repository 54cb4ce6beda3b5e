// The back end against the real kernel, in a network namespace of its own: what it makes is accepted, what
// is refused leaves the old in force, and a second process finds what the first left.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "dataplane/nftables/backend.h"
#include "dataplane/nftables/nflog.h"
#include "dataplane/nftables/read_back.h"
#include "tests/dataplane/programs.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr const char* kEverything = R"(
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: first}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: mixed}
spec:
  tier: first
  selector: all()
  types: [Ingress, Egress]
  ingress:
  - {action: Log, protocol: TCP, destination: {ports: [80, "100:200", http]}}
  - {action: Deny, source: {nets: ["10.9.0.0/16", "fd09::/16"], notNets: ["10.9.1.0/24", "fd09:1::/32"]}}
  - {action: Deny, protocol: ICMP, icmp: {type: 8, code: 0}}
  - {action: Deny, protocol: ICMPv6, notICMP: {type: 128}}
  - {action: Pass, protocol: 47}
  - {action: Allow, source: {selector: role == 'api'}, destination: {notPorts: [1, "5:9"]}}
  - {action: Allow, notProtocol: UDP, source: {notSelector: role == 'api'}}
  egress:
  - {action: Allow, ipVersion: 6, protocol: UDP, source: {ports: [53]}, destination: {ports: [http]}}
  - {action: Pass}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: last, namespace: a}
spec:
  ingress:
  - {action: Allow, protocol: TCP}
)";

class NftablesKernel : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNET) != 0)
      GTEST_SKIP() << "needs CAP_SYS_ADMIN (network namespaces): " << std::strerror(errno);
  }

  std::unique_ptr<NftablesBackend> open() {
    auto backend = NftablesBackend::open({});
    EXPECT_TRUE(backend) << backend.error().message;
    return backend ? std::move(*backend) : nullptr;
  }

  std::shared_ptr<const policy::Program> program(const std::string& text) {
    return tierlog::testing::compile(
        text,
        {tierlog::testing::local_pod("a", "api", {"10.0.0.1", "fd00::1"}, {{"role", "api"}}),
         tierlog::testing::local_pod("a", "web", {"10.0.0.2", "fd00::2"}, {})},
        ids_);
  }

  static std::set<std::string> chains() {
    auto socket = NetfilterSocket::open();
    return *read_chains(*socket);
  }

  static std::set<std::string> sets() {
    auto socket = NetfilterSocket::open();
    return *read_sets(*socket);
  }

  policy::MemoryRuleIds ids_;
};

std::set<std::string> of_generation(const std::set<std::string>& names, std::uint64_t wanted) {
  std::set<std::string> found;
  for (const std::string& name : names)
    if (std::uint64_t generation = 0; is_generation_object(name, &generation) && generation == wanted)
      found.insert(name);
  return found;
}

TEST_F(NftablesKernel, AcceptsEveryKindOfMatch) {
  const auto backend = open();
  ASSERT_TRUE(backend);
  EXPECT_TRUE(backend->owned());
  const auto applied = backend->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  const auto counters = backend->read_counters();
  ASSERT_TRUE(counters);
  EXPECT_GE(counters->size(), reserved_rules().size() + 10);
  EXPECT_FALSE(of_generation(chains(), 1).empty());
}

TEST_F(NftablesKernel, AReplacementLeavesNothingOfTheOldGeneration) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  const auto first = chains();
  const auto applied = backend->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  EXPECT_TRUE(of_generation(chains(), 1).empty());
  EXPECT_TRUE(of_generation(sets(), 1).empty());
  EXPECT_FALSE(of_generation(sets(), 2).empty());
  EXPECT_EQ(chains().size(), first.size());
  ASSERT_TRUE(backend->apply(program("")));
  EXPECT_LT(chains().size(), first.size());
}

TEST_F(NftablesKernel, WhatTheKernelRefusesLeavesTheOldInForceAndSaysWhy) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  const auto before_chains = chains();
  const auto before_sets = sets();
  std::string deep;
  for (int i = 0; i < 16; ++i) {
    const std::string tier = "tier" + std::to_string(i);
    deep += "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: " + tier +
            "}\nspec: {order: " + std::to_string(i) +
            "}\n---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " + tier +
            ".p}\nspec: {tier: " + tier + ", ingress: [{action: Pass}]}\n";
  }
  const auto refused = backend->apply(program(deep));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::Refused);
  EXPECT_NE(refused.error().message.find("EMLINK"), std::string::npos) << refused.error().message;
  EXPECT_NE(refused.error().message.find("16 tiers"), std::string::npos) << refused.error().message;
  EXPECT_EQ(chains(), before_chains);
  EXPECT_EQ(sets(), before_sets);
  EXPECT_TRUE(backend->apply(program(kEverything))) << "and the next good set goes in";
}

TEST_F(NftablesKernel, ARestartedProcessAdoptsTheTableWithItsCountersAndSweepsIt) {
  {
    const auto backend = open();
    ASSERT_TRUE(backend->apply(program(kEverything)));
  }
  EXPECT_FALSE(chains().empty()) << "rules stay when their maker ends";
  const auto second = open();
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->adopted());
  EXPECT_FALSE(of_generation(chains(), 1).empty()) << "in force until the first apply";
  ASSERT_TRUE(second->apply(program(kEverything)));
  EXPECT_TRUE(of_generation(chains(), 1).empty());
  EXPECT_FALSE(of_generation(chains(), 2).empty());
  ASSERT_TRUE(second->remove_all());
  EXPECT_TRUE(chains().empty());
}

TEST_F(NftablesKernel, ASecondOwnerIsRefused) {
  const auto first = open();
  ASSERT_TRUE(first);
  const auto second = NftablesBackend::open({});
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another process owns the table"), std::string::npos)
      << second.error().message;
}

TEST_F(NftablesKernel, ThePodsOfAnAddressChangeWithTheProgram) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  auto socket = NetfilterSocket::open();
  EXPECT_EQ(read_elements(*socket, "eg4")->size(), 2u);
  EXPECT_EQ(read_elements(*socket, "in6")->size(), 2u);
  const auto fewer = tierlog::testing::compile(
      kEverything, {tierlog::testing::local_pod("a", "web", {"10.0.0.9"}, {})}, ids_);
  ASSERT_TRUE(backend->apply(fewer));
  EXPECT_EQ(read_elements(*socket, "eg4")->size(), 1u);
  EXPECT_EQ(read_elements(*socket, "in6")->size(), 0u);
}

TEST_F(NftablesKernel, TheLogGroupIsHeldByOne) {
  const auto first = NflogSource::open(4610);
  ASSERT_TRUE(first) << first.error().message;
  const auto second = NflogSource::open(4610);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another process holds the group"), std::string::npos)
      << second.error().message;
  std::vector<VerdictEvent> events;
  const auto more = (*first)->drain(events, 10);
  ASSERT_TRUE(more);
  EXPECT_FALSE(*more);
}

}  // namespace
}  // namespace tierlog::dataplane::nftables
