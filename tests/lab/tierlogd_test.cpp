// A whole lab from a topology file, with the real tierlogd and the real plugin chain.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "endpoints/control.h"
#include "tests/lab/scratch.h"

namespace tierlog::lab {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

const std::string kFolder = TIERLOG_SOURCE_DIR "/tests/lab/";

LabOptions real(const Scratch& scratch) {
  auto options = quiet(scratch);
  options.start_daemon = true;
  options.bin_folder = TIERLOG_BINARY_DIR "/bin";
  options.policies = {kFolder + "db-only-sql.yaml"};
  return options;
}

// What a TCP connection between two hosts comes to.
Attempt attempt(const Lab& lab, const std::string& from, const std::string& to, Family family,
                std::uint16_t port) {
  const auto address = lab.address(to, family);
  const auto code = lab.run_in(from, [&] { return static_cast<int>(try_tcp(*address, port, 1s)); });
  return static_cast<Attempt>(code.value_or(-1));
}

std::vector<std::string> enforced(const Lab& lab) {
  std::vector<std::string> names;
  const auto answer = endpoints::call(lab.socket(), {{"op", "endpoints"}});
  if (!answer) return {answer.error().message};
  for (const auto& item : answer->at("items")) {
    if (!item.value("enforced", false)) continue;
    names.push_back(item.value("namespace", "") + "/" + item.value("name", ""));
  }
  std::ranges::sort(names);
  return names;
}

using Names = std::vector<std::string>;

TEST(Tierlogd, EnforcesWhatTheChainRegistered) {
  const Scratch scratch;
  auto lab = Lab::up(kFolder + "mixed.yaml", real(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_EQ(enforced(*lab), (Names{"blue/db", "blue/job", "blue/web"}));
  for (const char* from : {"blue/web", "blue/job"}) {
    EXPECT_EQ(attempt(*lab, from, "blue/db", Family::V4, 5432), Attempt::Connected) << from;
    EXPECT_EQ(attempt(*lab, from, "blue/db", Family::V4, 8080), Attempt::TimedOut) << from;
  }
  EXPECT_EQ(attempt(*lab, "blue/job", "blue/db", Family::V6, 5432), Attempt::Connected);
  EXPECT_EQ(attempt(*lab, "blue/job", "blue/db", Family::V6, 8080), Attempt::TimedOut);
  EXPECT_EQ(attempt(*lab, "outside", "blue/db", Family::V4, 5432), Attempt::TimedOut);
  EXPECT_EQ(attempt(*lab, "blue/db", "outside", Family::V4, 443), Attempt::Connected);

  ASSERT_TRUE(lab->add_pod(pod("late", {"10.1.0.7"})));
  EXPECT_EQ(enforced(*lab), (Names{"blue/db", "blue/job", "blue/late", "blue/web"}));
  EXPECT_EQ(attempt(*lab, "blue/late", "blue/db", Family::V4, 5432), Attempt::TimedOut) << "it is no web pod";
  ASSERT_TRUE(lab->remove_pod("blue", "late"));
  EXPECT_EQ(enforced(*lab), (Names{"blue/db", "blue/job", "blue/web"}));
}

TEST(Tierlogd, ForgetsPodsThatWentWhileItWasDown) {
  const Scratch scratch;
  auto lab = Lab::up(kFolder + "mixed.yaml", real(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  ASSERT_TRUE(lab->stop_daemon(SIGKILL));
  EXPECT_EQ(attempt(*lab, "blue/web", "blue/db", Family::V4, 8080), Attempt::TimedOut) << "the rules stay";
  ASSERT_TRUE(lab->remove_pod("blue", "job"));
  EXPECT_EQ(lab->add_pod(pod("late", {"10.1.0.7"})).error().code, ErrorCode::Unavailable);
  ASSERT_TRUE(lab->start_daemon());
  EXPECT_EQ(enforced(*lab), (Names{"blue/db", "blue/web"}));
  ASSERT_TRUE(lab->add_pod(pod("late", {"10.1.0.7"})));
  EXPECT_EQ(enforced(*lab), (Names{"blue/db", "blue/late", "blue/web"}));
}

TEST(Topologies, AreReadWithAllTheirFindings) {
  const Scratch scratch;
  const auto lab = Lab::up(kFolder + "broken.yaml", quiet(scratch));
  ASSERT_FALSE(lab);
  EXPECT_EQ(lab.error().code, ErrorCode::InvalidArgument);
  EXPECT_NE(lab.error().message.find("broken.yaml:2:"), std::string::npos) << lab.error().message;
  EXPECT_NE(lab.error().message.find("broken.yaml:4:"), std::string::npos) << lab.error().message;
  EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
}

// By name, in the usual place, as the command does it.
TEST(Names, FindLabsThatAreUp) {
  auto options = quiet(Scratch());
  options.name = "test-" + std::to_string(::getpid());
  options.folder.clear();
  const auto is_running = [&] {
    const auto names = Lab::running();
    return std::ranges::find(names, options.name) != names.end();
  };
  EXPECT_FALSE(is_running());
  auto lab = Lab::up(topology_of({}), "", options);
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_EQ(lab->folder(), "/run/tierlog-lab/" + options.name);
  EXPECT_TRUE(is_running());
  auto same = Lab::find(options.name);
  ASSERT_TRUE(same) << same.error().message;
  EXPECT_EQ(same->exec("node", {"test", "-e", lab->folder() + "/lab.json"}), 0) << "visible from inside";
  ASSERT_TRUE(lab->down());
  EXPECT_FALSE(is_running());
  EXPECT_EQ(Lab::find(options.name).error().code, ErrorCode::NotFound);
}

}  // namespace
}  // namespace tierlog::lab
