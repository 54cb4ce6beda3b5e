// A disagreement becomes a case that `tierlog test` reads and that shows it again; not more than some are
// kept.
#include "daemon/mismatch_cases.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "endpoints/topology.h"
#include "lab/cases.h"
#include "policy/compile.h"

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPolicies = R"(# what the node enforces
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: restrict, namespace: a}
spec:
  selector: app == 'db'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'api'}, destination: {ports: [5432]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: b}
spec: {podSelector: {}, policyTypes: [Ingress]}
)";
constexpr const char* kTopology = R"(
namespaces: [{name: a, labels: {team: red}}, {name: b}]
pods:
- {name: db, namespace: a, ips: [10.0.0.1, "fd00::1"], labels: {app: db}, ports: [{name: sql, protocol: TCP, port: 5432}]}
- {name: api, namespace: a, ips: [10.0.0.2], labels: {role: api}}
nodes: [{name: n1, ips: [192.0.2.1]}]
)";

class MismatchCase : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto topology = endpoints::load_topology_text(kTopology, "topology.yaml");
    ASSERT_FALSE(topology.findings.has_errors()) << topology.findings.to_string();
    const auto loaded = policy::load_text(kPolicies, "p.yaml");
    policy::Cluster cluster = topology.topology.cluster;
    for (policy::Endpoint& endpoint : cluster.endpoints) endpoint.local = true;
    policy::MemoryRuleIds ids;
    auto program = policy::compile(loaded.set, std::make_shared<const policy::Cluster>(cluster), ids);
    ASSERT_TRUE(program) << program.error().message;
    found_.program = std::make_shared<const policy::Program>(std::move(*program));
    found_.kernel = "kernel's";
    found_.evaluator = "evaluator's";
    found_.event.kind = dataplane::EventKind::Denied;
    found_.event.source = *IpAddr::parse("10.0.0.2");
    found_.event.destination = *IpAddr::parse("10.0.0.1");
    found_.event.protocol = protocol::kTcp;
    found_.event.source_port = 40'000;
    found_.event.destination_port = 5432;
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  lab::CaseResult run(const std::string& path) {
    auto cases = lab::load_cases({path});
    EXPECT_FALSE(cases.findings.has_errors()) << cases.findings.to_string();
    EXPECT_EQ(cases.cases.size(), 1u);
    return cases.cases.empty() ? lab::CaseResult{} : lab::run_model(cases.cases[0]);
  }

  const fs::path folder_ = fs::temp_directory_path() / ("tierlog-mismatch-" + std::to_string(::getpid()));
  const policy::SourceText text_{"p.yaml", kPolicies};
  logger::Disagreement found_;
};

TEST_F(MismatchCase, ShowsTheDisagreementAgain) {
  MismatchCases kept(folder_.string());
  const auto path = kept.keep(found_, {&text_, 1});
  ASSERT_TRUE(path) << path.error().message;
  const lab::CaseResult result = run(*path);
  ASSERT_EQ(result.checks.size(), 1u);
  EXPECT_FALSE(result.passed) << "the kernel denied what the evaluator allows";
  EXPECT_EQ(result.checks[0].observed.verdict, lab::CheckVerdict::Allow);
}

// The control: what both decide alike passes.
TEST_F(MismatchCase, OfAnAgreementWouldPass) {
  found_.event.kind = dataplane::EventKind::Allowed;
  MismatchCases kept(folder_.string());
  const auto path = kept.keep(found_, {&text_, 1});
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_TRUE(run(*path).passed);
}

TEST_F(MismatchCase, OneOfAKindAndNotTooMany) {
  MismatchCases kept(folder_.string());
  EXPECT_FALSE(kept.keep(found_, {&text_, 1})->empty());
  EXPECT_TRUE(kept.keep(found_, {&text_, 1})->empty());
  for (std::size_t i = 0; i < 2 * MismatchCases::kMost; ++i) {
    found_.kernel = "rule " + std::to_string(i);
    found_.event.time = from_ns(static_cast<std::int64_t>(i) + 1);
    ASSERT_TRUE(kept.keep(found_, {&text_, 1}));
  }
  EXPECT_EQ(kept.paths().size(), MismatchCases::kMost);
  EXPECT_EQ(MismatchCases(folder_.string()).paths().size(), MismatchCases::kMost) << "also over restarts";
}

}  // namespace
}  // namespace tierlog::daemon
