#include "policy/model.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tierlog::policy {
namespace {

TEST(Tiers, SortByExistenceOrderAndName) {
  std::vector<Tier> tiers = {{"zz", 5, Action::Deny, false, {}},      {"b", kNoOrder, Action::Deny, true, {}},
                             {"a", kNoOrder, Action::Deny, true, {}}, {"y", 20, Action::Deny, true, {}},
                             {"x", 20, Action::Deny, true, {}},       {"c", -1.5, Action::Deny, true, {}}};
  sort_tiers(tiers);
  std::string order;
  for (const Tier& tier : tiers) order += tier.name + " ";
  EXPECT_EQ(order, "c x y a b zz ");
}

TEST(Tiers, BuiltIn) {
  const std::vector<Tier> tiers = builtin_tiers();
  ASSERT_EQ(tiers.size(), 3u);
  EXPECT_EQ(tiers[0].name, "kube-admin");
  EXPECT_EQ(tiers[0].default_action, Action::Pass);
  EXPECT_EQ(tiers[1].order, 1'000'000);
  EXPECT_EQ(tiers[1].default_action, Action::Deny);
  EXPECT_EQ(tiers[2].order, 10'000'000);
}

Policy policy(double order, PolicyKind kind, const std::string& ns, const std::string& name) {
  Policy p;
  p.order = order;
  p.key = {kind, ns, name};
  p.tier = "t";
  return p;
}

TEST(Policies, SortByOrderThenNameNamespaceKind) {
  const Policy first = policy(1, PolicyKind::NetworkPolicy, "z", "z");
  const Policy a = policy(kNoOrder, PolicyKind::NetworkPolicy, "ns2", "a");
  const Policy a1 = policy(kNoOrder, PolicyKind::NetworkPolicy, "ns1", "a");
  const Policy dashed = policy(kNoOrder, PolicyKind::NetworkPolicy, "ns1", "a-b");
  const Policy kubernetes = policy(kNoOrder, PolicyKind::KubernetesNetworkPolicy, "ns1", "a");
  std::vector<Policy> policies = {a, dashed, first, a1, kubernetes};
  std::sort(policies.begin(), policies.end(), evaluated_before);
  EXPECT_EQ(policies[0].key, first.key);
  EXPECT_EQ(policies[1].key, dashed.key) << "\"a-b/\" is before \"a/\" byte by byte";
  EXPECT_EQ(policies[2].key, kubernetes.key);
  EXPECT_EQ(policies[3].key, a1.key);
  EXPECT_EQ(policies[4].key, a.key);
  EXPECT_FALSE(evaluated_before(a, a));
}

TEST(Policies, Display) {
  EXPECT_EQ(policy(1, PolicyKind::NetworkPolicy, "ns", "p").display(), "t/ns/p");
  EXPECT_EQ(policy(1, PolicyKind::GlobalNetworkPolicy, "", "p").display(), "t//p");
}

TEST(Canonical, OrderAndRepetitionMeanNothing) {
  MatchSpec a, b;
  a.source.nets = {*Cidr::parse("10.0.0.0/8"), *Cidr::parse("fd00::/8")};
  b.source.nets = {*Cidr::parse("fd00::/8"), *Cidr::parse("10.0.0.0/8"), *Cidr::parse("10.9.9.9/8")};
  a.destination.ports = {{{80, 80}, {}}, {{}, "http"}};
  b.destination.ports = {{{}, "http"}, {{80, 80}, {}}};
  a.source.selector_text = "x";
  EXPECT_EQ(a.canonical(), b.canonical());
}

TEST(Canonical, EveryCriterionCounts) {
  std::vector<MatchSpec> all(16);
  std::size_t i = 1;
  all[i++].protocol = 6;
  all[i++].not_protocol = 6;
  all[i++].family = Family::V4;
  all[i++].icmp = IcmpSpec{8, {}};
  all[i++].icmp = IcmpSpec{8, 0};
  all[i++].not_icmp = IcmpSpec{8, 0};
  all[i++].source.nets = {*Cidr::parse("10.0.0.0/8")};
  all[i++].destination.nets = {*Cidr::parse("10.0.0.0/8")};
  all[i++].source.not_nets = {*Cidr::parse("10.0.0.0/8")};
  all[i++].source.ports = {{{6, 6}, {}}};
  all[i++].source.not_ports = {{{6, 6}, {}}};
  all[i++].source.ports = {{{}, "6"}};
  all[i++].source.selector = Selector::has("a");
  all[i++].source.not_selector = Selector::has("a");
  all[i++].source.service = ServiceSpec{"ns", "s"};
  ASSERT_EQ(i, all.size());
  for (std::size_t a = 0; a < all.size(); ++a)
    for (std::size_t b = a + 1; b < all.size(); ++b)
      EXPECT_NE(all[a].canonical(), all[b].canonical()) << a << " " << b;
}

// The registry's keys are made of it: this text may never change.
TEST(Canonical, Form) {
  MatchSpec match;
  match.protocol = 6;
  match.icmp = IcmpSpec{8, {}};
  match.source.selector = Selector::equals("role", "api");
  match.destination.ports = {{{5432, 5432}, {}}, {{80, 90}, {}}, {{}, "http"}};
  EXPECT_EQ(match.canonical(),
            "protocol[1]=6;icmp[3]=8/*;source.selector[13]=role == "
            "\"api\";destination.ports[20]=5432,80:90,name http;");
}

}  // namespace
}  // namespace tierlog::policy
