// A running node whose policies change, break, and come back; whose daemon dies and returns.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "endpoints/control.h"
#include "tests/e2e/matrix.h"

namespace tierlog::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], ports: [{name: sql, protocol: TCP, port: 5432}]}
)";

std::string policy(const std::string& action) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: a}\n"
         "spec:\n  selector: projectcalico.org/name == 'db'\n  ingress:\n  - action: " +
         action + "\n";
}

std::string sixteen_tiers() {
  std::string text;
  for (int i = 0; i < 16; ++i) {
    const std::string tier = "t" + std::to_string(i);
    text += "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: " + tier +
            "}\nspec: {order: 1}\n---\n"
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " +
            tier + ".p}\nspec: {tier: " + tier + ", ingress: [{action: Pass, protocol: TCP, source: {ports: [7]}}]}\n";
  }
  return text;
}

class Reload : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    folder_ = fs::temp_directory_path() / ("tierlog-reload-" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "policies");
    std::ofstream(folder_ / "topology.yaml") << kTopology;
    write(policy("Allow"));
    lab::LabOptions options;
    options.name = "e2e-reload-" + std::to_string(::getpid());
    options.policies = {(folder_ / "policies").string()};
    options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
    options.life = lab::LabOptions::Life::WithCaller;
    auto lab = lab::Lab::up((folder_ / "topology.yaml").string(), options);
    ASSERT_TRUE(lab) << lab.error().message;
    lab_.emplace(std::move(*lab));
  }
  void TearDown() override {
    lab_.reset();
    fs::remove_all(folder_);
  }

  void write(const std::string& text) const {
    std::ofstream(folder_ / "policies" / "p.yaml.new") << text;
    fs::rename(folder_ / "policies" / "p.yaml.new", folder_ / "policies" / "p.yaml");
  }

  nlohmann::json status() const {
    const auto answer = endpoints::call(lab_->socket(), {{"op", "status"}});
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? (*answer)["status"] : nlohmann::json();
  }

  // Waits until the daemon noticed the files by itself.
  template <typename Condition>
  bool becomes(const Condition& condition) const {
    for (int i = 0; i < 200; ++i, std::this_thread::sleep_for(25ms))
      if (condition(status())) return true;
    return false;
  }

  lab::Attempt connect(Family family = Family::V4) const {
    const IpAddr to = *lab_->address("a/db", family);
    const auto result =
        lab_->run_in("a/web", [&] { return static_cast<int>(lab::try_tcp(to, 5432, 700ms)); });
    EXPECT_TRUE(result);
    return static_cast<lab::Attempt>(*result);
  }

  fs::path folder_;
  std::optional<lab::Lab> lab_;
};

TEST_F(Reload, AChangedFileIsInForceByItself) {
  EXPECT_EQ(connect(), lab::Attempt::Connected);
  const auto before = status()["revision"].get<std::uint64_t>();
  write(policy("Deny"));
  EXPECT_TRUE(becomes([&](const auto& s) { return s["revision"] > before; }));
  EXPECT_EQ(connect(), lab::Attempt::TimedOut);
  EXPECT_EQ(connect(Family::V6), lab::Attempt::TimedOut);
}

TEST_F(Reload, ABrokenFileLeavesTheOldRulesAndSaysWhere) {
  const auto revision = status()["revision"];
  write(policy("Dney"));
  ASSERT_TRUE(becomes([](const auto& s) { return !s["in_sync"]; }));
  EXPECT_NE(status()["sync_error"].get<std::string>().find("p.yaml:7:13: "), std::string::npos)
      << status()["sync_error"];
  EXPECT_EQ(status()["revision"], revision);
  EXPECT_EQ(connect(), lab::Attempt::Connected);
  write(policy("Deny"));
  EXPECT_TRUE(becomes([](const auto& s) { return s["in_sync"].template get<bool>(); }));
  EXPECT_EQ(connect(), lab::Attempt::TimedOut);
}

TEST_F(Reload, WhatTheKernelRefusesLeavesTheOldRulesAndSaysWhy) {
  write(sixteen_tiers());
  ASSERT_TRUE(becomes([](const auto& s) { return !s["in_sync"]; }));
  const std::string why = status()["sync_error"];
  EXPECT_NE(why.find("EMLINK"), std::string::npos) << why;
  EXPECT_EQ(connect(), lab::Attempt::Connected)
      << "the old policy allows; sixteen passing tiers would deny at their end";
}

TEST_F(Reload, RulesOutliveTheDaemonAndItsSuccessorGoesOn) {
  write(policy("Deny"));
  ASSERT_TRUE(becomes([](const auto& s) { return s["policies"] == 1 && s["revision"] > 3; }));
  ASSERT_EQ(connect(), lab::Attempt::TimedOut);
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  EXPECT_EQ(connect(), lab::Attempt::TimedOut) << "no daemon, same rules";
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(connect(Family::V6), lab::Attempt::TimedOut);
  flush(*lab_);
  const Index index = Index::read(lab_->database());
  std::size_t of_v6 = 0;
  for (const store::FlowRecord& record : index.records())
    if (record.src.ip.family == Family::V6 && record.action == store::Verdict::Deny) {
      ++of_v6;
      EXPECT_EQ(record.policy, "default/a/db");
      EXPECT_EQ(record.dst.name, "db") << "registered pods survive the daemon";
    }
  EXPECT_EQ(of_v6, 1u);
}

TEST_F(Reload, ASecondDaemonIsToldWhoRuns) {
  const std::string config = lab_->folder() + "/second.yaml";
  std::ofstream(config) << "socket: " << lab_->socket() << "\nstore: {path: " << folder_.string()
                        << "/other/flows.db}\n";
  const std::string program = std::string(TIERLOG_BINARY_DIR) + "/bin/tierlogd";
  EXPECT_EQ(lab_->exec("node", {program, "--config", config}), 3);
}

}  // namespace
}  // namespace tierlog::testing
