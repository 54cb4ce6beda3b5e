// tests/logger/flow_logger_pods.h - a logger of three pods under a few policies, for the tests that give it events and
// counts.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "logger/flow_logger.h"
#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::logger {

using dataplane::DeniedCount;
using dataplane::EventKind;
using dataplane::VerdictEvent;
using store::FlowRecord;

inline constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: platform}
spec: {order: 200}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: restrict, namespace: a}
spec:
  tier: platform
  selector: app == 'db'
  ingress:
  - {action: Log}
  - {action: Allow, protocol: TCP, source: {selector: role == 'api'}, destination: {ports: [5432]}}
  - {action: Deny, protocol: TCP, destination: {ports: [5432]}}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: tighten, namespace: a}
spec:
  tier: platform
  order: 1
  selector: app == 'db'
  ingress:
  - {action: Deny}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec:
  types: [Egress]
  selector: app == 'web'
  egress:
  - {action: Allow}
)";

inline constexpr auto at = [](int seconds) { return WallTime(std::chrono::seconds(1'700'000'000 + seconds)); };

inline policy::Endpoint pod(const std::string& ns, const std::string& name, const std::string& address,
                     policy::Labels labels) {
  policy::Endpoint endpoint;
  endpoint.endpoint_namespace = ns;
  endpoint.name = name;
  endpoint.addresses = {*IpAddr::parse(address)};
  endpoint.labels = std::move(labels);
  endpoint.local = true;
  return endpoint;
}

class FlowLoggerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    program_ = compile(kPolicies);
    logger_.set_program(program_, {}, at(0));
  }

  std::shared_ptr<const policy::Program> compile(const char* text) {
    const policy::Loaded loaded = policy::load_text(text, "test.yaml");
    EXPECT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
    policy::Cluster cluster;
    cluster.namespaces["a"] = {"a", {}};
    cluster.namespaces["b"] = {"b", {}};
    cluster.endpoints = pods_;
    auto program = policy::compile(loaded.set, std::make_shared<const policy::Cluster>(cluster), ids_);
    EXPECT_TRUE(program) << program.error().message;
    return std::make_shared<const policy::Program>(std::move(*program));
  }

  RuleId rule_of(int index) const {
    for (const policy::ProgramRule& rule : program_->rules)
      if (rule.index == index && program_->policies[rule.policy].key.name == "restrict") return rule.id;
    return RuleId::None;
  }

  RuleId end_of_platform() const { return program_->ends.at(0).id; }

  VerdictEvent event(EventKind kind, RuleId rule, const char* from, const char* to, std::uint16_t port,
                     int when) {
    VerdictEvent e;
    e.kind = kind;
    e.rule = rule;
    e.time = at(when);
    e.source = *IpAddr::parse(from);
    e.destination = *IpAddr::parse(to);
    e.protocol = protocol::kTcp;
    e.source_port = 40'000;
    e.destination_port = port;
    e.tcp_flags = 2;
    e.length = 60;
    return e;
  }

  DeniedCount count(RuleId rule, std::uint64_t packets, const char* from = "10.0.0.3") {
    return {rule,    *IpAddr::parse(from), *IpAddr::parse("10.0.0.1"), protocol::kTcp, 5432,
            packets, packets * 60,         std::chrono::hours(1)};
  }

  std::vector<FlowRecord> give(const VerdictEvent& e) {
    logger_.on_events({&e, 1});
    return logger_.take_records();
  }

  std::vector<FlowRecord> read(std::vector<DeniedCount> counts, int when,
                               FlowLogger::Reading reading = FlowLogger::Reading::Regular) {
    logger_.on_denied_counts(counts, at(when), reading);
    return logger_.take_records();
  }

  std::vector<policy::Endpoint> pods_{pod("a", "db", "10.0.0.1", {{"app", "db"}}),
                                      pod("a", "api", "10.0.0.2", {{"role", "api"}}),
                                      pod("b", "web", "10.0.0.3", {{"app", "web"}})};
  policy::MemoryRuleIds ids_;
  std::shared_ptr<const policy::Program> program_;
  FlowLogger logger_;
};

}  // namespace tierlog::logger
