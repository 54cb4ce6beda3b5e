// 37 ways of a packet, allowed and denied, over IPv4 and IPv6, routed and bridged, on two nodes with
// Services: each gives its verdict, the rule that gave it, and one count a direction.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/e2e/paths.h"

namespace tierlog::testing {
namespace {

namespace fs = std::filesystem;

std::string listed(const std::vector<std::string>& lines) {
  std::string text;
  for (std::size_t i = 0; i < lines.size() && i < 40; ++i) text += "  " + lines[i] + "\n";
  return std::to_string(lines.size()) + " disagreements\n" + text;
}

class Paths : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    folder_ = fs::temp_directory_path() / ("tierlog-paths-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    shots_ = plan_shots();
    std::ofstream(folder_ / "topology.yaml") << paths_topology(shots_, GetParam());
    std::ofstream(folder_ / "policy.yaml") << paths_policy(shots_);
    lab::LabOptions options;
    options.name = std::string("e2e-paths-") + GetParam() + "-" + std::to_string(::getpid());
    options.policies = {(folder_ / "policy.yaml").string()};
    options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
    options.life = lab::LabOptions::Life::WithCaller;
    auto lab = lab::Lab::up((folder_ / "topology.yaml").string(), options);
    ASSERT_TRUE(lab) << lab.error().message;
    lab_.emplace(std::move(*lab));
    judge_second_node();
    leave_plain("ip", "203.0.113.50");
    leave_plain("ip6", "2001:db8:113::50");
    aim(shots_, *lab_);
  }
  void TearDown() override {
    lab_.reset();
    fs::remove_all(folder_);
  }

  // node-1 may always reach its pods, node-2 only by policy.
  void judge_second_node() {
    std::ofstream(lab_->nodes().at(1).folder + "/tierlogd.yaml", std::ios::app) << "host_to_pod: policy\n";
    ASSERT_TRUE(lab_->stop_daemon(SIGTERM, "node-2"));
    const auto started = lab_->start_daemon("node-2");
    ASSERT_TRUE(started) << started.error().message;
  }
  // Pods reach this address of the outside without masquerade.
  void leave_plain(const char* family, const char* address) {
    ASSERT_EQ(lab_->exec("node", {"nft", "insert", "rule", family, "lab-services", "nat-postrouting", family,
                                  "daddr", address, "return"}),
              0);
  }
  void shoot_all() {
    std::vector<Shot*> all;
    for (Shot& shot : shots_) all.push_back(&shot);
    shoot(*lab_, all);
  }

  fs::path folder_;
  std::vector<Shot> shots_;
  std::optional<lab::Lab> lab_;
};

TEST_P(Paths, GiveVerdictRuleAndOneCountADirection) {
  ASSERT_EQ(kPaths.size(), 37u);
  shoot_all();
  const AllBooks books = read_books(*lab_);
  const auto wrong = disagreements(shots_, books);
  EXPECT_TRUE(wrong.empty()) << listed(wrong);

  // Controls: each of these must be found.
  const auto of_paths = [](const store::FlowRecord& record) {
    return record.policy == kPathsPolicy && record.verdict_packets > 0;
  };
  AllBooks planted = books;
  auto& records = planted.at("node-1").records;
  const auto planted_id = std::ranges::find_if(records, of_paths);
  ASSERT_NE(planted_id, records.end());
  planted_id->rule = RuleId{number(planted_id->rule) - 1};
  EXPECT_GT(disagreements(shots_, planted).size(), wrong.size()) << "a planted wrong id";
  planted = books;
  auto& others = planted.at("node-2").records;
  const auto lost = std::ranges::find_if(others, of_paths);
  ASSERT_NE(lost, others.end());
  others.erase(lost);
  EXPECT_GT(disagreements(shots_, planted).size(), wrong.size()) << "a lost record";
  shoot(*lab_, {shots_.data()});
  const auto twice = disagreements(shots_, read_books(*lab_));
  EXPECT_GE(twice.size(), wrong.size() + 2) << "a path that was counted twice, in both directions\n"
                                            << listed(twice);
}

INSTANTIATE_TEST_SUITE_P(Cni, Paths, ::testing::Values("ptp", "bridge"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace tierlog::testing
