// What the flow index of a real node answers: policies made from its traffic keep that traffic and nothing
// else, diff foretells what packets then do, and the past is explained as it was.
#include "policy/explain.h"
#include "policy/load.h"
#include "query/moment.h"
#include "query/recommend.h"
#include "query/replay.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}, {name: b}]
pods:
- {name: web, namespace: a, labels: {role: web}, ips: [10.1.0.5]}
- {name: batch, namespace: b, labels: {role: batch}, ips: [10.1.0.7]}
- name: db
  namespace: a
  labels: {role: db}
  ips: [10.1.0.6]
  ports: [{name: sql, protocol: TCP, port: 5432}, {name: http, protocol: TCP, port: 8080}]
)";
constexpr const char* kOpen = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: open, namespace: a}
spec: {selector: all(), ingress: [{action: Allow}]}
)";

class Queries : public LiveNode, public ::testing::WithParamInterface<query::PolicyForm> {
 protected:
  void SetUp() override { start(kTopology, kOpen); }

  lab::Attempt connect(const char* from, std::uint16_t port) const {
    const IpAddr to = *lab_->address("a/db", Family::V4);
    const auto result = lab_->run_in(from, [&] { return static_cast<int>(lab::try_tcp(to, port, 500ms)); });
    EXPECT_TRUE(result);
    return static_cast<lab::Attempt>(*result);
  }
  store::FlowReader reader() const {
    flush(*lab_);
    auto opened = store::FlowReader::open(lab_->database());
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  query::Replay replayed(const std::string& yaml) const {
    auto reading = reader();
    const auto replay = query::replay(reading, policy::load_text(yaml, "new.yaml").set, {});
    EXPECT_TRUE(replay) << replay.error().message;
    return *replay;
  }
};

TEST_P(Queries, RecommendedPoliciesKeepWhatHappenedAndNothingElse) {
  if (!lab_) return;
  ASSERT_EQ(connect("a/web", 5432), lab::Attempt::Connected);
  ASSERT_EQ(connect("b/batch", 8080), lab::Attempt::Connected);
  auto reading = reader();
  const auto made = query::recommend(reading, "a", GetParam(), {});
  ASSERT_TRUE(made) << made.error().message;
  const query::Replay same = replayed(made->yaml);
  EXPECT_GE(same.coverage.replayed, 3u);
  EXPECT_FALSE(same.changes_a_verdict()) << made->yaml;
  apply(made->yaml);
  EXPECT_EQ(connect("a/web", 5432), lab::Attempt::Connected) << made->yaml;
  EXPECT_EQ(connect("b/batch", 8080), lab::Attempt::Connected) << made->yaml;
  EXPECT_EQ(connect("a/web", 8080), lab::Attempt::TimedOut) << made->yaml;
  EXPECT_EQ(connect("b/batch", 5432), lab::Attempt::TimedOut) << made->yaml;
}

TEST_P(Queries, DiffForetellsAndThePastStaysExplained) {
  if (!lab_) return;
  ASSERT_EQ(connect("b/batch", 5432), lab::Attempt::Connected);
  const std::string closed =
      "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: open, namespace: a}\n"
      "spec: {selector: all(), ingress: [{action: Allow, source: {selector: role == 'web'}}]}\n";
  const query::Replay foretold = replayed(closed);
  ASSERT_FALSE(foretold.changes.empty());
  EXPECT_EQ(foretold.changes[0].kind, query::Change::Kind::NowDenied);
  EXPECT_EQ(foretold.changes[0].from, "b/batch");
  const WallTime before = SystemClock().wall();
  apply(closed);
  EXPECT_EQ(connect("b/batch", 5432), lab::Attempt::TimedOut);
  auto reading = reader();
  const auto verdict_at = [&](WallTime at) {
    const auto past = query::past_at(reading, at);
    EXPECT_TRUE(past) << past.error().message;
    const auto program = query::program_of(reading, *past);
    EXPECT_TRUE(program);
    return policy::explain(*program, {*IpAddr::parse("10.1.0.7"), *IpAddr::parse("10.1.0.6"), protocol::kTcp,
                                      40000, 5432, 0, 0});
  };
  const policy::Explanation then = verdict_at(before), now = verdict_at(SystemClock().wall());
  EXPECT_EQ(then.action, policy::Action::Allow);
  EXPECT_EQ(now.action, policy::Action::Deny);
  // The rule that the evaluation names is the one that the kernel counted.
  store::FlowQuery denied;
  denied.filters = {{store::FieldFilter::Field::Action, {"deny"}, false}};
  const auto records = reading.flows(denied);
  ASSERT_TRUE(records && !records->empty());
  EXPECT_EQ(now.ingress->steps.back().rule, records->front().record.rule);
}

INSTANTIATE_TEST_SUITE_P(Forms, Queries,
                         ::testing::Values(query::PolicyForm::Calico, query::PolicyForm::Kubernetes),
                         [](const auto& test) {
                           return test.param == query::PolicyForm::Calico ? "Calico" : "Kubernetes";
                         });

}  // namespace
}  // namespace tierlog::testing
