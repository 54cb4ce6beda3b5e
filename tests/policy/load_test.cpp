#include "policy/load.h"

#include <gtest/gtest.h>

namespace tierlog::policy {
namespace {

// A Calico NetworkPolicy in namespace "ns" with this spec, in flow style.
std::string calico(const std::string& spec) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: " +
         spec + "\n";
}

Policy only_policy(const std::string& text) {
  Loaded loaded = load_text(text, "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  EXPECT_EQ(loaded.set.policies.size(), 1u);
  return loaded.set.policies.empty() ? Policy{} : loaded.set.policies.front();
}

struct RuleCase {
  const char* name;
  const char* rule;
  const char* canonical;
  const char* text;
};

class CalicoRule : public testing::TestWithParam<RuleCase> {};

TEST_P(CalicoRule, InNormalForm) {
  const Policy policy = only_policy(calico("{ingress: [" + std::string(GetParam().rule) + "]}"));
  ASSERT_EQ(policy.ingress.size(), 1u);
  ASSERT_EQ(policy.ingress[0].any_of.size(), 1u);
  EXPECT_EQ(policy.ingress[0].any_of[0].canonical(), GetParam().canonical);
  EXPECT_EQ(policy.ingress[0].text, GetParam().text);
}

const RuleCase kRules[] = {
    {"Bare", "{action: Deny}", "", "Deny"},
    {"Ports", "{action: Allow, protocol: TCP, destination: {ports: [443, 80, '8000:8080', http, 80]}}",
     "protocol[1]=6;destination.ports[26]=443,80,8000:8080,name http;",
     "Allow tcp to port 443, 80, 8000:8080, http, 80"},
    {"UnquotedRange", "{action: Allow, protocol: UDP, destination: {ports: [1:65535]}}",
     "protocol[2]=17;destination.ports[7]=1:65535;", "Allow udp to port 1:65535"},
};
INSTANTIATE_TEST_SUITE_P(Table, CalicoRule, testing::ValuesIn(kRules),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace tierlog::policy
