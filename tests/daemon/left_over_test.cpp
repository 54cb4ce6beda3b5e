// Pods that went while no daemon ran: told by the spool, or found out.
#include "daemon/left_over.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/daemon/fake_host.h"

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

class LeftOver : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    auto state = store::StateDb::open((folder_ / "state.db").string());
    ASSERT_TRUE(state) << state.error().message;
    state_ = std::move(*state);
    for (const char* number : {"1", "2"})
      ASSERT_TRUE(state_->put_endpoint({.container_id = std::string("c") + number,
                                        .ifname = "eth0",
                                        .endpoint_namespace = "a",
                                        .name = std::string("pod") + number,
                                        .netns = std::string("/run/netns/") + number,
                                        .host_interface = std::string("veth") + number,
                                        .addresses = {"10.0.0.1", "fd00::1"},
                                        .labels = {}}));
  }
  void TearDown() override {
    state_.reset();
    fs::remove_all(folder_);
  }
  // Names of the pods that are dropped when a daemon starts.
  std::set<std::string> dropped() {
    const auto gone = drop_gone_pods(*state_, host_);
    EXPECT_TRUE(gone);
    std::set<std::string> names;
    for (const GonePod& pod : *gone) names.insert(pod.endpoint.name);
    return names;
  }
  using Names = std::set<std::string>;

  const fs::path folder_ = fs::temp_directory_path() / ("tierlog-left-" + std::to_string(::getpid()));
  std::unique_ptr<store::StateDb> state_;
  FakeHost host_;
};

TEST_F(LeftOver, PodsThatAreThereStay) {
  EXPECT_EQ(dropped(), Names());
  EXPECT_EQ(dropped(), Names());
  EXPECT_EQ(state_->endpoints()->size(), 2u);
}

TEST_F(LeftOver, APodWithoutItsInterfaceIsDroppedAndTold) {
  host_.interfaces.erase("veth1");
  const auto gone = drop_gone_pods(*state_, host_);
  ASSERT_TRUE(gone);
  ASSERT_EQ(gone->size(), 1u);
  EXPECT_EQ((*gone)[0].to_string(),
            "a/pod1 (10.0.0.1, fd00::1) is no longer enforced: its interface veth1 is gone");
  EXPECT_EQ(state_->endpoints()->size(), 1u);
  EXPECT_EQ(dropped(), Names()) << "told once";
}

TEST_F(LeftOver, ANamespaceThatCannotBeSeenProvesNothingInTheSameBoot) {
  EXPECT_EQ(dropped(), Names());
  host_.namespaces.clear();
  EXPECT_EQ(dropped(), Names());
}

TEST_F(LeftOver, AfterARebootAnInterfaceOfTheSameNameIsAnotherPods) {
  EXPECT_EQ(dropped(), Names());
  host_.boot = "second";
  host_.namespaces = {"/run/netns/2"};
  const auto gone = drop_gone_pods(*state_, host_);
  ASSERT_TRUE(gone);
  ASSERT_EQ(gone->size(), 1u);
  EXPECT_EQ((*gone)[0].why, "its network namespace /run/netns/1 is gone since the node was booted anew");
  host_.namespaces.clear();
  EXPECT_EQ(dropped(), Names()) << "the new boot is the one to compare with now";
}

TEST_F(LeftOver, TheKernelsViewKnowsWhatThereIs) {
  const KernelView host;
  EXPECT_EQ(host.boot_id().size(), 36u);
  EXPECT_TRUE(host.has_interface("lo"));
  EXPECT_FALSE(host.has_interface("no-such-if"));
  EXPECT_TRUE(host.has_netns("/proc/self/ns/net"));
  EXPECT_FALSE(host.has_netns("/run/netns/no-such"));
}

TEST_F(LeftOver, TheSpoolIsReadWholeAndStrangersAreRemoved) {
  const auto write = [&](const char* name, const char* text) {
    std::ofstream(folder_ / "spool" / name) << text;
  };
  fs::create_directories(folder_ / "spool");
  write("c2@eth0.json", R"({"v":1,"op":"cni-del","container_id":"c2","ifname":"eth0"})");
  write("c1@eth0.json", R"({"v":1,"op":"cni-del","container_id":"c1","ifname":"eth0"})");
  write("c3@eth0.json.17", "still being wri");
  write("add.json", R"({"v":1,"op":"cni-add","container_id":"c1"})");
  write("number.json", R"({"v":1,"op":"cni-del","container_id":7})");
  write("torn.json", R"({"v":1,"op":"cni-d)");
  std::vector<std::string> strange;
  const auto waiting = read_spool((folder_ / "spool").string(), strange);
  ASSERT_EQ(waiting.size(), 2u);
  EXPECT_EQ(waiting[0].container_id, "c1");
  EXPECT_EQ(waiting[1].container_id, "c2");
  EXPECT_EQ(waiting[1].ifname, "eth0");
  EXPECT_EQ(strange.size(), 3u);
  EXPECT_TRUE(fs::exists(waiting[0].path)) << "until it is carried out";
  EXPECT_FALSE(fs::exists(folder_ / "spool" / "torn.json"));
  EXPECT_TRUE(fs::exists(folder_ / "spool" / "c3@eth0.json.17"));
  strange.clear();
  EXPECT_TRUE(read_spool((folder_ / "no-such").string(), strange).empty());
  EXPECT_TRUE(strange.empty());
  fs::create_directories(folder_ / "spool" / "x@eth0.json");
  ASSERT_EQ(::mkfifo((folder_ / "spool" / "y@eth0.json").c_str(), 0600), 0);
  fs::create_symlink("z@eth0.json", folder_ / "spool" / "z@eth0.json");
  EXPECT_EQ(read_spool((folder_ / "spool").string(), strange).size(), 2u);
  ASSERT_EQ(strange.size(), 3u);
  EXPECT_NE(strange[0].find("x@eth0.json is passed over: is a folder; expected a regular file"), std::string::npos);
  EXPECT_NE(strange[1].find("is a named pipe"), std::string::npos) << strange[1];
  EXPECT_NE(strange[2].find("ELOOP"), std::string::npos) << strange[2];
}

}  // namespace
}  // namespace tierlog::daemon
