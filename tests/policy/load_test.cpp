// Calico's kinds in normal form, and what is common to all kinds.
#include "policy/load.h"
#include "tests/policy/conformance.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace tierlog::policy {
namespace {

namespace fs = std::filesystem;

std::string object(const std::string& kind, const std::string& metadata, const std::string& spec) {
  return "apiVersion: projectcalico.org/v3\nkind: " + kind + "\nmetadata: " + metadata + "\nspec: " + spec +
         "\n";
}

Policy only_policy(const std::string& text) {
  Loaded loaded = load_text(text, "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "") << text;
  EXPECT_EQ(loaded.set.policies.size(), 1u);
  return loaded.set.policies.empty() ? Policy{} : loaded.set.policies.front();
}

Policy namespaced(const std::string& spec) {
  return only_policy(object("NetworkPolicy", "{name: p, namespace: ns}", spec));
}

Policy global(const std::string& spec) {
  return only_policy(object("GlobalNetworkPolicy", "{name: p}", spec));
}

struct RuleCase {
  const char* name;
  const char* rule;
  const char* canonical;
  const char* text;
};

class CalicoRule : public testing::TestWithParam<RuleCase> {};

TEST_P(CalicoRule, InNormalForm) {
  const Policy policy = namespaced("{ingress: [" + std::string(GetParam().rule) + "]}");
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
    {"QuotedNumber", "{action: Allow, protocol: tcp, source: {notPorts: ['0']}}",
     "protocol[1]=6;source.not_ports[1]=0;", "Allow tcp from not port 0"},
    {"NamedPortWithoutProtocol", "{action: Allow, destination: {ports: [http]}}",
     "destination.ports[9]=name http;", "Allow to port http"},
    {"ProtocolNumber", "{action: Pass, protocol: 47}", "protocol[2]=47;", "Pass 47"},
    {"NotProtocol", "{action: Log, notProtocol: UDPLite}", "not_protocol[3]=136;", "Log not udplite"},
    {"Icmp", "{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}", "protocol[1]=1;icmp[3]=8/0;",
     "Allow icmp type 8 code 0"},
    {"NotIcmp", "{action: Allow, protocol: ICMPv6, notICMP: {type: 128}}",
     "protocol[2]=58;not_icmp[5]=128/*;", "Allow icmpv6 not type 128"},
    {"IpVersion", "{action: Deny, ipVersion: 6}", "family[1]=6;", "Deny ipv6"},
    {"Nets", "{action: Deny, source: {nets: [10.1.2.3/8, 10.0.0.1], notNets: ['fd00::/8']}}",
     "source.nets[22]=10.0.0.0/8,10.0.0.1/32;source.not_nets[8]=fd00::/8;",
     "Deny from 10.0.0.0/8, 10.0.0.1/32 except fd00::/8"},
    {"RuleMetadata", "{action: Allow, metadata: {annotations: {why: because}}}", "", "Allow"},
    {"ServiceOfSource", "{action: Allow, source: {services: {name: s}}}", "source.service[4]=ns/s;",
     "Allow from service ns/s"},
    {"BothSides",
     "{action: Deny, protocol: TCP, source: {selector: role == 'web'}, destination: {ports: [5432]}}",
     "protocol[1]=6;source.selector[54]=(projectcalico.org/namespace == \"ns\" && role == \"web\");"
     "destination.ports[4]=5432;",
     "Deny tcp from role == 'web' to port 5432"},
};
INSTANTIATE_TEST_SUITE_P(Table, CalicoRule, testing::ValuesIn(kRules),
                         [](const auto& param) { return param.param.name; });

struct PeerCase {
  const char* name;
  bool global;
  const char* peer;
  const char* selector;      // "" = none
  const char* not_selector;  // "" = none
  const char* text;
};

class CalicoPeer : public testing::TestWithParam<PeerCase> {};

TEST_P(CalicoPeer, OverEffectiveLabels) {
  const std::string spec = "{ingress: [{action: Allow, source: " + std::string(GetParam().peer) + "}]}";
  const Policy policy = GetParam().global ? global(spec) : namespaced(spec);
  ASSERT_EQ(policy.ingress.size(), 1u);
  const PeerSpec& peer = policy.ingress[0].any_of.at(0).source;
  EXPECT_EQ(peer.selector ? peer.selector->canonical() : "", GetParam().selector);
  EXPECT_EQ(peer.not_selector ? peer.not_selector->canonical() : "", GetParam().not_selector);
  EXPECT_EQ(peer.selector_text, GetParam().text);
}

const PeerCase kPeers[] = {
    {"NothingIsNoLimit", false, "{nets: [10.0.0.0/8]}", "", "", ""},
    {"SelectorLimitsToTheNamespace", false, "{selector: has(a)}",
     "(projectcalico.org/namespace == \"ns\" && has(a))", "", "has(a)"},
    {"AllIsTheNamespace", false, "{selector: all()}", "projectcalico.org/namespace == \"ns\"", "", "all()"},
    {"NotSelectorLimitsToo", false, "{notSelector: has(a)}", "projectcalico.org/namespace == \"ns\"",
     "has(a)", "anything in namespace ns"},
    {"ServiceAccountsLimitToo", false, "{serviceAccounts: {names: ['y', x], selector: team == 'z'}}",
     "(projectcalico.org/namespace == \"ns\" && pcsa.team == \"z\" && projectcalico.org/serviceaccount in "
     "{\"x\", \"y\"})",
     "", "service accounts team == 'z' named y or x"},
    {"EmptyServiceAccounts", false, "{serviceAccounts: {}}", "", "", ""},
    {"NamespaceSelector", false, "{selector: has(a), namespaceSelector: team == 'x'}",
     "(pcns.team == \"x\" && has(a))", "", "has(a) in namespaces team == 'x'"},
    {"AllNamespaces", false, "{namespaceSelector: all()}", "has(projectcalico.org/namespace)", "",
     "anything in any namespace"},
    {"NoNamespace", false, "{namespaceSelector: global(), selector: has(a)}",
     "(!has(projectcalico.org/namespace) && has(a))", "", "has(a) without a namespace"},
    {"EmptySelectorIsNone", false, "{selector: ''}", "", "", ""},
    {"Global", true, "{selector: has(a)}", "has(a)", "", "has(a)"},
    {"GlobalAllIsKnownEndpoints", true, "{selector: all()}", "all()", "", "all()"},
    {"GlobalNotSelector", true, "{notSelector: has(a)}", "", "has(a)", ""},
    {"GlobalNamespaceSelector", true, "{namespaceSelector: has(x)}", "has(pcns.x)", "",
     "anything in namespaces has(x)"},
};
INSTANTIATE_TEST_SUITE_P(Table, CalicoPeer, testing::ValuesIn(kPeers),
                         [](const auto& param) { return param.param.name; });

struct SubjectCase {
  const char* name;
  bool global;
  const char* spec;
  const char* subject;
  const char* text;
};

class CalicoSubject : public testing::TestWithParam<SubjectCase> {};

TEST_P(CalicoSubject, OverEffectiveLabels) {
  const Policy policy = GetParam().global ? global(GetParam().spec) : namespaced(GetParam().spec);
  EXPECT_EQ(policy.subject.canonical(), GetParam().subject);
  EXPECT_EQ(policy.subject_text, GetParam().text);
}

const SubjectCase kSubjects[] = {
    {"Namespace", false, "{}", "projectcalico.org/namespace == \"ns\"", "all()"},
    {"Selector", false, "{selector: has(a)}", "(projectcalico.org/namespace == \"ns\" && has(a))", "has(a)"},
    {"ServiceAccounts", false, "{selector: has(a), serviceAccountSelector: has(b)}",
     "(projectcalico.org/namespace == \"ns\" && has(a) && has(pcsa.b))",
     "has(a) and service accounts has(b)"},
    {"Global", true, "{}", "all()", "all()"},
    {"GlobalNamespaces", true, "{selector: has(a), namespaceSelector: has(n)}", "(has(pcns.n) && has(a))",
     "has(a) in namespaces has(n)"},
    {"GlobalAllNamespaces", true, "{namespaceSelector: all()}", "has(projectcalico.org/namespace)",
     "all() in any namespace"},
    {"GlobalAllOfSomeNamespaces", true, "{selector: all(), namespaceSelector: '!has(n)'}",
     "(!has(pcns.n) && has(projectcalico.org/namespace))", "all() in namespaces !has(n)"},
    {"GlobalEmptyOfSomeNamespaces", true, "{namespaceSelector: '!has(n)'}", "!has(pcns.n)",
     "all() in namespaces !has(n)"},
    {"GlobalAllServiceAccounts", true, "{selector: all(), serviceAccountSelector: all()}",
     "(has(projectcalico.org/serviceaccount) && has(projectcalico.org/serviceaccount))",
     "all() and service accounts all()"},
    {"GlobalEmptyOfServiceAccounts", true, "{serviceAccountSelector: '!has(a)'}", "!has(pcsa.a)",
     "all() and service accounts !has(a)"},
    {"GlobalAllInside", true, "{selector: \"!all() || a == 'all()'\", serviceAccountSelector: has(b)}",
     "((!has(projectcalico.org/serviceaccount) || a == \"all()\") && has(pcsa.b))",
     "!all() || a == 'all()' and service accounts has(b)"},
    {"GlobalAllWithoutLimits", true, "{selector: all()}", "all()", "all()"},
};
INSTANTIATE_TEST_SUITE_P(Table, CalicoSubject, testing::ValuesIn(kSubjects),
                         [](const auto& param) { return param.param.name; });

struct TypesCase {
  const char* name;
  const char* spec;
  bool ingress;
  bool egress;
};

class CalicoTypes : public testing::TestWithParam<TypesCase> {};

TEST_P(CalicoTypes, Apply) {
  const Policy policy = namespaced(GetParam().spec);
  EXPECT_EQ(policy.applies_ingress, GetParam().ingress);
  EXPECT_EQ(policy.applies_egress, GetParam().egress);
}

const TypesCase kTypes[] = {
    {"NoRules", "{}", true, false},
    {"IngressRules", "{ingress: [{action: Allow}]}", true, false},
    {"EgressRules", "{egress: [{action: Allow}]}", false, true},
    {"BothRules", "{ingress: [{action: Allow}], egress: [{action: Allow}]}", true, true},
    {"TypesDisableRules", "{types: [Ingress], egress: [{action: Allow}]}", true, false},
    {"TypesWithoutRules", "{types: [Egress]}", false, true},
    {"Empty", "{types: [], egress: [{action: Allow}]}", false, true},
};
INSTANTIATE_TEST_SUITE_P(Table, CalicoTypes, testing::ValuesIn(kTypes),
                         [](const auto& param) { return param.param.name; });

TEST(Load, RuleAndPolicyPlaces) {
  const Policy policy = only_policy(
      "# comment\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: default.p, "
      "namespace: ns}\n"
      "spec:\n  tier: platform\n  order: 2.5\n  ingress:\n  - action: Allow\n  - protocol: TCP\n    action: "
      "Deny\n");
  EXPECT_EQ(policy.display(), "platform/ns/default.p");
  EXPECT_EQ(policy.order, 2.5);
  EXPECT_EQ(policy.source.to_string(), "p.yaml:2:1");
  EXPECT_EQ(policy.ingress.at(1).source.to_string(), "p.yaml:10:5");
  EXPECT_EQ(policy.ingress.at(1).index, 1);
}

TEST(Load, ServerSideFieldsAreAccepted) {
  only_policy(R"(
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata:
  name: p
  namespace: ns
  uid: 6f1c
  creationTimestamp: "2026-01-01T00:00:00Z"
  resourceVersion: "5"
  generation: 2
  labels: {a: b}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  managedFields: [{manager: x}]
  ownerReferences: []
  finalizers: []
spec: {performanceHints: [AssumeNeededOnEveryNode]}
status: {conditions: []}
)");
}

TEST(Load, Tiers) {
  const Loaded loaded =
      load_text(object("Tier", "{name: security}", "{order: 100, defaultAction: Pass}") + "---\n" +
                    object("Tier", "{name: last}", "{}") + "---\n" +
                    object("Tier", "{name: baselineadminnetworkpolicy}", "{order: 10000000}") + "---\n" +
                    object("GlobalNetworkPolicy", "{name: p}", "{tier: nobody}") + "---\n" +
                    object("GlobalNetworkPolicy", "{name: q}", "{tier: adminnetworkpolicy}"),
                "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  std::string tiers;
  for (const Tier& tier : loaded.set.tiers)
    tiers += tier.name + (tier.exists ? " " : "! ") + std::string(name(tier.default_action)) + " ";
  EXPECT_EQ(tiers, "security Pass kube-admin Pass default Deny kube-baseline Pass last Deny nobody! Deny ");
  EXPECT_EQ(loaded.set.policies.at(1).tier, "kube-admin");
}

TEST(Load, StagedKinds) {
  const Loaded loaded =
      load_text(object("StagedNetworkPolicy", "{name: p, namespace: ns}", "{stagedAction: Delete}") +
                    "---\n" + object("NetworkPolicy", "{name: p, namespace: ns}", "{}") + "---\n" +
                    object("StagedGlobalNetworkPolicy", "{name: p}", "{stagedAction: Learn}") + "---\n" +
                    object("StagedKubernetesNetworkPolicy", "{name: p, namespace: ns}",
                           "{podSelector: {}, stagedAction: Set}"),
                "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  ASSERT_EQ(loaded.set.policies.size(), 4u);
  EXPECT_EQ(loaded.set.policies[0].staged_action, StagedAction::Delete);
  EXPECT_EQ(loaded.set.policies[2].staged_action, StagedAction::Learn);
  EXPECT_EQ(loaded.set.policies[3].key.kind, PolicyKind::StagedKubernetesNetworkPolicy);
  EXPECT_EQ(loaded.set.policies[3].order, 1000);
}

TEST(Load, NetworkSets) {
  const Loaded loaded = load_text(
      object("NetworkSet", "{name: s, namespace: ns, labels: {a: b}}", "{nets: [10.0.0.1, 'fd00::/8']}") +
          "---\n" + object("GlobalNetworkSet", "{name: s}", "{}") + "---\n" +
          object("GlobalNetworkSet", "{name: empty}", "{nets: {}}"),
      "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  ASSERT_EQ(loaded.set.network_sets.size(), 3u);
  EXPECT_EQ(loaded.set.network_sets[0].nets.at(0).to_string(), "10.0.0.1/32");
  EXPECT_EQ(loaded.set.network_sets[0].labels, (Labels{{"a", "b"}}));
  EXPECT_EQ(loaded.set.network_sets[1].set_namespace, "");
}

TEST(Load, ListsAndJson) {
  const Loaded loaded = load_text(R"({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicyList",
    "metadata": {"resourceVersion": "1"}, "items": [
      {"metadata": {"name": "a", "namespace": "ns"}, "spec": {"order": 1}},
      {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "b", "namespace": "ns"}, "spec": {}}]})",
                                  "p.json");
  EXPECT_EQ(loaded.findings.to_string(), "");
  EXPECT_EQ(loaded.set.policies.size(), 2u);
}

// As calicoctl takes them.
TEST(Load, ListsOfObjectsAsDocuments) {
  const Loaded loaded = load_text(R"(- apiVersion: projectcalico.org/v3
  kind: Tier
  metadata: {name: t}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: a}
  spec: {tier: t}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: b}
spec: {}
---
[{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "c"}, "spec": {}}]}]
---
[]
)",
                                  "p.yaml");
  EXPECT_EQ(loaded.findings.to_string(), "");
  ASSERT_EQ(loaded.set.policies.size(), 3u);
  EXPECT_EQ(loaded.set.policies[2].key.name, "c");
  EXPECT_EQ(loaded.set.policies[2].source.to_string(), "p.yaml:15:3");
}

TEST(Load, WordsThatKubectlTakesForBooleans) {
  const Loaded loaded = load_text(R"(apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: on, labels: {a: yes, b: "yes", no: c, d: 'n', e: !!str off, f: yesterday}}
spec: {nets: [10.0.0.0/8]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: y}
)",
                                  "p.yaml");
  const std::string text =
      " without quotes is a boolean to kubectl, which refuses it or reads another text; expected it in "
      "quotes\n";
  EXPECT_EQ(loaded.findings.to_string(),
            "p.yaml:3:18: warning: \"on\"" + text + "p.yaml:3:34: warning: \"yes\"" + text +
                "p.yaml:3:49: warning: \"no\"" + text +
                "p.yaml:7:7: warning: kind \"ConfigMap\" of v1 is no policy and skipped\n");
  ASSERT_EQ(loaded.set.network_sets.size(), 1u);
  EXPECT_EQ(loaded.set.network_sets[0].labels.at("a"), "yes");
}

TEST(Load, FoldersInNameOrder) {
  const fs::path folder = fs::path(testing::TempDir()) / ("load." + std::to_string(::getpid()));
  fs::create_directories(folder / "sub.yaml");
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder / name) << text; };
  write("20.yml", object("GlobalNetworkPolicy", "{name: b}", "{}"));
  write("10.yaml", object("GlobalNetworkPolicy", "{name: a}", "{}"));
  write("30.json",
        R"({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}, "spec": {}})");
  write("notes.txt", "not: read");
  const Loaded loaded = load_paths({folder.string()});
  EXPECT_EQ(loaded.findings.to_string(), "");
  EXPECT_EQ(loaded.files, 3u);
  ASSERT_EQ(loaded.set.policies.size(), 2u);
  EXPECT_EQ(loaded.set.policies[0].key.name, "a");
  EXPECT_EQ(load_paths({(folder / "sub.yaml").string()}).findings.warnings(), 1u)
      << "an empty folder is worth a word";
  EXPECT_EQ(load_paths({(folder / "none").string()}).findings.errors(), 1u);
  fs::remove_all(folder);
}

TEST(Load, WhatIsNoFileIsAFindingBesideTheOthers) {
  const fs::path folder = fs::path(testing::TempDir()) / ("load.odd." + std::to_string(::getpid()));
  fs::create_directories(folder);
  std::ofstream(folder / "good.yaml") << object("GlobalNetworkPolicy", "{name: a}", "{}");
  fs::create_symlink("loop.yaml", folder / "loop.yaml");
  fs::create_symlink("/dev/zero", folder / "endless.yaml");
  ASSERT_EQ(::mkfifo((folder / "pipe.yaml").c_str(), 0600), 0);
  const Loaded loaded = load_paths({folder.string()});
  EXPECT_EQ(loaded.set.policies.size(), 1u);
  const std::string at = folder.string() + "/";
  EXPECT_EQ(loaded.findings.to_string(),
            at + "endless.yaml: is a device; expected a regular file\n" + at +
                "loop.yaml: cannot be read: Too many levels of symbolic links; expected a YAML or JSON file\n" + at +
                "pipe.yaml: is a named pipe; expected a regular file\n");
  fs::remove_all(folder);
}

// Every policy of the shared cases loads; what cannot be enforced is a warning.
TEST(LoadConformance, NoErrors) {
  const std::string folder = conformance::file("cases");
  if (!fs::is_directory(folder)) GTEST_SKIP() << conformance::missing(folder);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const yaml::Documents documents = yaml::parse_file(entry.path().string());
    ASSERT_EQ(documents.findings.to_string(), "");
    std::vector<const yaml::Node*> objects;
    for (const yaml::Node& node : documents.documents.at(0).find("policies")->items) objects.push_back(&node);
    const Loaded loaded = load_trees(objects);
    EXPECT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  }
}

}  // namespace
}  // namespace tierlog::policy
