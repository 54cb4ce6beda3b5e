// A record explained from the flow index alone.
#include "cli/explain_record.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "store/flow_store.h"

namespace tierlog::cli {
namespace {

namespace fs = std::filesystem;
using store::FlowRecord;

constexpr RuleId kOut{0x100}, kIn{0x101};

store::RuleRow row(RuleId id, const char* policy, Direction direction, int index, const char* action,
                   const char* source) {
  store::RuleRow rule;
  rule.id = id;
  rule.policy = policy;
  rule.direction = direction;
  rule.rule_index = index;
  rule.action = action;
  rule.reason = "policy";
  rule.revision = 1;
  rule.source = source;
  return rule;
}

FlowRecord denied() {
  FlowRecord record;
  record.id = "018bcfe5-6800-7000-8000-000000000001";
  record.start = record.end = from_ns(1'700'000'000'000'000'000);
  record.reporter = store::Reporter::Destination;
  record.direction = Direction::Ingress;
  record.action = store::Verdict::Deny;
  record.reason = Reason::Policy;
  record.policy = "platform/b/p";
  record.tier = "platform";
  record.rule = kIn;
  record.rule_index = 2;
  record.policy_revision = 1;
  record.proto = protocol::kTcp;
  record.dst_port = 5432;
  record.src = {*IpAddr::parse("10.0.0.1"), store::PeerKind::Pod, "a", "web", "web", {}};
  record.dst = {*IpAddr::parse("10.0.0.2"), store::PeerKind::Pod, "b", "db", "db", {}};
  record.trace = {{Direction::Egress, "default", "default/a/out", 0, "allow"},
                  {Direction::Ingress, "security", "security//q", std::nullopt, "no-match"},
                  {Direction::Ingress, "security", "", -1, "pass"},
                  {Direction::Ingress, "platform", "platform/b/p", 0, "log"},
                  {Direction::Ingress, "platform", "platform/b/p", 2, "deny"}};
  record.staged = {{"platform/b/tighten", store::Verdict::Deny, 0}};
  record.verdict_packets = 1;
  return record;
}

class ExplainRecord : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tierlog-explain-record-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    auto writer = store::FlowStore::open_writer(path(), {"c", "n"});
    ASSERT_TRUE(writer) << writer.error().message;
    const std::vector<store::RuleRow> rules{
        row(kOut, "default/a/out", Direction::Egress, 0, "Allow", "a.yaml:7:3"),
        row(kIn, "platform/b/p", Direction::Ingress, 2, "Deny", "b.yaml:24:3")};
    ASSERT_TRUE(writer->put_rules(rules));
    ASSERT_TRUE(writer->insert(std::vector{denied()}));
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path() const { return (folder_ / "flows.db").string(); }

  fs::path folder_;
};

TEST_F(ExplainRecord, TellsBothDirectionsTheDecisionAndItsPlace) {
  auto reader = store::FlowReader::open(path());
  ASSERT_TRUE(reader);
  const auto answer = explain_record(*reader, denied().id);
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_FALSE(answer->past);  // nothing is kept of that time
  EXPECT_EQ(answer->notes.size(), 1u);
  const policy::Explanation* told = &answer->explanation;
  EXPECT_EQ(told->action, policy::Action::Deny);
  EXPECT_EQ(told->source_name, "a/web");
  ASSERT_TRUE(told->egress && told->ingress);
  EXPECT_EQ(told->egress->action, policy::Action::Allow);
  EXPECT_EQ(told->egress->steps.back().source, "a.yaml:7:3");
  EXPECT_EQ(told->ingress->action, policy::Action::Deny);
  EXPECT_EQ(told->ingress->tiers, (std::vector<std::string>{"security", "platform"}));
  const policy::ExplainedStep& last = told->ingress->steps.back();
  EXPECT_TRUE(last.decides);
  EXPECT_EQ(last.rule, kIn);
  EXPECT_EQ(last.source, "b.yaml:24:3");
  std::size_t staged = 0;
  for (const policy::ExplainedStep& step : told->ingress->steps) staged += step.staged ? 1 : 0;
  EXPECT_EQ(staged, 1u);
}

TEST_F(ExplainRecord, AnUnknownIdIsAnAnswerOfNo) {
  auto reader = store::FlowReader::open(path());
  ASSERT_TRUE(reader);
  const auto told = explain_record(*reader, "018bcfe5-6800-7000-8000-00000000ffff");
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().code, ErrorCode::NotFound);
}

}  // namespace
}  // namespace tierlog::cli
