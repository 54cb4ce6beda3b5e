// Test cases as users write them: what is read, what is refused and how, what a run says.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "lab/cases.h"

namespace tierlog::lab {
namespace {

// A case whose first check starts in line 24.
const char* const kGood = R"(id: web-to-db
topology:
  namespaces: [{name: shop}]
  pods:
    - {name: web, namespace: shop, labels: {app: web}, ip: 10.0.0.1}
    - {name: db, namespace: shop, labels: {app: db}, ips: [10.0.0.2, "fd00::2"]}
    - {name: v6, namespace: shop, labels: {app: v6}, ip: "fd00::3"}
policies:
  - apiVersion: projectcalico.org/v3
    kind: NetworkPolicy
    metadata: {name: db, namespace: shop}
    spec:
      selector: app == 'db'
      types: [Ingress]
      ingress:
        - action: Deny
          protocol: UDP
        - action: Allow
          protocol: TCP
          source: {selector: app == 'web'}
          destination: {ports: [5432]}
        - {action: Allow, protocol: ICMPv6}
checks:
  - from: {pod: shop/web}
    to: {pod: shop/db}
    protocol: TCP
    port: 5432
    expect: allow
    decides: {direction: ingress, tier: default, policy: db, rule: 1}
  - from: {ip: 203.0.113.9}
    to: {pod: shop/db}
    protocol: TCP
    port: 5432
    expect: deny
    ingress: deny
    egress: allow
    decides: {direction: ingress, policy: shop/db, rule: -1}
  - {from: {pod: shop/v6}, to: {pod: shop/db}, protocol: ICMP, expect: allow}
)";

PolicyCase good() {
  const LoadedCases loaded = load_cases_text(kGood, "case.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  EXPECT_EQ(loaded.cases.size(), 1u);
  return loaded.cases.empty() ? PolicyCase{} : loaded.cases[0];
}

TEST(PolicyCases, AGoodOnePasses) {
  const CaseResult result = run_model(good());
  ASSERT_EQ(result.checks.size(), 3u);
  for (const CheckResult& check : result.checks) EXPECT_EQ(check.problems, std::vector<std::string>{});
  EXPECT_TRUE(result.passed);
  EXPECT_EQ(result.checks[1].observed.decides->policy, "default/shop/db");
  EXPECT_EQ(result.checks[1].observed.decides->rule, -1);
}

TEST(PolicyCases, IcmpByNameIsThatOfTheFamily) {
  const PolicyCase test_case = good();
  const auto packet = packet_of(test_case.topology.cluster, test_case.checks[2]);
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->protocol, protocol::kIcmpV6);
  EXPECT_EQ(packet->icmp_type, 128);
}

// ---- what is wrong, and where

struct BrokenCase {
  const char* name;
  const char* replace;  // in kGood
  const char* with;
  const char* finding;  // the first one
};

const BrokenCase kBroken[] = {
    {"NoId", "id: web-to-db\n", "", "case.yaml:1:1: missing field \"id\" in the test case"},
    {"UnknownField", "id: web-to-db", "id: a\nnam: b",
     "case.yaml:2:1: unknown field \"nam\" in the test case; expected checks, features, id, license, notes, "
     "policies, "
     "requires, source or topology"},
    {"NoChecks", "checks:", "notes:", "case.yaml:1:1: missing field \"checks\" in the test case"},
    {"UnknownPod", "to: {pod: shop/db}\n    protocol: TCP\n    port: 5432\n    expect: allow",
     "to: {pod: shop/dbb}\n    protocol: TCP\n    port: 5432\n    expect: allow",
     "case.yaml:25:15: no pod \"shop/dbb\" in the topology; expected ns/name of one (did you mean shop/db?)"},
    {"BothPodAndAddress", "{ip: 203.0.113.9}", "{ip: 203.0.113.9, pod: shop/web}",
     "case.yaml:30:11: from: expected either pod (\"ns/name\") or ip"},
    {"NeitherPodNorAddress", "{ip: 203.0.113.9}", "{}",
     "case.yaml:30:11: from: expected either pod (\"ns/name\") or ip"},
    {"NoAddress", "203.0.113.9", "203.0.113",
     "case.yaml:30:16: \"203.0.113\" is no address; expected one like "
     "10.0.0.1 or fd00::1"},
    {"UnknownProtocol", "protocol: TCP\n    port: 5432\n    expect: allow",
     "protocol: TPC\n    port: 5432\n    expect: allow",
     "case.yaml:26:15: unknown protocol \"TPC\"; expected TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number "
     "from 1 to 255"},
    {"NoPort", "    port: 5432\n    expect: allow", "    expect: allow",
     "case.yaml:24:5: missing field \"port\" in the check"},
    {"PortTooLarge", "port: 5432\n    expect: allow", "port: 65536\n    expect: allow",
     "case.yaml:27:11: port: 65536 is out of range; expected a whole number from 0 to 65535"},
    {"NoExpectation", "    expect: allow\n", "", "case.yaml:24:5: missing field \"expect\" in the check"},
    {"UnknownVerdict", "expect: allow\n", "expect: alow\n",
     "case.yaml:28:13: unknown expect \"alow\"; expected allow or deny (did you mean allow?)"},
    {"IcmpTypeOfTcp", "    expect: allow\n", "    expect: allow\n    icmpType: 8\n",
     "case.yaml:29:5: icmpType with protocol tcp; expected ICMP"},
    {"DeciderWithoutDirection", "direction: ingress, tier: default,", "tier: default,",
     "case.yaml:29:14: missing field \"direction\" in decides"},
    {"BadPolicy", "selector: app == 'db'", "selector: app = 'db'", "case.yaml:13:21: "},
    {"BadTopology", "ip: 10.0.0.1}", "ip: 10.0.0}", "case.yaml:5:"},
};

void PrintTo(const BrokenCase& tested, std::ostream* out) {
  *out << tested.name;
}

class BrokenCases : public testing::TestWithParam<BrokenCase> {};

TEST_P(BrokenCases, AreFoundAtTheirPlaceAndNotRun) {
  std::string text = kGood;
  const auto at = text.find(GetParam().replace);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, std::string_view(GetParam().replace).size(), GetParam().with);
  const LoadedCases loaded = load_cases_text(text, "case.yaml");
  EXPECT_TRUE(loaded.cases.empty());
  const std::string findings = loaded.findings.to_string();
  EXPECT_NE(findings.find(GetParam().finding), std::string::npos) << findings;
}

INSTANTIATE_TEST_SUITE_P(Messages, BrokenCases, testing::ValuesIn(kBroken),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(PolicyCases, AllFindingsComeAtOnceAndOtherCasesAreKept) {
  std::string broken = kGood;
  broken.replace(broken.find("id: web-to-db"), 13, "id: other");
  broken.replace(broken.find("expect: allow"), 13, "expect: maybe");
  broken.replace(broken.find("203.0.113.9"), 11, "nowhere");
  const LoadedCases loaded = load_cases_text(std::string(kGood) + "---\n" + broken, "case.yaml");
  EXPECT_EQ(loaded.findings.errors(), 2u) << loaded.findings.to_string();
  ASSERT_EQ(loaded.cases.size(), 1u);
  EXPECT_EQ(loaded.cases[0].id, "web-to-db");
}

TEST(PolicyCases, AnIdIsGivenOnce) {
  const LoadedCases loaded = load_cases_text(std::string(kGood) + "---\n" + kGood, "case.yaml");
  EXPECT_EQ(loaded.cases.size(), 1u);
  EXPECT_NE(loaded.findings.to_string().find("id \"web-to-db\" is also that of the case at case.yaml:1:5"),
            std::string::npos)
      << loaded.findings.to_string();
}

TEST(PolicyCases, AListOfCasesIsRead) {
  const LoadedCases loaded = load_cases_text(
      R"([{"id":"a","requires":["time-travel"]},{"id":"b","requires":["teleports","kube-admin-tier-shared"]}])",
      "cases.json");
  EXPECT_EQ(loaded.findings.to_string(), "");
  ASSERT_EQ(loaded.cases.size(), 2u);
  EXPECT_EQ(loaded.cases[0].skipped, "requires time-travel");
  EXPECT_EQ(loaded.cases[1].skipped, "requires teleports");
  EXPECT_FALSE(run_model(loaded.cases[0]).passed);
}

TEST(PolicyCases, ACaseWithoutOneOfItsPoliciesIsSkipped) {
  std::string text = kGood;
  text.replace(text.find("kind: NetworkPolicy"), 19, "kind: FutureNetworkPolicy");
  const LoadedCases loaded = load_cases_text(text, "case.yaml");
  ASSERT_EQ(loaded.cases.size(), 1u) << loaded.findings.to_string();
  ASSERT_TRUE(loaded.cases[0].skipped);
  EXPECT_NE(loaded.cases[0].skipped->find("FutureNetworkPolicy"), std::string::npos);
}

TEST(PolicyCases, APathThatIsNotThereIsAFinding) {
  const LoadedCases loaded = load_cases({"/no/such/case.yaml"});
  EXPECT_TRUE(loaded.findings.has_errors());
}

// ---- planted errors: each must be seen

struct PlantedError {
  const char* name;
  void (*plant)(PolicyCase&);
  const char* problem;
};

const PlantedError kPlanted[] = {
    {"Expect", [](PolicyCase& c) { c.checks[0].expect = policy::Action::Deny; }, "expected deny, got allow"},
    {"Ingress", [](PolicyCase& c) { c.checks[1].ingress = policy::Action::Allow; },
     "ingress alone: expected allow, got deny"},
    {"Egress", [](PolicyCase& c) { c.checks[1].egress = policy::Action::Deny; },
     "egress alone: expected deny, got allow"},
    {"Rule", [](PolicyCase& c) { c.checks[0].decides->rule = 0; }, "decides.rule: expected 0, got 1"},
    {"EndOfTier", [](PolicyCase& c) { c.checks[0].decides->rule = -1; }, "decides.rule: expected -1, got 1"},
    {"Tier", [](PolicyCase& c) { c.checks[0].decides->tier = "security"; },
     "decides.tier: expected security, got default"},
    {"Policy", [](PolicyCase& c) { c.checks[0].decides->policy = "b"; },
     "decides.policy: expected b, got default/shop/db"},
    {"PolicyInAnotherNamespace", [](PolicyCase& c) { c.checks[0].decides->policy = "x/db"; },
     "decides.policy: expected x/db, got default/shop/db"},
    {"Direction", [](PolicyCase& c) { c.checks[0].decides->direction = Direction::Egress; },
     "decides.policy: expected db, got none"},
    {"NoCommonFamily", [](PolicyCase& c) { c.checks[0].to.pod = "shop/v6"; },
     "expected allow, got error: shop/web and shop/v6 have no addresses of one family"},
};

void PrintTo(const PlantedError& tested, std::ostream* out) {
  *out << tested.name;
}

class PlantedErrors : public testing::TestWithParam<PlantedError> {};

TEST_P(PlantedErrors, FailTheCase) {
  PolicyCase spoiled = good();
  GetParam().plant(spoiled);
  const CaseResult result = run_model(spoiled);
  EXPECT_FALSE(result.passed);
  std::vector<std::string> problems;
  for (const CheckResult& check : result.checks)
    problems.insert(problems.end(), check.problems.begin(), check.problems.end());
  EXPECT_NE(std::find(problems.begin(), problems.end(), GetParam().problem), problems.end())
      << testing::PrintToString(problems);
}

INSTANTIATE_TEST_SUITE_P(Controls, PlantedErrors, testing::ValuesIn(kPlanted),
                         [](const auto& tested) { return std::string(tested.param.name); });

// ---- who is reported to decide

TEST(PolicyCases, OfAnAllowIngressIsReportedWhereAPolicyAppliedElseEgress) {
  PolicyCase test_case = good();
  for (Check& check : test_case.checks) check.decides.reset();
  CaseResult result = run_model(test_case);
  EXPECT_EQ(result.checks[0].observed.decides->direction, Direction::Ingress);
  std::swap(test_case.checks[0].from, test_case.checks[0].to);
  result = run_model(test_case);
  EXPECT_EQ(result.checks[0].observed.decides->direction, Direction::Egress);
  EXPECT_EQ(result.checks[0].observed.decides->rule, std::nullopt);
}

// ---- services

const char* const kService = R"(id: service
topology:
  namespaces: [{name: shop}]
  pods:
    - {name: web, namespace: shop, ip: 10.0.0.1}
    - {name: db, namespace: shop, ip: 10.0.0.2}
  endpointSlices:
    - apiVersion: discovery.k8s.io/v1
      kind: EndpointSlice
      metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
      addressType: IPv4
      endpoints: [{addresses: [10.0.0.2], conditions: {ready: true}}]
      ports: [{port: 5432}, {port: 53, protocol: UDP}]
policies:
  - apiVersion: projectcalico.org/v3
    kind: NetworkPolicy
    metadata: {name: to-db, namespace: shop}
    spec:
      types: [Egress]
      egress: [{action: Allow, destination: {services: {name: db}}}]
checks:
  - {from: {pod: shop/web}, to: {pod: shop/db}, protocol: TCP, port: 5432, expect: allow}
  - {from: {pod: shop/web}, to: {pod: shop/db}, protocol: UDP, port: 53, expect: allow}
  - {from: {pod: shop/web}, to: {pod: shop/db}, protocol: UDP, port: 5432, expect: deny}
  - {from: {pod: shop/web}, to: {ip: 10.0.0.3}, protocol: TCP, port: 5432, expect: deny}
)";

TEST(ServiceCases, LeadWhereTheirEndpointSlicesSay) {
  const LoadedCases loaded = load_cases_text(kService, "case.yaml");
  ASSERT_EQ(loaded.findings.to_string(), "");
  const CaseResult result = run_model(loaded.cases.at(0));
  for (const CheckResult& check : result.checks) EXPECT_EQ(check.problems, std::vector<std::string>{});
}

// ---- output

TEST(PolicyCases, JsonHasTheFixedShape) {
  PolicyCase spoiled = good();
  spoiled.checks[2].expect = policy::Action::Deny;
  CaseResults results{"model", {run_model(good()), run_model(spoiled)}};
  PolicyCase skipped;
  skipped.id = "later";
  skipped.skipped = "requires x";
  results.cases.push_back(run_model(skipped));
  const nlohmann::json json = to_json(results);
  EXPECT_EQ(json["via"], "model");
  EXPECT_EQ(json["passed"], 1);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["skipped"], 1);
  const auto& first = json["cases"][0];
  EXPECT_EQ(first["id"], "web-to-db");
  EXPECT_EQ(first["file"], "case.yaml");
  EXPECT_EQ(first["passed"], true);
  EXPECT_TRUE(first["skipped"].is_null());
  const auto& check = first["checks"][0];
  EXPECT_EQ(check["index"], 0);
  EXPECT_EQ(check["expect"], "allow");
  EXPECT_EQ(check["verdict"], "allow");
  EXPECT_EQ(check["passed"], true);
  EXPECT_EQ(check["decides"]["direction"], "ingress");
  EXPECT_EQ(check["decides"]["tier"], "default");
  EXPECT_EQ(check["decides"]["policy"], "default/shop/db");
  EXPECT_EQ(check["decides"]["rule"], 1);
  EXPECT_GE(check["decides"]["rule_id"], kFirstPolicyRuleId);
  EXPECT_EQ(check["trace"].size(), 2u);
  EXPECT_EQ(check["trace"][1], (nlohmann::json{{"direction", "ingress"},
                                               {"tier", "default"},
                                               {"policy", "default/shop/db"},
                                               {"rule_index", 1},
                                               {"result", "allow"}}));
  EXPECT_EQ(json["cases"][1]["passed"], false);
  EXPECT_EQ(json["cases"][2]["skipped"], "requires x");
  EXPECT_EQ(json["cases"][2]["passed"], false);
}

TEST(PolicyCases, JunitIsEscaped) {
  PolicyCase spoiled = good();
  spoiled.id = "a<b>&\"c\"";
  spoiled.checks[0].expect = policy::Action::Deny;
  const std::string xml = to_junit({"model", {run_model(spoiled)}});
  EXPECT_NE(xml.find("failures=\"1\""), std::string::npos);
  EXPECT_NE(xml.find("name=\"a&lt;b&gt;&amp;&quot;c&quot;\""), std::string::npos);
  EXPECT_NE(xml.find("check 0 (shop/web to shop/db): expected deny, got allow"), std::string::npos);
}

}  // namespace
}  // namespace tierlog::lab
