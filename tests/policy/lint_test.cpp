#include "policy/lint.h"

#include <gtest/gtest.h>

#include "policy/load.h"

namespace tierlog::policy {
namespace {

struct LintCase {
  const char* name;
  const char* spec;      // of a NetworkPolicy ns/p; its rules start in line 6
  const char* findings;  // without the file name
};

class LintPolicy : public testing::TestWithParam<LintCase> {};

TEST_P(LintPolicy, Warns) {
  const Loaded loaded = load_text(
      "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec:\n" +
          std::string(GetParam().spec),
      "f");
  ASSERT_EQ(loaded.findings.to_string(), "");
  EXPECT_EQ(lint(loaded.set).to_string(), GetParam().findings);
}

const LintCase kCases[] = {
    {"Fine", "  ingress:\n  - {action: Log}\n  - {action: Deny}\n", ""},
    {"LogOnly", "  ingress:\n  - {action: Log}\n",
     "f:6:5: warning: only Log rules for ingress: Log decides nothing, so the end of tier default denies "
     "unless another "
     "policy of the tier decides (add Allow, Deny or Pass)\n"},
    {"LogOnlyWhereTheTierPasses", "  tier: kube-admin\n  ingress:\n  - {action: Log}\n", ""},
    {"NoTier", "  tier: defualt\n",
     "f:1:1: warning: tier \"defualt\" has no Tier object: it is asked after all others and denies at its "
     "end (did you "
     "mean default?)\n"},
    {"ShadowedByAll", "  ingress:\n  - {action: Allow}\n  - {action: Deny, protocol: TCP}\n",
     "f:7:5: warning: this rule can never match: ingress[0] above allows the same traffic\n"},
    {"ShadowedByWiderRule",
     "  egress:\n"
     "  - {action: Deny, protocol: TCP, destination: {nets: [10.0.0.0/8], ports: [1:100]}}\n"
     "  - {action: Allow, protocol: TCP, destination: {nets: [10.1.0.0/16, 10.2.0.0/16], ports: [80, "
     "90:95]}}\n",
     "f:7:5: warning: this rule can never match: egress[0] above denies the same traffic\n"},
    {"PartsCoverAWhole",
     "  egress:\n"
     "  - {action: Deny, protocol: TCP, destination: {nets: [10.0.0.0/9, 10.128.0.0/9], ports: [1:80, "
     "81:100]}}\n"
     "  - {action: Allow, protocol: TCP, ipVersion: 4, destination: {nets: [10.0.0.0/8], ports: [70:90]}}\n",
     "f:7:5: warning: this rule can never match: egress[0] above denies the same traffic\n"},
    {"WhatNotNetsLeaveOutIsElsewhere",
     "  ingress:\n  - {action: Allow, source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}\n"
     "  - {action: Deny, source: {nets: [10.2.0.0/16]}}\n",
     "f:7:5: warning: this rule can never match: ingress[0] above allows the same traffic\n"},
    {"NotPortsLeaveOut",
     "  ingress:\n  - {action: Allow, protocol: TCP, destination: {notPorts: [80]}}\n"
     "  - {action: Deny, protocol: TCP, destination: {ports: [80]}}\n",
     ""},
    {"AllSelectsMoreThanSome",
     "  ingress:\n  - {action: Allow, source: {selector: a == '1', namespaceSelector: all()}}\n"
     "  - {action: Deny, source: {selector: b == '1', namespaceSelector: all()}}\n",
     ""},
    {"LogShadowsNothing", "  ingress:\n  - {action: Log}\n  - {action: Allow}\n", ""},
    {"OtherPort",
     "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [80]}}\n"
     "  - {action: Deny, protocol: TCP, destination: {ports: [80, 81]}}\n",
     ""},
    {"SourceRestrictsToo",
     "  ingress:\n  - {action: Allow, source: {nets: [10.0.0.0/8]}}\n  - {action: Deny, destination: {nets: "
     "[10.0.0.0/8]}}\n",
     ""},
    {"SameSelectorShadows",
     "  ingress:\n  - {action: Pass, source: {selector: 'a == \"x\"'}}\n"
     "  - {action: Deny, protocol: UDP, source: {selector: \"a=='x'\"}}\n",
     "f:7:5: warning: this rule can never match: ingress[0] above passes the same traffic\n"},
    {"NotNetsLeaveOut",
     "  ingress:\n  - {action: Allow, source: {notNets: [10.0.0.0/8]}}\n  - {action: Deny, source: {notNets: "
     "[11.0.0.0/8]}}\n",
     ""},
    {"NotNetsOfOneFamilyOnly",
     "  ingress:\n  - {action: Allow, source: {notNets: [10.0.0.0/8]}}\n  - {action: Deny, source: {notNets: "
     "[10.0.0.0/8, 'fd00::/8']}}\n",
     ""},
    {"IcmpTypeCoversItsCodes",
     "  ingress:\n  - {action: Allow, protocol: ICMP, icmp: {type: 8}}\n  - {action: Deny, protocol: ICMP, "
     "icmp: "
     "{type: 8, code: 0}}\n",
     "f:7:5: warning: this rule can never match: ingress[0] above allows the same traffic\n"},
    {"NotProtocolCoversOthers",
     "  ingress:\n  - {action: Allow, notProtocol: TCP}\n  - {action: Deny, protocol: UDP}\n  - {action: "
     "Deny, "
     "protocol: TCP}\n",
     "f:7:5: warning: this rule can never match: ingress[0] above allows the same traffic\n"},
    {"NotNetsOfEverything", "  ingress:\n  - {action: Allow, source: {notNets: [0.0.0.0/0]}}\n",
     "f:6:5: warning: this rule can never match: source.notNets leaves no address\n"},
    {"TwoFamilies",
     "  egress:\n  - {action: Allow, source: {nets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}}\n",
     "f:6:5: warning: this rule can never match: what it says of protocol, ipVersion, nets and notNets has "
     "no "
     "IP family in common\n"},
    {"ProtocolOfTheOtherFamily",
     "  egress:\n  - {action: Allow, protocol: ICMPv6, destination: {nets: [10.0.0.0/8]}}\n",
     "f:6:5: warning: this rule can never match: what it says of protocol, ipVersion, nets and notNets has "
     "no "
     "IP family in common\n"},
    {"NothingIsLeftOfNets",
     "  egress:\n  - {action: Allow, destination: {nets: [10.1.0.0/16], notNets: [10.0.0.0/8]}}\n",
     "f:6:5: warning: this rule can never match: destination.notNets leaves no address of "
     "destination.nets\n"},
    {"EachEndLosesAnotherFamily",
     "  egress:\n  - {action: Allow, source: {notNets: [0.0.0.0/0, 'fd00::/8']}, destination: {notNets: "
     "['::/0', 10.0.0.0/8]}}\n",
     "f:6:5: warning: this rule can never match: notNets leaves source and destination no IP family in "
     "common\n"},
    {"ProtocolThatIsNone", "  ingress:\n  - {action: Allow, protocol: TCP, notProtocol: 6}\n",
     "f:6:5: warning: this rule can never match: its protocol and notProtocol are the same\n"},
    {"IcmpThatIsNone",
     "  ingress:\n  - {action: Allow, protocol: ICMP, icmp: {type: 8}, notICMP: {type: 8}}\n",
     "f:6:5: warning: this rule can never match: its icmp and notICMP are the same\n"},
    {"NothingIsLeftOfPorts",
     "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [80, 443], notPorts: "
     "['1:1024']}}\n",
     "f:6:5: warning: this rule can never match: destination.notPorts leaves nothing of destination.ports\n"},
    {"PortsByNameMayBeLeft",
     "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [http, 443], notPorts: "
     "['1:1024']}}\n",
     ""},
    {"MixedFamiliesAreFine",
     "  egress:\n  - {action: Allow, destination: {nets: ['fd00::/8', 10.0.0.0/8]}}\n", ""},
    {"NotAppliedRules", "  types: [Ingress]\n  egress:\n  - {action: Allow}\n",
     "f:7:5: warning: these egress rules are not applied: the policy's types leave egress out\n"},
};
INSTANTIATE_TEST_SUITE_P(Table, LintPolicy, testing::ValuesIn(kCases),
                         [](const auto& param) { return param.param.name; });

TEST(LintCluster, RulesThatTheTopologyShadows) {
  const Loaded loaded = load_text(R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: ns}
spec:
  ingress:
  - {action: Allow, source: {selector: tier == 'db'}}
  - {action: Deny, source: {selector: role == 'db'}}
)",
                                  "f");
  Cluster cluster;
  Endpoint pod;
  pod.endpoint_namespace = "ns";
  pod.name = "db";
  pod.labels = {{"role", "db"}, {"tier", "db"}};
  cluster.endpoints = {pod};
  EXPECT_EQ(lint(loaded.set, &cluster).to_string(),
            "f:7:5: warning: this rule can never match in this topology: ingress[0] above allows the same traffic\n");
  cluster.endpoints[0].labels.erase("tier");
  EXPECT_EQ(lint(loaded.set, &cluster).to_string(),
            "f:6:5: warning: nobody in this topology is tier == 'db': this rule matches nothing\n");
}

TEST(LintCluster, RulesForNobody) {
  const Loaded loaded = load_text(R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: ns}
spec:
  ingress:
  - {action: Allow, source: {selector: role == 'db'}}
  - {action: Allow, source: {selector: role == 'bd'}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: k, namespace: ns}
spec:
  podSelector: {}
  ingress:
  - from: [{podSelector: {matchLabels: {role: bd}}}, {namespaceSelector: {matchLabels: {team: x}}}]
  - from: [{podSelector: {matchLabels: {role: bd}}}, {ipBlock: {cidr: 10.0.0.0/8}}]
)",
                                  "f");
  Cluster cluster;
  Endpoint pod;
  pod.endpoint_namespace = "ns";
  pod.name = "db";
  pod.labels = {{"role", "db"}};
  cluster.endpoints = {pod};
  EXPECT_EQ(lint(loaded.set, &cluster).to_string(),
            "f:7:5: warning: nobody in this topology is role == 'bd': this rule matches nothing\n"
            "f:15:5: warning: nobody in this topology is role == 'bd' in namespace ns or any pod in "
            "namespaces team == "
            "'x': this rule matches nothing\n");
  EXPECT_EQ(lint(loaded.set).to_string(), "");
}

TEST(LintCluster, PortsThatNobodyDeclares) {
  const Loaded loaded = load_text(R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: ns}
spec:
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [http, metrisc, 80]}}
)",
                                  "f");
  Cluster cluster;
  Endpoint pod;
  pod.endpoint_namespace = "ns";
  pod.name = "web";
  pod.ports = {{"http", protocol::kTcp, 8080}, {"metrics", protocol::kTcp, 9090}};
  cluster.endpoints = {pod};
  EXPECT_EQ(lint(loaded.set, &cluster).to_string(),
            "f:6:5: warning: no pod of this topology has a port named metrisc: it matches nothing (did you mean "
            "metrics?)\n");
  EXPECT_EQ(lint(loaded.set).to_string(), "");
}

TEST(LintCluster, PoliciesThatSelectNothing) {
  const Loaded loaded = load_text(R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: ns}
spec: {selector: role == 'db'}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: q, namespace: ns}
spec: {selector: role == 'bd'}
)",
                                  "f");
  Cluster cluster;
  Endpoint pod;
  pod.endpoint_namespace = "ns";
  pod.name = "db";
  pod.labels = {{"role", "db"}};
  cluster.endpoints = {pod};
  EXPECT_EQ(lint(loaded.set, &cluster).to_string(),
            "f:6:1: warning: default/ns/q selects no pod: none has role == 'bd'\n");
  EXPECT_EQ(lint(loaded.set).to_string(), "");
}

}  // namespace
}  // namespace tierlog::policy
