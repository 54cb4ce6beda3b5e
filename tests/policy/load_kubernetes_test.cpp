// Kubernetes NetworkPolicy, Namespace, and the admin kinds in normal form.
#include <gtest/gtest.h>

#include "policy/load.h"

namespace tierlog::policy {
namespace {

constexpr const char* kPods = "projectcalico.org/orchestrator == \"k8s\"";

Policy only_policy(const std::string& text) {
  Loaded loaded = load_text(text, "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "") << text;
  EXPECT_EQ(loaded.set.policies.size(), 1u);
  return loaded.set.policies.empty() ? Policy{} : loaded.set.policies.front();
}

Policy kubernetes(const std::string& spec) {
  return only_policy(
      "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: " +
      spec + "\n");
}

struct RuleCase {
  const char* name;
  const char* rule;
  std::vector<std::string> canonicals;
  const char* text;
};

class KubernetesRule : public testing::TestWithParam<RuleCase> {};

TEST_P(KubernetesRule, InNormalForm) {
  const Policy policy = kubernetes("{podSelector: {}, ingress: [" + std::string(GetParam().rule) + "]}");
  ASSERT_EQ(policy.ingress.size(), 1u);
  std::vector<std::string> canonicals;
  for (const MatchSpec& match : policy.ingress[0].any_of) canonicals.push_back(match.canonical());
  EXPECT_EQ(canonicals, GetParam().canonicals);
  EXPECT_EQ(policy.ingress[0].text, GetParam().text);
}

const RuleCase kRules[] = {
    {"Empty", "{}", {""}, "Allow"},
    {"EmptyLists", "{from: [], ports: []}", {""}, "Allow"},
    {"ProtocolDefaultsToTcp",
     "{ports: [{port: 80}]}",
     {"protocol[1]=6;destination.ports[2]=80;"},
     "Allow tcp to port 80"},
    {"WholeProtocol", "{ports: [{protocol: SCTP}]}", {"protocol[3]=132;"}, "Allow sctp"},
    {"WholeProtocolWins", "{ports: [{port: 80}, {protocol: TCP}]}", {"protocol[1]=6;"}, "Allow tcp"},
    {"Range",
     "{ports: [{port: 80, endPort: 65535}]}",
     {"protocol[1]=6;destination.ports[8]=80:65535;"},
     "Allow tcp to port 80:65535"},
    {"ByProtocol",
     "{ports: [{port: 80}, {port: dns, protocol: UDP}, {port: 443}]}",
     {"protocol[1]=6;destination.ports[6]=443,80;", "protocol[2]=17;destination.ports[8]=name dns;"},
     "Allow tcp port 80, 443 or udp port dns"},
    {"IpBlock",
     "{from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16]}}]}",
     {"source.nets[10]=10.0.0.0/8;source.not_nets[11]=10.1.0.0/16;"},
     "Allow from 10.0.0.0/8 except 10.1.0.0/16"},
    {"ExceptMayBeTheBlock",
     "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}",
     {"source.nets[10]=10.0.0.0/8;source.not_nets[10]=10.0.0.0/8;"},
     "Allow from 10.0.0.0/8 except 10.0.0.0/8"},
};
INSTANTIATE_TEST_SUITE_P(Table, KubernetesRule, testing::ValuesIn(kRules),
                         [](const auto& param) { return param.param.name; });

struct PeerCase {
  const char* name;
  const char* peer;
  const char* selector;  // behind "pods only"
  const char* text;
};

class KubernetesPeer : public testing::TestWithParam<PeerCase> {};

TEST_P(KubernetesPeer, IsOneSelectorOfPods) {
  const Policy policy =
      kubernetes("{podSelector: {}, egress: [{to: [" + std::string(GetParam().peer) + "]}]}");
  ASSERT_EQ(policy.egress.size(), 1u);
  const PeerSpec& peer = policy.egress[0].any_of.at(0).destination;
  ASSERT_TRUE(peer.selector);
  EXPECT_EQ(peer.selector->canonical(), "(" + std::string(kPods) + " && " + GetParam().selector + ")");
  EXPECT_EQ(peer.selector_text, GetParam().text);
}

const PeerCase kPeers[] = {
    {"PodsOfTheNamespace", "{podSelector: {matchLabels: {app: web}}}",
     "projectcalico.org/namespace == \"ns\" && app == \"web\"", "app == 'web' in namespace ns"},
    {"AllPodsOfTheNamespace", "{podSelector: {}}", "projectcalico.org/namespace == \"ns\"",
     "any pod in namespace ns"},
    {"AllNamespaces", "{namespaceSelector: {}}", "has(projectcalico.org/namespace)", "any pod"},
    {"Namespaces", "{namespaceSelector: {matchLabels: {team: x}}}", "pcns.team == \"x\"",
     "any pod in namespaces team == 'x'"},
    {"Both", "{podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {team: x}}}",
     "pcns.team == \"x\" && a == \"b\"", "a == 'b' in namespaces team == 'x'"},
    {"Expressions",
     "{namespaceSelector: {}, podSelector: {matchExpressions: [{key: a, operator: In, values: ['y', x]}, "
     "{key: "
     "b, operator: NotIn, "
     "values: [z]}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}}",
     "has(projectcalico.org/namespace) && (a in {\"x\", \"y\"} && b not in {\"z\"} && has(c) && !has(d))",
     "a in {'y', 'x'} && b not in {'z'} && has(c) && !has(d)"},
};
INSTANTIATE_TEST_SUITE_P(Table, KubernetesPeer, testing::ValuesIn(kPeers),
                         [](const auto& param) { return param.param.name; });

TEST(Kubernetes, TierOrderAndSubject) {
  const Policy policy = kubernetes("{podSelector: {matchLabels: {app: db}}}");
  EXPECT_EQ(policy.tier, "default");
  EXPECT_EQ(policy.order, 1000);
  EXPECT_EQ(policy.key.kind, PolicyKind::KubernetesNetworkPolicy);
  EXPECT_EQ(policy.subject.canonical(),
            "(projectcalico.org/namespace == \"ns\" && " + std::string(kPods) + " && app == \"db\")");
  EXPECT_EQ(policy.subject_text, "app == 'db'");
}

struct TypesCase {
  const char* name;
  const char* spec;
  bool ingress;
  bool egress;
};

class KubernetesTypes : public testing::TestWithParam<TypesCase> {};

TEST_P(KubernetesTypes, Apply) {
  const Policy policy = kubernetes(GetParam().spec);
  EXPECT_EQ(policy.applies_ingress, GetParam().ingress);
  EXPECT_EQ(policy.applies_egress, GetParam().egress);
}

const TypesCase kTypes[] = {
    {"Missing", "{podSelector: {}}", true, false},
    {"EgressRules", "{podSelector: {}, egress: [{}]}", true, true},
    {"EmptyEgressList", "{podSelector: {}, egress: []}", true, false},
    {"EgressOnly", "{podSelector: {}, policyTypes: [Egress]}", false, true},
    {"RulesOfAnotherType", "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}", true, false},
    {"EmptyTypes", "{podSelector: {}, policyTypes: []}", true, false},
};
INSTANTIATE_TEST_SUITE_P(Table, KubernetesTypes, testing::ValuesIn(kTypes),
                         [](const auto& param) { return param.param.name; });

TEST(Kubernetes, LogAnnotations) {
  const Loaded loaded = load_text(R"(
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: ns, annotations: {tierlog.io/log: deny, tierlog.io/log-label: my label}}
spec: {podSelector: {}, ingress: [{}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: ns, labels: {team: x}, annotations: {tierlog.io/log: all}}
spec: {finalizers: [kubernetes]}
status: {phase: Active}
)",
                                  "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  EXPECT_EQ(loaded.set.policies.at(0).log_decisions, LogDecisions::Deny);
  EXPECT_EQ(loaded.set.policies.at(0).ingress.at(0).log_label, "my label");
  ASSERT_EQ(loaded.set.namespaces.size(), 1u);
  EXPECT_EQ(loaded.set.namespaces[0].log_decisions, LogDecisions::All);
  EXPECT_EQ(loaded.set.namespaces[0].labels, (Labels{{"kubernetes.io/metadata.name", "ns"}, {"team", "x"}}));
}

TEST(Kubernetes, EnforcementIsANamespacesAnnotation) {
  const auto of = [](const std::string& value) {
    return load_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, annotations: {tierlog.io/enforcement: " +
                         value + "}}\n",
                     "p.yaml");
  };
  EXPECT_TRUE(of("audit").set.namespaces.at(0).audited);
  EXPECT_FALSE(of("enforce").set.namespaces.at(0).audited);
  EXPECT_NE(of("watch").findings.to_string().find("p.yaml:3:"), std::string::npos);
  const Loaded elsewhere = load_text(
      "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns, annotations: "
      "{tierlog.io/enforcement: audit}}\nspec: {podSelector: {}}\n",
      "p.yaml");
  EXPECT_NE(elsewhere.findings.to_string().find("expected it on a Namespace"), std::string::npos);
}

TEST(Admin, TiersPrioritiesAndActions) {
  const Policy anp = only_policy(R"(
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: p}
spec:
  priority: 7
  subject: {namespaces: {matchLabels: {team: x}}}
  ingress:
  - {name: one, action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}], ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 5, end: 9}}, {namedPort: web}]}
)");
  EXPECT_EQ(anp.display(), "kube-admin//p");
  EXPECT_EQ(anp.order, 7);
  EXPECT_TRUE(anp.applies_ingress);
  EXPECT_FALSE(anp.applies_egress);
  EXPECT_EQ(anp.subject.canonical(), "(" + std::string(kPods) + " && pcns.team == \"x\")");
  ASSERT_EQ(anp.ingress.at(0).any_of.size(), 3u);
  EXPECT_EQ(anp.ingress[0].action, Action::Pass);
  EXPECT_EQ(anp.ingress[0].text, "Pass tcp port 80 or udp port 5:9 or port web from a == 'b'");

  const Policy cnp = only_policy(R"(
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Baseline
  priority: 3
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{networks: [10.0.0.0/8, fd00::/8]}], protocols: [{sctp: {destinationPort: {number: 9}}}, {udp: {}}]}
)");
  EXPECT_EQ(cnp.display(), "kube-baseline//p");
  EXPECT_EQ(cnp.egress.at(0).action, Action::Allow);
  EXPECT_EQ(cnp.egress[0].any_of.at(1).canonical(),
            "protocol[2]=17;destination.nets[19]=10.0.0.0/8,fd00::/8;");
}

// v1beta1 is v1alpha2 unchanged, and both may leave the namespaceSelector of pods out.
TEST(Admin, ClusterPoliciesOfBothVersions) {
  for (const char* version : {"v1alpha2", "v1beta1"}) {
    const Policy policy = only_policy("apiVersion: policy.networking.k8s.io/" + std::string(version) + R"(
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 3
  subject: {pods: {podSelector: {matchLabels: {a: b}}}}
  ingress:
  - {action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {}}}, {pods: {namespaceSelector: null, podSelector: {matchExpressions: [{key: c, operator: Exists}]}}}]}
)");
    EXPECT_EQ(policy.display(), "kube-admin//p");
    EXPECT_EQ(policy.subject.canonical(),
              "(" + std::string(kPods) + " && has(projectcalico.org/namespace) && a == \"b\")");
    EXPECT_EQ(policy.subject_text, "a == 'b'");
    EXPECT_EQ(policy.ingress.at(0).text, "Deny from any pod or has(c)");
  }
}

TEST(Admin, DomainNamesAsUpstreamHasThem) {
  const auto findings = [](const std::string& name) {
    return load_text(R"(
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 3
  subject: {namespaces: {}}
  egress: [{action: Accept, to: [{domainNames: [")" +
                         name + "\"]}]}]\n",
                     "f")
        .findings.errors();
  };
  for (const char* good : {"example.com", "WWW.Example.com", "a_b.example.com", "example.com.",
                           "*.example.com.", "1.2", "a--b.xn--c"})
    EXPECT_EQ(findings(good), 0u) << good;
  for (const char* bad :
       {"com", "com.", "*.com", "a..b", ".a.b", "_a.b", "a_.b", "a.-b", "a.b-", "x.*.b", "*", "a b.c", ""})
    EXPECT_EQ(findings(bad), 1u) << bad;
}

struct AdminPeer {
  const char* name;
  const char* rule;
  const char* canonical;
  const char* text;
};

class AdminPeers : public testing::TestWithParam<AdminPeer> {};

TEST_P(AdminPeers, InNormalForm) {
  const Policy policy = only_policy(
      "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: p}, spec: "
      "{priority: 1, subject: {namespaces: {}}, " +
      std::string(GetParam().rule) + "}}");
  const PolicyRule& rule = policy.ingress.empty() ? policy.egress.at(0) : policy.ingress.at(0);
  EXPECT_EQ(rule.any_of.at(0).canonical(), GetParam().canonical);
  EXPECT_EQ(rule.text, GetParam().text);
}

const AdminPeer kAdminPeers[] = {
    {"NodesByLabel", "egress: [{action: Allow, to: [{nodes: {matchLabels: {os: linux}}}]}]",
     "destination.nodes[13]=os == \"linux\";", "Allow to nodes with os == 'linux'"},
    {"AllNodes", "egress: [{action: Deny, to: [{nodes: {}}]}]", "destination.nodes[5]=all();",
     "Deny to any node"},
    {"SameLabels", "ingress: [{action: Pass, from: [{namespaces: {sameLabels: [b, a]}}]}]",
     "source.selector[71]=(projectcalico.org/orchestrator == \"k8s\" && has(pcns.b) && has(pcns.a));"
     "source.same_labels[3]=a,b;",
     "Pass from any pod in namespaces with the same b or a"},
    {"NotSameLabels", "ingress: [{action: Deny, from: [{namespaces: {notSameLabels: [a]}}]}]",
     "source.selector[56]=(projectcalico.org/orchestrator == \"k8s\" && "
     "has(pcns.a));source.not_same_labels[1]=a;",
     "Deny from any pod in namespaces with another a"},
    {"EarlyNamespaceSelector",
     "ingress: [{action: Deny, from: [{namespaces: {namespaceSelector: {matchLabels: {team: x}}}}]}]",
     "source.selector[61]=(projectcalico.org/orchestrator == \"k8s\" && pcns.team == \"x\");",
     "Deny from any pod in namespaces team == 'x'"},
    {"EarlyPods",
     "egress: [{action: Deny, to: [{pods: {namespaces: {namespaceSelector: {}}, podSelector: {matchLabels: "
     "{a: "
     "b}}}}]}]",
     "destination.selector[91]=((projectcalico.org/orchestrator == \"k8s\" && "
     "has(projectcalico.org/namespace)) && "
     "a == \"b\");",
     "Deny to a == 'b'"},
    {"EarlyOwnNamespace",
     "ingress: [{action: Allow, from: [{pods: {namespaces: {related: Self}, podSelector: {}}}]}]",
     "source.selector[82]=(projectcalico.org/orchestrator == \"k8s\" && "
     "has(pcns.kubernetes.io/metadata.name));"
     "source.same_labels[27]=kubernetes.io/metadata.name;",
     "Allow from any pod in the same namespace"},
    {"EarlyOtherNamespaces", "ingress: [{action: Deny, from: [{namespaces: {related: NotSelf}}]}]",
     "source.selector[82]=(projectcalico.org/orchestrator == \"k8s\" && "
     "has(pcns.kubernetes.io/metadata.name));"
     "source.not_same_labels[27]=kubernetes.io/metadata.name;",
     "Deny from any pod in another namespace"},
};

INSTANTIATE_TEST_SUITE_P(All, AdminPeers, testing::ValuesIn(kAdminPeers),
                         [](const auto& param) { return param.param.name; });

TEST(Admin, WhatCannotBeEnforcedFailsClosed) {
  const Loaded loaded = load_text(R"(
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: p}
spec:
  priority: 7
  subject: {namespaces: {}}
  egress:
  - {action: Allow, to: [{networks: [10.0.0.0/8]}, {domainNames: [example.com]}]}
  - {action: Pass, to: [{domainNames: ["*.example.org"]}]}
)",
                                  "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(),
            "p.yaml:9:53: warning: domainNames as a peer cannot be enforced; this rule allows nothing\n"
            "p.yaml:10:26: warning: domainNames as a peer cannot be enforced; this rule denies everything "
            "instead\n");
  ASSERT_EQ(loaded.set.policies.at(0).egress.size(), 1u);
  const PolicyRule& rule = loaded.set.policies[0].egress[0];
  EXPECT_EQ(rule.index, 1);
  EXPECT_EQ(rule.action, Action::Deny);
  EXPECT_EQ(rule.any_of.at(0), MatchSpec{});
}

}  // namespace
}  // namespace tierlog::policy
