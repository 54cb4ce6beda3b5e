// The plugin against a socket that answers like the daemon: what is asked, what the runtime gets.
#include "cni/plugin.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/cni/fake_daemon.h"

namespace tierlog::cni {
namespace {

using tierlog::testing::FakeDaemon;

class NoLinks final : public Links {
 public:
  std::optional<Link> on_host(const std::string&) const override { return std::nullopt; }
  std::string mac_in_container(const std::string&, const std::string&) const override { return {}; }
  std::optional<unsigned> in_container(const std::string&, const std::string&) const override {
    return std::nullopt;
  }
};

constexpr const char* kResult =
    R"({"cniVersion":"1.0.0","interfaces":[{"name":"veth1","mac":"0a:00:00:00:00:01"},)"
    R"({"name":"eth0","mac":"0a:00:00:00:00:02","sandbox":"/run/netns/p"}],)"
    R"("ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.1","interface":1},{"address":"fd00::5/64","interface":1}],)"
    R"("routes":[{"dst":"0.0.0.0/0"}],"dns":{}})";

class Plugin : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "cniXXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string socket() const { return folder_ + "/d.sock"; }
  std::string configuration(const std::string& version = "1.0.0", const std::string& result = kResult) const {
    return R"({"cniVersion":")" + version + R"(","name":"net","type":"tierlog-cni","socket":")" + socket() +
           R"(","args":{"cni":{"labels":[{"key":"app","value":"db"}]}})" +
           (result.empty() ? "" : R"(,"prevResult":)" + result) + "}";
  }
  static Environment environment(const std::string& command) {
    return {command, "c0ffee", "/run/netns/p", "eth0",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=a"};
  }
  Output call(const std::string& command) { return run(environment(command), configuration(), NoLinks()); }
  std::vector<std::string> spooled() const {
    std::vector<std::string> names;
    std::error_code absent;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/cni-spool", absent)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  std::string folder_;
};

TEST_F(Plugin, AddAsksTheDaemonAndPassesTheResultOn) {
  const FakeDaemon daemon(socket(), "{\"v\":1,\"ok\":true}\n");
  const Output output = call("ADD");
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_EQ(output.text, std::string(kResult) + "\n");
  ASSERT_EQ(daemon.requests().size(), 1u);
  EXPECT_EQ(daemon.requests()[0],
            nlohmann::json::parse(R"({"v":1,"op":"cni-add","container_id":"c0ffee","ifname":"eth0",
              "netns":"/run/netns/p","namespace":"blue","name":"a","labels":{"app":"db"},
              "addresses":["10.1.0.5","fd00::5"],"interface":"veth1","mac":"0a:00:00:00:00:02"})"));
}

TEST_F(Plugin, CheckAsksTheDaemonAndSaysNothing) {
  const FakeDaemon daemon(socket(), "{\"v\":1,\"ok\":true}\n");
  const Output output = call("CHECK");
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(daemon.requests().at(0).at("op"), "cni-check");
}

TEST_F(Plugin, DelAsksTheDaemonAndSpoolsNothing) {
  const FakeDaemon daemon(socket(), "{\"v\":1,\"ok\":true}\n");
  // A runtime that forgot everything but the container.
  const Output output = run({"DEL", "c0ffee", "", "eth0", ""}, configuration("1.0.0", ""), NoLinks());
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_EQ(output.text, "");
  ASSERT_EQ(daemon.requests().size(), 1u);
  EXPECT_EQ(daemon.requests()[0],
            nlohmann::json::parse(R"({"v":1,"op":"cni-del","container_id":"c0ffee","ifname":"eth0"})"));
  EXPECT_TRUE(spooled().empty());
}

TEST_F(Plugin, DelWithoutDaemonIsSpooled) {
  const Output output = call("DEL");
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_EQ(output.text, "");
  ASSERT_EQ(spooled(), (std::vector<std::string>{"c0ffee@eth0.json"}));
  std::ifstream file(folder_ + "/cni-spool/c0ffee@eth0.json");
  EXPECT_EQ(nlohmann::json::parse(file),
            nlohmann::json::parse(R"({"v":1,"op":"cni-del","container_id":"c0ffee","ifname":"eth0"})"));
}

TEST_F(Plugin, DelThatTheDaemonRefusesIsSpooled) {
  const FakeDaemon daemon(socket(), R"({"v":1,"ok":false,"code":"refused","error":"netlink: EBUSY"})"
                                    "\n");
  EXPECT_EQ(call("DEL").exit_code, 0);
  EXPECT_EQ(spooled().size(), 1u);
}

TEST_F(Plugin, DelSucceedsEvenWithoutAPlaceForTheSpool) {
  std::ofstream(folder_ + "/cni-spool").flush();
  EXPECT_EQ(call("DEL").exit_code, 0);
}

TEST_F(Plugin, DelSucceedsWithAConfigurationThatAddRefuses) {
  const std::string spool = R"(,"spool":")" + folder_ + R"(/cni-spool","name":"net")";
  for (const std::string& mistake : {std::string(R"("cniVersion":"9.9.9")"), std::string(R"("cniVersion":7)"),
                                     std::string(R"("args":{"cni":{"labels":"app"}})")}) {
    const std::string text = "{" + mistake + R"(,"socket":")" + socket() + "\"" + spool + "}";
    EXPECT_EQ(run(environment("ADD"), text, NoLinks()).exit_code, 1) << text;
    EXPECT_EQ(run(environment("DEL"), text, NoLinks()).exit_code, 0) << text;
    EXPECT_EQ(spooled().size(), 1u) << text;
    std::filesystem::remove_all(folder_ + "/cni-spool");
  }
}

struct Refusal {
  const char* name;
  const char* answer;  // nullptr: nobody listens
  const char* command;
  Code code;
  const char* says;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

class PluginRefusals : public Plugin, public ::testing::WithParamInterface<Refusal> {};

TEST_P(PluginRefusals, BecomeCniErrors) {
  std::unique_ptr<FakeDaemon> daemon;
  if (GetParam().answer != nullptr) {
    daemon = std::make_unique<FakeDaemon>(socket(), std::string(GetParam().answer) + "\n");
  }
  const Output output = call(GetParam().command);
  EXPECT_EQ(output.exit_code, 1);
  const auto error = nlohmann::json::parse(output.text, nullptr, false);
  ASSERT_TRUE(error.is_object()) << output.text;
  EXPECT_EQ(error.value("code", 0), static_cast<int>(GetParam().code));
  EXPECT_EQ(error.value("cniVersion", ""), "1.0.0");
  EXPECT_FALSE(error.value("msg", "").empty());
  EXPECT_NE(output.text.find(GetParam().says), std::string::npos) << output.text;
}

INSTANTIATE_TEST_SUITE_P(
    Cni, PluginRefusals,
    ::testing::Values(Refusal{"add_daemon_down", nullptr, "ADD", Code::TryAgainLater, "ENOENT"},
                      Refusal{"check_daemon_down", nullptr, "CHECK", Code::TryAgainLater, "ENOENT"},
                      Refusal{"add_starting", R"({"v":1,"ok":false,"code":"unavailable","error":"starting"})",
                              "ADD", Code::TryAgainLater, "starting"},
                      Refusal{"add_kernel",
                              R"({"v":1,"ok":false,"code":"refused","error":"nftables: add chain: ENOSPC"})",
                              "ADD", Code::Refused, "ENOSPC"},
                      Refusal{"add_invalid", R"({"v":1,"ok":false,"code":"invalid","error":"no such pod"})",
                              "ADD", Code::InvalidConfiguration, "no such pod"},
                      Refusal{"check_unknown",
                              R"({"v":1,"ok":false,"code":"not-found","error":"blue/a is not enforced"})",
                              "CHECK", Code::NotEnforced, "not enforced"},
                      Refusal{"add_babble", "hello", "ADD", Code::IoFailure, "not tierlogd's"},
                      Refusal{"add_empty_object", "{}", "ADD", Code::IoFailure, "not tierlogd's"}),
    [](const auto& param) { return param.param.name; });

struct Wrong {
  const char* name;
  Environment environment;
  const char* version;
  bool with_result;
  Code code;
  const char* says;
};

void PrintTo(const Wrong& wrong, std::ostream* out) {
  *out << wrong.name;
}

class WrongCalls : public Plugin, public ::testing::WithParamInterface<Wrong> {};

TEST_P(WrongCalls, NeverReachTheDaemon) {
  const FakeDaemon daemon(socket(), "{\"v\":1,\"ok\":true}\n");
  const Output output =
      run(GetParam().environment, configuration(GetParam().version, GetParam().with_result ? kResult : ""),
          NoLinks());
  EXPECT_EQ(output.exit_code, 1);
  const auto error = nlohmann::json::parse(output.text, nullptr, false);
  ASSERT_TRUE(error.is_object()) << output.text;
  EXPECT_EQ(error.value("code", 0), static_cast<int>(GetParam().code)) << output.text;
  EXPECT_NE(output.text.find(GetParam().says), std::string::npos) << output.text;
  EXPECT_TRUE(daemon.requests().empty());
}

constexpr const char* kArgs = "K8S_POD_NAMESPACE=blue;K8S_POD_NAME=a";

INSTANTIATE_TEST_SUITE_P(
    Cni, WrongCalls,
    ::testing::Values(
        Wrong{"no_previous_result",
              {"ADD", "c", "/n", "eth0", kArgs},
              "1.0.0",
              false,
              Code::InvalidConfiguration,
              "prevResult"},
        Wrong{"no_container",
              {"ADD", "", "/n", "eth0", kArgs},
              "1.0.0",
              true,
              Code::InvalidEnvironment,
              "CNI_CONTAINERID"},
        Wrong{"container_path",
              {"DEL", "../c", "/n", "eth0", kArgs},
              "1.0.0",
              true,
              Code::InvalidEnvironment,
              "CNI_CONTAINERID"},
        Wrong{"no_netns",
              {"ADD", "c", "", "eth0", kArgs},
              "1.0.0",
              true,
              Code::InvalidEnvironment,
              "CNI_NETNS"},
        Wrong{"long_interface",
              {"ADD", "c", "/n", "eth0123456789abc", kArgs},
              "1.0.0",
              true,
              Code::InvalidEnvironment,
              "CNI_IFNAME"},
        Wrong{"no_pod",
              {"ADD", "c", "/n", "eth0", ""},
              "1.0.0",
              true,
              Code::InvalidEnvironment,
              "K8S_POD_NAME"},
        Wrong{"old_version",
              {"ADD", "c", "/n", "eth0", kArgs},
              "0.2.0",
              true,
              Code::IncompatibleVersion,
              "0.2.0"},
        Wrong{"check_of_0_3_1",
              {"CHECK", "c", "/n", "eth0", kArgs},
              "0.3.1",
              true,
              Code::IncompatibleVersion,
              "CHECK"},
        Wrong{"gc", {"GC", "", "", "", ""}, "1.1.0", false, Code::IncompatibleVersion, "1.1.0"},
        Wrong{"status", {"STATUS", "", "", "", ""}, "1.1.0", false, Code::IncompatibleVersion, "1.1.0"},
        Wrong{"unknown_command",
              {"add", "c", "/n", "eth0", kArgs},
              "1.0.0",
              true,
              Code::InvalidEnvironment,
              "CNI_COMMAND"}),
    [](const auto& param) { return param.param.name; });

TEST(PluginVersion, ListsWhatItSpeaks) {
  const Output output = run({"VERSION", "", "", "", ""}, "", NoLinks());
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_EQ(nlohmann::json::parse(output.text),
            nlohmann::json::parse(R"({"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]})"));
}

}  // namespace
}  // namespace tierlog::cni
