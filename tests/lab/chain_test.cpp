// The CNI chain of a lab with tierlog-cni at its end, against a program in tierlogd's place; pods that come
// and go; commands in hosts.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "cni/configuration.h"
#include "cni/host_interface.h"
#include "lab/state.h"
#include "tests/lab/scratch.h"

namespace tierlog::lab {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

class Chained : public testing::TestWithParam<Cni> {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(scratch_ / "bin");
    std::filesystem::create_symlink(TIERLOG_BINARY_DIR "/tests/fake_tierlogd", scratch_ / "bin/tierlogd");
    std::filesystem::create_symlink(TIERLOG_BINARY_DIR "/bin/tierlog-cni", scratch_ / "bin/tierlog-cni");
  }
  LabOptions with_daemon() {
    auto options = quiet(scratch_);
    options.start_daemon = true;
    options.bin_folder = scratch_ / "bin";
    return options;
  }
  // What the daemon was asked with this operation.
  std::vector<json> asked(const std::string& operation) {
    std::vector<json> found;
    std::ifstream file(scratch_ / "lab/tierlogd.yaml.requests");
    for (std::string line; std::getline(file, line);) {
      auto request = json::parse(line);
      if (request.at("op") == operation) found.push_back(std::move(request));
    }
    return found;
  }

  Scratch scratch_;
};

// What a command prints in a host.
std::string printed(const Scratch& scratch, const Lab& lab, const std::string& host,
                    const std::string& command) {
  const std::string file = scratch / "printed";
  EXPECT_EQ(lab.exec(host, {"sh", "-c", command + " >" + file}), 0) << command;
  std::ifstream input(file);
  std::string text;
  std::getline(input, text);
  return text;
}

policy::Endpoint labelled(policy::Endpoint one) {
  one.labels = {{"app", "db"}, {"role", "x y"}};
  return one;
}

TEST_P(Chained, TheDaemonLearnsOfPodsAsTheyComeAndGo) {
  auto topology = topology_of({labelled(pod("a", {"10.1.0.5", "fd01::5"}))});
  topology.lab.cni = GetParam();
  auto lab = Lab::up(topology, "", with_daemon());
  ASSERT_TRUE(lab) << lab.error().message;
  ASSERT_EQ(asked("cni-add").size(), 1u);
  auto added = asked("cni-add")[0];
  const std::string interface = added.at("interface").get<std::string>();
  added.erase("interface");
  const std::string own = "grep -qx " + added.at("mac").get<std::string>() + " /sys/class/net/eth0/address";
  EXPECT_EQ(lab->exec("blue/a", {"sh", "-c", own}).value_or(-1), 0) << own;
  added.erase("mac");
  EXPECT_EQ(added, json::parse(R"({"v":1,"op":"cni-add","container_id":"blue_a","ifname":"eth0",
    "netns":"/run/netns/blue_a","namespace":"blue","name":"a","labels":{"app":"db","role":"x y"},
    "addresses":["10.1.0.5","fd01::5"]})"));
  // Its name is right when the pod's packets come in by it.
  const std::string counter = "cat /sys/class/net/" + interface + "/statistics/rx_packets";
  const std::string before = printed(scratch_, *lab, "node", counter);
  EXPECT_EQ(lab->exec("blue/a", {"ping", "-c5", "-i0.2", "-W5", "-q", "outside"}), 0);
  EXPECT_GE(std::stol(printed(scratch_, *lab, "node", counter)) - std::stol(before), 5);

  ASSERT_TRUE(lab->add_pod(pod("late", {"10.1.0.7"})));
  EXPECT_EQ(asked("cni-add").size(), 2u);
  EXPECT_EQ(lab->exec("blue/late", {"ping", "-c1", "-W5", "-q", "a.blue"}), 0);
  EXPECT_EQ(lab->run_in("blue/a",
                        [&] {
                          return try_tcp(*lab->address("blue/late", Family::V4), kPodPort, 5s) ==
                                         Attempt::Connected
                                     ? 0
                                     : 1;
                        }),
            0);
  ASSERT_TRUE(lab->remove_pod("blue", "late"));
  ASSERT_EQ(asked("cni-del").size(), 1u);
  EXPECT_EQ(asked("cni-del")[0].at("container_id"), "blue_late");
  EXPECT_EQ(lab->exec("blue/late", {"true"}).error().code, ErrorCode::NotFound);
  EXPECT_EQ(lab->exec("node", {"sh", "-c", "! ip route | grep -q 10.1.0.7 && ! ip netns | grep -q late"}), 0);
}

TEST_P(Chained, PodsWaitForTheDaemonAndGoWithoutIt) {
  auto topology = topology_of({pod("a", {"10.1.0.5"})});
  topology.lab.cni = GetParam();
  auto lab = Lab::up(topology, "", with_daemon());
  ASSERT_TRUE(lab) << lab.error().message;
  ASSERT_TRUE(lab->stop_daemon(SIGTERM));
  const auto refused = lab->add_pod(pod("b", {"10.1.0.6"}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::Unavailable) << refused.error().message;
  EXPECT_EQ(lab->hosts().size(), 3u);
  ASSERT_TRUE(lab->remove_pod("blue", "a"));
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "lab/cni-spool/blue_a@eth0.json"));
  ASSERT_TRUE(lab->start_daemon());
  EXPECT_TRUE(lab->add_pod(pod("b", {"10.1.0.6"})));
  EXPECT_EQ(lab->exec("blue/b", {"ping", "-c1", "-W5", "-q", "outside"}), 0);
}

// The real plugins' results, judged by the kernel.
TEST_P(Chained, TheHostsEndIsFoundInRealResults) {
  auto topology = topology_of({pod("a", {"10.1.0.5"}), pod("b", {"fd01::6"})});
  topology.lab.cni = GetParam();
  auto lab = Lab::up(topology, "", quiet(scratch_));
  ASSERT_TRUE(lab) << lab.error().message;
  const auto state = read_state(lab->folder());
  ASSERT_TRUE(state);
  for (const auto& one : state->pods) {
    const auto config =
        cni::read_configuration(R"({"cniVersion":"1.0.0","name":"n","prevResult":)" + one.cni.result + "}");
    ASSERT_TRUE(config) << config.error().message;
    const cni::Environment environment{"ADD", "c", "/run/netns/" + one.cni.container_id, "eth0", {}};
    EXPECT_EQ(lab->run_in("node",
                          [&] {
                            const cni::KernelLinks links;
                            const auto found = cni::host_interface(*config->previous, environment, links);
                            const auto link = found ? links.on_host(*found) : std::nullopt;
                            return link && !link->is_bridge &&
                                           link->peer == links.in_container(environment.netns, "eth0")
                                       ? 0
                                       : 1;
                          }),
              0)
        << one.cni.result;
  }
}

INSTANTIATE_TEST_SUITE_P(Cni, Chained, testing::Values(Cni::Ptp, Cni::Bridge),
                         [](const auto& param) { return param.param == Cni::Ptp ? "ptp" : "bridge"; });

TEST(Daemon, ThatDoesNotStartShowsItsLog) {
  const Scratch scratch;
  std::filesystem::create_directories(scratch / "bin");
  std::ofstream(scratch / "bin/tierlogd") << "#!/bin/sh\necho \"$2: unknown key: colour\" >&2\nexit 2\n";
  std::filesystem::permissions(scratch / "bin/tierlogd", std::filesystem::perms::owner_all);
  auto options = quiet(scratch);
  options.start_daemon = true;
  options.bin_folder = scratch / "bin";
  const auto lab = Lab::up(topology_of({}), "", options);
  ASSERT_FALSE(lab);
  EXPECT_EQ(lab.error().code, ErrorCode::Refused);
  EXPECT_NE(lab.error().message.find("unknown key: colour"), std::string::npos) << lab.error().message;
  EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
}

TEST(Daemon, ThatIsNotThereIsNamed) {
  const Scratch scratch;
  auto options = quiet(scratch);
  options.start_daemon = true;
  options.bin_folder = scratch / "bin";
  std::filesystem::create_directories(options.bin_folder);
  const auto lab = Lab::up(topology_of({}), "", options);
  ASSERT_FALSE(lab);
  EXPECT_EQ(lab.error().code, ErrorCode::NotFound) << lab.error().message;
  EXPECT_NE(lab.error().message.find("bin/tierlogd"), std::string::npos) << lab.error().message;
}

struct Call {
  const char* name;
  const char* host;
  std::vector<std::string> command;
  int code;
};

TEST(Commands, GiveTheirExitCode) {
  const Scratch scratch;
  auto lab = Lab::up(topology_of({pod("a", {"10.1.0.5"})}), "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  const Call calls[] = {
      {"success", "blue/a", {"true"}, 0},
      {"code", "node", {"sh", "-c", "exit 7"}, 7},
      {"signal", "outside", {"sh", "-c", "kill -9 $$"}, 128 + 9},
      {"absent", "node", {"no-such-command"}, 127},
      {"directory", "node", {"/"}, 126},
      {"sees_only_the_lab", "node", {"sh", "-c", "test $(ps -e --no-headers | wc -l) -lt 12"}, 0},
      {"own_devices", "blue/a", {"sh", "-c", "test \"$(ls /sys/class/net)\" = \"$(printf 'eth0\\nlo')\""}, 0},
      {"node_devices", "node", {"test", "-e", "/sys/class/net/uplink"}, 0},
      {"working_folder", "blue/a", {"test", "-e", "lab/lab.h"}, 0},
      {"name", "node", {"sh", "-c", "getent hosts a.blue | grep -q 10.1.0.5"}, 0},
      {"bpf", "node", {"sh", "-c", "stat -f -c %T /sys/fs/bpf | grep -q bpf && mkdir /sys/fs/bpf/mine"}, 0},
      {"private_run", "node", {"test", "!", "-e", "/run/lock/anything"}, 0},
  };
  std::filesystem::current_path(TIERLOG_SOURCE_DIR);
  for (const auto& call : calls) EXPECT_EQ(lab->exec(call.host, call.command), call.code) << call.name;
  EXPECT_FALSE(std::filesystem::exists("/sys/fs/bpf/mine"));
  const auto unknown = lab->exec("blue/b", {"true"});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().message, "lab \"lab\" has no host \"blue/b\"; it has node, outside, blue/a");
}

TEST(Commands, InTheBackgroundEndWithTheirStarter) {
  const Scratch scratch;
  auto lab = Lab::up(topology_of({pod("a", {"10.1.0.5"})}), "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  const ino_t inside = pid_namespace(first_process(lab->folder()));
  const int quiet_count = processes_in(inside);
  const auto sleeper = lab->start_in("blue/a", [] { return ::pause(); });
  ASSERT_TRUE(sleeper);
  EXPECT_EQ(processes_in(inside), quiet_count + 1);
  ::kill(*sleeper, SIGKILL);
  EXPECT_EQ(wait_for(*sleeper).value_or(0), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return processes_in(inside) == quiet_count; }));
  const auto worker = lab->start_in("blue/a", [] { return 3; });
  EXPECT_EQ(wait_for(worker.value_or(0)).value_or(-1), 3);
  // A lab can end while somebody still works in it.
  const auto caught = lab->start_in("node", [] { return ::pause(); });
  ASSERT_TRUE(lab->down());
  EXPECT_EQ(wait_for(caught.value_or(0)).value_or(-1), 128 + SIGKILL);
}

TEST(Pods, AreCheckedBeforeTheyAreMade) {
  const Scratch scratch;
  auto lab = Lab::up(topology_of({pod("a", {"10.1.0.5"})}), "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  const policy::Endpoint wrong[] = {pod("a", {"10.1.0.6"}), pod("b", {"10.1.0.5"}), pod("b", {"10.1.0.1"}),
                                    pod("../b", {"10.1.0.6"}), pod("", {"10.1.0.6"})};
  for (const auto& one : wrong) {
    const auto added = lab->add_pod(one);
    ASSERT_FALSE(added) << one.display();
    EXPECT_EQ(added.error().code, ErrorCode::InvalidArgument) << added.error().message;
  }
  EXPECT_EQ(lab->remove_pod("blue", "b").error().code, ErrorCode::NotFound);
  EXPECT_EQ(lab->hosts().size(), 3u);
}

}  // namespace
}  // namespace tierlog::lab
