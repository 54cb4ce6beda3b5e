// What is remembered of explained packets, and for how long.
#include "logger/explainer.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace tierlog::logger
