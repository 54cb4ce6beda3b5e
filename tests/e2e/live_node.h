// A lab of one node whose policies a test changes while traffic runs.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>

#include "endpoints/control.h"
#include "tests/e2e/matrix.h"

namespace tierlog::testing {

// Memory that a test and the processes it starts in hosts see alike.
template <typename T>
class Shared {
 public:
  Shared()
      : memory_(new(::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) T{}) {}
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ::munmap(memory_, sizeof(T)); }
  T* operator->() const { return memory_; }
  T& operator*() const { return *memory_; }

 private:
  T* memory_;
};

class LiveNode : public ::testing::Test {
 protected:
  void TearDown() override {
    lab_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  // Call from SetUp; check ASSERT_TRUE(lab_) behind it (it skips without root).
  void start(const std::string& topology, const std::string& policies,
             const std::map<std::string, std::string>& daemon_config = {}) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    const std::string unique = std::to_string(::getpid());
    folder_ = std::filesystem::temp_directory_path() / ("tierlog-live-" + unique);
    std::filesystem::create_directories(folder_ / "policies");
    std::ofstream(folder_ / "topology.yaml") << topology;
    std::ofstream(folder_ / "policies" / "p.yaml") << policies;
    lab::LabOptions options;
    options.name = "e2e-live-" + unique;
    options.policies = {(folder_ / "policies").string()};
    options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
    options.life = lab::LabOptions::Life::WithCaller;
    options.daemon_config = daemon_config;
    auto lab = lab::Lab::up((folder_ / "topology.yaml").string(), options);
    ASSERT_TRUE(lab) << lab.error().message;
    lab_.emplace(std::move(*lab));
  }

  // In force when this returns: its revision. The file is written before, for the daemon that restarts.
  std::uint64_t apply(const std::string& policies) const {
    std::ofstream(folder_ / "policies" / "p.yaml.new") << policies;
    std::filesystem::rename(folder_ / "policies" / "p.yaml.new", folder_ / "policies" / "p.yaml");
    const auto answer = endpoints::call(lab_->socket(), {{"op", "reload"}}, std::chrono::seconds(60));
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? (*answer)["revision"].get<std::uint64_t>() : 0;
  }

  nlohmann::json status() const {
    const auto answer = endpoints::call(lab_->socket(), {{"op", "status"}}, std::chrono::seconds(60));
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? (*answer)["status"] : nlohmann::json();
  }

  template <typename Condition>
  static bool becomes(const Condition& condition, std::chrono::milliseconds within = std::chrono::seconds(5)) {
    const auto until = std::chrono::steady_clock::now() + within;
    do {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }

  // What the flow index knows of each rule, by "policy[index]" or by reason and direction.
  std::vector<store::RuleActivity> rules() const {
    flush(*lab_);
    auto reader = store::FlowReader::open(lab_->database());
    EXPECT_TRUE(reader) << reader.error().message;
    auto rules = reader->rules({}, true);
    EXPECT_TRUE(rules) << rules.error().message;
    return *rules;
  }

  std::filesystem::path folder_;
  std::optional<lab::Lab> lab_;
};

}  // namespace tierlog::testing
