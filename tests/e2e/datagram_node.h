// A live node with datagrams under way between two of its pods, allowed and denied ones, for as long as a test lasts.
#pragma once

#include <sys/wait.h>

#include <csignal>
#include <map>
#include <string>
#include <vector>

#include "tests/e2e/datagrams.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {

class DatagramNode : public LiveNode {
 protected:
  static constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"], labels: {role: web}}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], labels: {role: db}}
)";

  // a/web sends to a/db on both ports (datagrams.h) and in both families.
  void begin(const std::string& policies, const std::map<std::string, std::string>& daemon_config) {
    start(kTopology, policies, daemon_config);
    if (!lab_) return;
    auto reader = lab_->start_in("a/db", [this] { return receive_datagrams(*traffic_); });
    ASSERT_TRUE(reader) << reader.error().message;
    ASSERT_TRUE(becomes([&] { return traffic_->ready.load(); }));
    std::vector<IpAddr> to;
    for (const Family family : {Family::V4, Family::V6}) to.push_back(*lab_->address("a/db", family));
    auto writer = lab_->start_in("a/web", [this, to] { return send_datagrams(*traffic_, to); });
    ASSERT_TRUE(writer) << writer.error().message;
    pids_ = {*writer, *reader};
  }
  void TearDown() override {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    LiveNode::TearDown();
  }

  Shared<Datagrams> traffic_;
  std::vector<pid_t> pids_;  // writer, reader
};

}  // namespace tierlog::testing
