// What is shipped for Prometheus and Grafana: rules do what they say, dashboards are what their program
// writes.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/prometheus/programs.h"

namespace tierlog::testing {
namespace {

const std::string kDeploy = std::string(TIERLOG_SOURCE_DIR) + "/deploy";

class Promtool : public ::testing::Test {
 protected:
  void SetUp() override {
    promtool_ = prometheus_program("promtool");
    if (promtool_.empty()) GTEST_SKIP() << "needs promtool (scripts/install-deps --test)";
    folder_ = std::filesystem::temp_directory_path() / ("tierlog-rules-" + std::to_string(::getpid()));
    std::filesystem::copy(kDeploy + "/prometheus", folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Told run(const std::string& words) const {
    return run_shell("cd " + folder_.string() + " && " + promtool_ + " " + words);
  }

  std::string promtool_;
  std::filesystem::path folder_;
};

TEST_F(Promtool, TheRulesDoWhatTheirTestSays) {
  const Told told = run("test rules rules_test.yaml");
  EXPECT_EQ(told.code, 0) << told.text;
  // The control: a rule that never fires fails the test.
  run_shell("sed -i 's/tierlog_ready == 0/tierlog_ready == 2/' " + folder_.string() + "/alerts.rules.yaml");
  EXPECT_NE(run("test rules rules_test.yaml").code, 0);
}

TEST_F(Promtool, TakesRulesAndConfiguration) {
  const Told rules = run("check rules alerts.rules.yaml recording.rules.yaml");
  EXPECT_EQ(rules.code, 0) << rules.text;
  const Told config = run("check config --syntax-only prometheus.yml");
  EXPECT_EQ(config.code, 0) << config.text;
}

TEST_F(Promtool, ParsesTheQueriesOfDashboards) {
  const std::string rules = (folder_ / "queries.yaml").string();
  const auto write = [&](const std::string& from) {
    return run_shell("python3 " TIERLOG_SOURCE_DIR "/tests/check/dashboard_queries.py " + rules + " " + from);
  };
  const Told written = write(kDeploy + "/grafana");
  EXPECT_EQ(written.code, 0) << written.text;
  const Told told = run("check rules queries.yaml");
  EXPECT_EQ(told.code, 0) << told.text;
  // The controls: a bracket that is missing, a panel that lies on another.
  const std::string boards = (folder_ / "boards").string();
  std::filesystem::copy(kDeploy + "/grafana", boards);
  run_shell("sed -i 's/sum by (policy) (/sum by (policy) ((/' " + boards + "/policy-board.json");
  EXPECT_EQ(write(boards).code, 0);
  EXPECT_NE(run("check rules queries.yaml").code, 0);
  run_shell("sed -i 's/\"x\": 6,/\"x\": 5,/' " + boards + "/policy-board.json");
  EXPECT_NE(write(boards).code, 0);
}

TEST(Dashboards, AreWhatTheirProgramWrites) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("tierlog-boards-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const Told told = run_shell("python3 " + kDeploy + "/grafana/dashboards.py " + folder.string());
  EXPECT_EQ(told.code, 0) << told.text;
  int boards = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    ++boards;
    EXPECT_EQ(read_text(file.path().string()),
              read_text(kDeploy + "/grafana/" + file.path().filename().string()))
        << "run deploy/grafana/dashboards.py";
  }
  EXPECT_EQ(boards, 4);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace tierlog::testing
