// What is remembered of explained packets, and for how long.
#include "logger/explainer.h"

#include <gtest/gtest.h>

#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::logger {
namespace {

using dataplane::VerdictEvent;

TEST(Explainer, AScanIsForgottenAndWhatGoesOnIsNot) {
  Explainer explainer;
  const auto at = [](int seconds) { return WallTime(std::chrono::seconds(1'700'000'000 + seconds)); };
  const auto ask = [&](std::uint32_t source) {
    VerdictEvent event;
    event.kind = dataplane::EventKind::Denied;
    event.rule = RuleId{42};
    event.source = IpAddr::v4(0x0a010000 + source);
    event.destination = *IpAddr::parse("10.0.0.2");
    event.protocol = protocol::kUdp;
    event.destination_port = 80;
    event.time = at(0);
    return explainer.explain(event).record;
  };
  const auto first = ask(1);
  for (std::uint32_t source = 1; source <= 5000; ++source) ask(source);
  struct Step {
    int seconds;
    std::size_t kept;
  };
  for (const Step& step : {Step{0, 5000}, {30, 5000}, {60, 1}, {120, 1}, {180, 1}}) {
    EXPECT_EQ(ask(1), first) << "asked again and again, it is the same one";
    explainer.let_go_unasked(at(step.seconds));
    EXPECT_EQ(explainer.kept(), step.kept) << "after " << step.seconds << " s";
  }
  explainer.let_go_unasked(at(240));
  EXPECT_EQ(explainer.kept(), 0u);
}

// Ports that no rule tells apart are one explanation.
TEST(Explainer, PortsThatAreJudgedAlikeAreExplainedOnce) {
  Explainer explainer;
  VerdictEvent event;
  event.kind = dataplane::EventKind::Denied;
  event.rule = RuleId{42};
  event.source = *IpAddr::parse("10.0.0.1");
  event.destination = *IpAddr::parse("10.0.0.2");
  event.protocol = protocol::kUdp;
  for (std::uint16_t port = 1; port <= 5000; ++port) {
    event.destination_port = port;
    explainer.explain(event);
  }
  EXPECT_EQ(explainer.kept(), 1u);
}

// What a staged policy, which has no id in the kernel, says of a port is never told of another one.
TEST(Explainer, PortsThatAreJudgedOtherwiseAreNotExplainedAlike) {
  struct Case {
    const char* staged;  // a rule that denies
    std::vector<std::uint16_t> denied, others;
  };
  const Case cases[] = {
      {"{action: Deny, protocol: UDP, destination: {ports: [80]}}", {80}, {79, 81}},
      {"{action: Deny, protocol: UDP, destination: {ports: ['100:200']}}", {100, 150, 200}, {99, 201}},
      {"{action: Deny, protocol: UDP, destination: {notPorts: [53]}}", {52, 54}, {53}},
      {"{action: Deny, protocol: UDP, destination: {ports: [dns]}}", {5353}, {5352, 5354}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.staged);
    const auto loaded = policy::load_text(
        std::string("apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: all}\n"
                    "spec:\n  selector: all()\n  ingress:\n  - {action: Deny}\n---\n"
                    "apiVersion: projectcalico.org/v3\nkind: StagedGlobalNetworkPolicy\nmetadata: {name: would}\n"
                    "spec:\n  order: 1\n  selector: all()\n  ingress:\n  - ") +
            test.staged + "\n",
        "f");
    ASSERT_EQ(loaded.findings.to_string(), "");
    policy::Cluster cluster;
    policy::Endpoint pod;
    pod.endpoint_namespace = "a";
    pod.name = "db";
    pod.addresses = {*IpAddr::parse("10.0.0.2")};
    pod.ports = {{"dns", protocol::kUdp, 5353}};
    pod.local = true;
    cluster.endpoints = {pod};
    policy::MemoryRuleIds ids;
    auto program = policy::compile(loaded.set, std::make_shared<const policy::Cluster>(cluster), ids);
    ASSERT_TRUE(program) << program.error().message;
    Explainer explainer;
    RuleId denies = RuleId::None;
    for (const policy::ProgramPolicy& policy : program->policies)
      if (!policy.staged) denies = program->rules[policy.rules(Direction::Ingress)[0]].id;
    explainer.set_program(std::make_shared<const policy::Program>(std::move(*program)), {}, from_ns(0));
    const auto would_be_denied = [&](std::uint16_t port) {
      VerdictEvent event;
      event.kind = dataplane::EventKind::Denied;
      event.rule = denies;
      event.source = *IpAddr::parse("192.0.2.1");
      event.destination = pod.addresses[0];
      event.protocol = protocol::kUdp;
      event.destination_port = port;
      event.time = from_ns(1);
      const auto record = explainer.explain(event).record;
      return !record->staged.empty() && record->staged[0].action == store::Verdict::Deny;
    };
    for (const std::uint16_t port : test.others) EXPECT_FALSE(would_be_denied(port)) << port;
    for (const std::uint16_t port : test.denied) EXPECT_TRUE(would_be_denied(port)) << port;
    for (const std::uint16_t port : test.others) EXPECT_FALSE(would_be_denied(port)) << port << ", asked again";
  }
}

}  // namespace
}  // namespace tierlog::logger
