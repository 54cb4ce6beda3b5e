// Program -> nftables objects: the few structural promises that other parts lean on. No kernel.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_match.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/content.h"
#include "tests/dataplane/programs.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Match;

struct MatchCase {
  const char* title;
  Match match;
  std::size_t rules;
};

Match tcp_to(std::vector<PortRange> ports) {
  Match match;
  match.protocol = protocol::kTcp;
  match.destination.ports = std::move(ports);
  return match;
}

Match with(const std::function<void(Match&)>& change) {
  Match match;
  change(match);
  return match;
}

// One set of v4 addresses (0), one of both families (1), one empty (2); named ports on v4 (0).
policy::Program program_with_sets() {
  policy::Program program;
  program.sets = {{"v4", "v4", {*Cidr::parse("10.0.0.0/8")}},
                  {"both", "both", {*Cidr::parse("10.0.0.1"), *Cidr::parse("fd00::1")}},
                  {"none", "none", {}}};
  program.port_sets = {{"http", "http", {{*IpAddr::parse("10.0.0.1"), protocol::kTcp, 8080}}}};
  return program;
}

class MatchRules : public ::testing::TestWithParam<MatchCase> {};

TEST_P(MatchRules, AreAsManyAsTheMatchNeeds) {
  const policy::Program program = program_with_sets();
  const SetVersions versions;
  MatchBuilder builder(program, versions);
  EXPECT_EQ(builder.phrases(GetParam().match).size(), GetParam().rules);
}

INSTANTIATE_TEST_SUITE_P(
    Table, MatchRules,
    ::testing::Values(MatchCase{"anything", Match{}, 1},
                      MatchCase{"never", with([](Match& m) { m.never = true; }), 0},
                      MatchCase{"one_port", tcp_to({{80, 80}}), 1},
                      MatchCase{"many_ports", tcp_to({{80, 80}, {443, 443}}), 1},
                      MatchCase{"set_of_one_family", with([](Match& m) { m.source.in_sets = {0}; }), 1},
                      MatchCase{"set_of_both_families", with([](Match& m) { m.source.in_sets = {1}; }), 2},
                      MatchCase{"empty_set", with([](Match& m) { m.source.in_sets = {2}; }), 0},
                      MatchCase{"not_in_set_of_one_family",
                                with([](Match& m) { m.source.not_in_sets = {0}; }), 2},
                      MatchCase{"family_narrows", with([](Match& m) {
                                  m.source.in_sets = {1};
                                  m.family = Family::V6;
                                }),
                                1},
                      MatchCase{"numbers_or_names", with([](Match& m) {
                                  m.destination.ports = {{80, 80}};
                                  m.destination.port_set = 0;
                                }),
                                3},  // v4: number, name; v6: number
                      MatchCase{"ports_of_a_protocol_without", with([](Match& m) {
                                  m.protocol = protocol::kIcmp;
                                  m.destination.ports = {{80, 80}};
                                }),
                                0},
                      MatchCase{"not_ports_without_protocol", with([](Match& m) {
                                  m.destination.not_ports = {{80, 80}};
                                }),
                                2},
                      MatchCase{"not_ports_of_tcp", with([](Match& m) {
                                  m.protocol = protocol::kTcp;
                                  m.destination.not_ports = {{80, 80}};
                                }),
                                1},
                      MatchCase{"not_icmp_without_protocol", with([](Match& m) {
                                  m.not_icmp = policy::IcmpSpec{8, 0};
                                }),
                                2},
                      MatchCase{"icmp_of_tcp", with([](Match& m) {
                                  m.protocol = protocol::kTcp;
                                  m.icmp = policy::IcmpSpec{8, {}};
                                }),
                                0}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

TEST(IntervalSets, EndBehindTheLastAddressAndNotPastTheWorldsEnd) {
  policy::Program program;
  program.sets = {{"edge", "edge", {*Cidr::parse("0.0.0.0/1"), *Cidr::parse("255.255.255.0/24")}}};
  SetVersions versions;
  MatchBuilder first(program, versions);
  Match any;
  any.source.in_sets = {0};
  first.phrases(any);
  const auto base = versioned_name(first.take_sets().at(0).name);
  ASSERT_TRUE(base);
  EXPECT_EQ(base->version, 1u);
  versions[base->base] = 7;
  MatchBuilder builder(program, versions);
  Match match;
  match.source.in_sets = {0};
  builder.phrases(match);
  const auto sets = builder.take_sets();
  ASSERT_EQ(sets.size(), 1u);
  EXPECT_EQ(sets[0].name, base->base + "_7");
  ASSERT_EQ(sets[0].elements.size(), 3u);
  EXPECT_EQ(sets[0].elements[1].key, (Bytes{128, 0, 0, 0}));
  EXPECT_TRUE(sets[0].elements[1].interval_end);
  EXPECT_FALSE(sets[0].elements[2].interval_end);
}

TEST(VersionedNames, AreToldFromTheOthers) {
  const auto read = versioned_name("s4_00000000000000ff_12");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->base, "s4_00000000000000ff");
  EXPECT_EQ(read->version, 12u);
  for (const char* other : {"eval_e", "stateless4", "self4", "epe_00000000000000ff", "s4_00000000000000ff_",
                            "s4_00000000000000ff_1x", "p_00000000000000ff", "c_0000002a"})
    EXPECT_FALSE(versioned_name(other)) << other;
}

TEST(CounterNames, ReadBackAsTheirId) {
  EXPECT_EQ(counter_name(RuleId{0x2a}), "c_0000002a");
  EXPECT_EQ(counter_id("c_0000002a"), RuleId{0x2a});
  EXPECT_EQ(counter_id(kOverflowCounter), std::nullopt);
  EXPECT_EQ(counter_id("c_0000002"), std::nullopt);
}

TEST(BuildProgram, ALogRuleWithAlternativesCountsAPacketOnce) {
  policy::MemoryRuleIds ids;
  const auto program =
      tierlog::testing::compile(R"(
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: p}
spec:
  ingress:
  - {action: Log, protocol: TCP, destination: {ports: [80, http]}}
)",
                                {tierlog::testing::local_pod("a", "web", {"10.0.0.1"}, {})}, ids);
  const TableObjects objects = build_program(*program, {}, {}, {});
  const std::string log = log_chain_name(program->rules.at(0).id);
  std::size_t jumps = 0;
  for (const Chain& chain : objects.chains)
    for (const NftRule& rule : chain.rules)
      if (const auto* verdict = std::get_if<Verdict>(&rule.expressions.back());
          verdict != nullptr && verdict->chain == log) {
        EXPECT_EQ(verdict->kind, VerdictKind::Goto) << to_text(chain);
        ++jumps;
      }
  EXPECT_GE(jumps, 2u);
}

constexpr const char* kTwoPolicies = R"(
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: p}
spec:
  selector: role == 'web'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'api'}}
)";

std::set<std::string> chain_names(const TableObjects& objects) {
  std::set<std::string> names;
  for (const Chain& chain : objects.chains) names.insert(chain.name);
  return names;
}

TEST(BuildProgram, WhatSaysTheSameHasTheSameName) {
  policy::MemoryRuleIds ids;
  const auto pod = [](const char* name, const char* address, const char* role) {
    return tierlog::testing::local_pod("a", name, {address}, {{"role", role}});
  };
  const auto one = tierlog::testing::compile(
      kTwoPolicies, {pod("web", "10.0.0.1", "web"), pod("api", "10.0.0.2", "api")}, ids);
  const auto more = tierlog::testing::compile(
      kTwoPolicies,
      {pod("web", "10.0.0.1", "web"), pod("api", "10.0.0.2", "api"), pod("api2", "10.0.0.3", "api")}, ids);
  const auto before = chain_names(build_program(*one, {}, {}, {}));
  const auto after = chain_names(build_program(*more, {}, {}, {}));
  std::vector<std::string> fresh;
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(), std::back_inserter(fresh));
  EXPECT_EQ(fresh.size(), 2u) << "the new pod's own two chains, and nothing else";
}

TEST(Seals, TellEveryDifference) {
  const NftRule rule{{Count{RuleId{7}}, Verdict{VerdictKind::Goto, "r7"}}, "comment"};
  NftRule other = rule;
  EXPECT_EQ(seal_of(rule), seal_of(other));
  other.comment += "!";
  EXPECT_NE(seal_of(rule), seal_of(other));
  other = rule;
  std::get<Verdict>(other.expressions[1]).chain = "r8";
  EXPECT_NE(seal_of(rule), seal_of(other));
  other = rule;
  std::swap(other.expressions[0], other.expressions[1]);
  EXPECT_NE(seal_of(rule), seal_of(other));
}

}  // namespace
}  // namespace tierlog::dataplane::nftables
