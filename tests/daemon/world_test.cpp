// The compile half with a back end that remembers and can refuse: what is in force after which mistake.
#include "daemon/world.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/daemon/fake_host.h"

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

class RememberingBackend final : public dataplane::Backend {
 public:
  Result<void> apply(std::shared_ptr<const policy::Program> program) override {
    if (refuse) return fail(ErrorCode::Refused, "nftables: flip: EPERM");
    in_force = std::move(program);
    return {};
  }
  Result<std::vector<dataplane::RuleCounter>> read_counters() override { return {}; }
  Result<std::vector<dataplane::DeniedCount>> read_denied() override { return {}; }
  Nanoseconds denied_lifetime() const override { return std::chrono::seconds(60); }
  Result<std::uint64_t> read_overflow() override { return std::uint64_t{0}; }
  Result<void> sweep_when_due() override { return {}; }
  bool connections_in_doubt() const override { return false; }
  Result<void> settle(bool) override { return {}; }
  Result<void> end_sparing() override { return {}; }
  Result<dataplane::Repair> verify() override { return dataplane::Repair{}; }
  Result<void> remove_all() override { return {}; }

  std::shared_ptr<const policy::Program> in_force;
  bool refuse = false;
};

constexpr const char* kGood = R"(
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: good}
spec: {ingress: [{action: Deny}]}
)";
constexpr const char* kBetter = R"(
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: better}
spec: {ingress: [{action: Deny}]}
)";
constexpr const char* kBroken =
    "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: b}\nspec: {ingress: "
    "[{action: Dney}]}\n";

class WorldTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tierlog-world-" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "policies");
    config_.node = "node-1";
    config_.policies = {(folder_ / "policies").string()};
    config_.store_path = (folder_ / "flows.db").string();
    auto state = store::StateDb::open(config_.state_path());
    ASSERT_TRUE(state) << state.error().message;
    state_ = std::move(*state);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& text) const { std::ofstream(folder_ / "policies" / "p.yaml") << text; }
  World world() {
    return {config_, *state_, backend_, host_, [this](const auto&, const auto&) { ++applied_; }};
  }
  std::string policy_in_force() const {
    return backend_.in_force && !backend_.in_force->policies.empty() ? backend_.in_force->policies[0].key.name
                                                                     : "";
  }
  static store::RegisteredEndpoint pod(const std::string& container, const std::string& name,
                                       const std::string& address) {
    return {.container_id = container,
            .ifname = "eth0",
            .endpoint_namespace = "a",
            .name = name,
            .netns = "/x",
            .host_interface = "veth1",
            .addresses = {address},
            .labels = {{"app", name}}};
  }

  fs::path folder_;
  Config config_;
  std::unique_ptr<store::StateDb> state_;
  RememberingBackend backend_;
  FakeHost host_;
  int applied_ = 0;
};

TEST_F(WorldTest, ABadSetLeavesTheOldInForceAndIsTold) {
  write(kGood);
  World w = world();
  ASSERT_TRUE(w.start());
  EXPECT_EQ(policy_in_force(), "good");
  write(kBroken);
  const auto broken = w.reload();
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, ErrorCode::InvalidArgument);
  EXPECT_NE(w.last_error().find("p.yaml:4:27"), std::string::npos) << w.last_error();
  EXPECT_EQ(policy_in_force(), "good");
  write(kBetter);
  ASSERT_TRUE(w.reload());
  EXPECT_EQ(policy_in_force(), "better");
  EXPECT_EQ(w.last_error(), "");
}

TEST_F(WorldTest, ARefusedSetIsForgottenSoThatTheNextPodDoesNotBringIt) {
  write(kGood);
  World w = world();
  ASSERT_TRUE(w.start());
  write(kBetter);
  backend_.refuse = true;
  ASSERT_FALSE(w.reload());
  EXPECT_EQ(w.last_error(), "nftables: flip: EPERM");
  backend_.refuse = false;
  ASSERT_TRUE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
  EXPECT_EQ(policy_in_force(), "good");
}

// Files may not grow: as on a full disk, and as for any user.
class NoRoom {
 public:
  NoRoom() {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    before_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit none{0, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &none);
  }
  ~NoRoom() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, before_handler_);
  }

 private:
  rlimit before_{};
  void (*before_handler_)(int) = nullptr;
};

TEST_F(WorldTest, WithoutRoomAStartEnforcesWhatIsKnownAndAChangeIsTriedAgain) {
  write(kGood);
  {
    World first = world();
    ASSERT_TRUE(first.start());
  }
  backend_.in_force.reset();
  World w = world();
  {
    const NoRoom full;
    const auto begun = w.start();
    EXPECT_TRUE(begun) << begun.error().message;
    EXPECT_EQ(policy_in_force(), "good");
  }
  write(kBetter);
  {
    const NoRoom full;
    ASSERT_FALSE(w.reload());
    EXPECT_EQ(policy_in_force(), "good");
    EXPECT_TRUE(w.worth_another_try());
  }
  ASSERT_TRUE(w.reload());
  EXPECT_EQ(policy_in_force(), "better");
  EXPECT_FALSE(w.worth_another_try());
  write(kBroken);
  ASSERT_FALSE(w.reload());
  EXPECT_FALSE(w.worth_another_try()) << "only the files can change that";
}

TEST_F(WorldTest, AStartWithoutAGoodSetDeniesPodsUnderNotReady) {
  write(kBroken);
  World w = world();
  EXPECT_FALSE(w.start());
  EXPECT_FALSE(w.ready());
  ASSERT_TRUE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
  ASSERT_FALSE(backend_.in_force->classes.empty());
  for (const policy::EndpointClass& c : backend_.in_force->classes) {
    EXPECT_EQ(c.fallback_action, policy::Action::Deny);
    EXPECT_EQ(find_reserved(c.fallback)->reason, Reason::NotReady);
  }
  write(kGood);
  ASSERT_TRUE(w.reload());
  EXPECT_TRUE(w.ready());
  EXPECT_EQ(policy_in_force(), "good");
}

TEST_F(WorldTest, AStartWithBadFilesTakesTheLastGoodSet) {
  write(kGood);
  WallTime since{};
  {
    World w = world();
    ASSERT_TRUE(w.start());
    EXPECT_EQ(w.source(), World::Source::Files);
    since = w.in_force_since();
    write(kBroken);
    ASSERT_FALSE(w.reload());
    EXPECT_EQ(w.source(), World::Source::LastGood);
  }
  World w = world();
  const auto begun = w.start();
  ASSERT_FALSE(begun) << "silently another set than the files' would be worse";
  EXPECT_NE(begun.error().message.find("p.yaml:4:27"), std::string::npos) << begun.error().message;
  EXPECT_TRUE(w.ready());
  EXPECT_EQ(w.source(), World::Source::LastGood);
  EXPECT_EQ(w.in_force_since(), since);
  EXPECT_EQ(policy_in_force(), "good");
  ASSERT_TRUE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
  EXPECT_EQ(w.source(), World::Source::LastGood) << "a new pod does not make the files good";
  EXPECT_NE(w.last_error(), "");
  write(kBetter);
  ASSERT_TRUE(w.reload());
  EXPECT_EQ(w.source(), World::Source::Files);
  EXPECT_GT(w.in_force_since(), since);
}

TEST_F(WorldTest, FilesThatAreGoneAreBadFiles) {
  write(kGood);
  ASSERT_TRUE(world().start());
  fs::remove_all(folder_ / "policies");
  World w = world();
  ASSERT_FALSE(w.start());
  EXPECT_EQ(policy_in_force(), "good");
}

TEST_F(WorldTest, WhatTheKernelRefusedNeverBecomesTheLastGoodSet) {
  write(kGood);
  {
    World w = world();
    ASSERT_TRUE(w.start());
    write(kBetter);
    backend_.refuse = true;
    ASSERT_FALSE(w.reload());
    backend_.refuse = false;
  }
  write(kBroken);
  World w = world();
  ASSERT_FALSE(w.start());
  EXPECT_EQ(policy_in_force(), "good");
}

TEST_F(WorldTest, TheTopologyIsPartOfTheLastGoodSet) {
  config_.topology = (folder_ / "topology.yaml").string();
  std::ofstream(config_.topology) << "pods: [{name: web, namespace: a, ips: [10.0.0.5]}]\n";
  write(kGood);
  ASSERT_TRUE(world().start());
  std::ofstream(config_.topology) << "pods: {\n";
  World w = world();
  ASSERT_FALSE(w.start());
  EXPECT_EQ(w.program()->cluster->endpoints.size(), 1u);
}

TEST_F(WorldTest, ALastGoodSetThatIsDamagedIsNoGoodSet) {
  write(kGood);
  ASSERT_TRUE(world().start());
  ASSERT_TRUE(state_->put("last_good_set", "{\"set\": 7"));
  write(kBroken);
  World w = world();
  const auto begun = w.start();
  ASSERT_FALSE(begun);
  EXPECT_NE(begun.error().message.find("last good policy set cannot be read"), std::string::npos);
  EXPECT_EQ(w.source(), World::Source::Nothing);
  EXPECT_TRUE(w.program());
}

TEST_F(WorldTest, WhenTheKernelRefusesEverythingNothingIsDenied) {
  write(kGood);
  ASSERT_TRUE(world().start());
  backend_.in_force = nullptr;
  backend_.refuse = true;
  World w = world();
  ASSERT_FALSE(w.start());
  EXPECT_FALSE(w.program()) << "the rules of before stay, the daemon ends and tries again";
}

TEST_F(WorldTest, RegisteredPodsAndTheRevisionSurviveARestart) {
  write(kGood);
  std::uint64_t revision = 0;
  {
    World w = world();
    ASSERT_TRUE(w.start());
    ASSERT_TRUE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
    ASSERT_TRUE(w.check_endpoint(pod("c1", "web", "10.0.0.5")));
    revision = w.program()->revision;
  }
  World again = world();
  ASSERT_TRUE(again.start());
  EXPECT_GT(again.program()->revision, revision);
  ASSERT_EQ(again.program()->endpoints.size(), 1u);
  EXPECT_TRUE(again.check_endpoint(pod("c1", "web", "10.0.0.5")));
  EXPECT_EQ(again.check_endpoint(pod("c1", "web", "10.0.0.6")).error().code, ErrorCode::NotFound);
  EXPECT_EQ(again.check_endpoint(pod("c2", "other", "10.0.0.5")).error().code, ErrorCode::NotFound);
  ASSERT_TRUE(again.remove_endpoint("c1", "eth0"));
  EXPECT_TRUE(again.program()->endpoints.empty());
  EXPECT_TRUE(again.remove_endpoint("never", "seen"));
}

TEST_F(WorldTest, ARefusedPodIsNotRegistered) {
  write(kGood);
  World w = world();
  ASSERT_TRUE(w.start());
  backend_.refuse = true;
  EXPECT_FALSE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
  EXPECT_TRUE(state_->endpoints()->empty());
}

TEST_F(WorldTest, ARefusedReAddLeavesThePodAsItWas) {
  write(kGood);
  World w = world();
  ASSERT_TRUE(w.start());
  ASSERT_TRUE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
  backend_.refuse = true;
  EXPECT_FALSE(w.add_endpoint(pod("c1", "web", "10.0.0.6")));
  backend_.refuse = false;
  EXPECT_EQ(state_->endpoints()->at(0).addresses.at(0), "10.0.0.5");
  EXPECT_TRUE(w.check_endpoint(pod("c1", "web", "10.0.0.5")));
}

TEST_F(WorldTest, AnAddressThatIsGivenAwayAgainGoesToTheNewPod) {
  write(kGood);
  World w = world();
  ASSERT_TRUE(w.start());
  ASSERT_TRUE(w.add_endpoint(pod("c1", "web", "10.0.0.5")));
  store::RegisteredEndpoint fresh = pod("c2", "db", "10.0.0.5");
  fresh.host_interface = "veth2";
  const std::uint64_t revision = w.program()->revision;
  EXPECT_EQ(w.add_endpoint(fresh).error().code, ErrorCode::Refused);
  EXPECT_EQ(w.program()->revision, revision);
  EXPECT_TRUE(w.check_endpoint(pod("c1", "web", "10.0.0.5")));
  host_.interfaces = {"veth2"};
  EXPECT_EQ(w.check_endpoint(pod("c1", "web", "10.0.0.5")).error().code, ErrorCode::NotFound);
  const auto gone = w.add_endpoint(fresh);
  ASSERT_TRUE(gone) << gone.error().message;
  ASSERT_EQ(gone->size(), 1u);
  EXPECT_EQ(gone->at(0).name, "web");
  EXPECT_TRUE(w.check_endpoint(fresh));
  EXPECT_EQ(state_->endpoints()->size(), 1u);
}

TEST_F(WorldTest, FilesThatSayTheSameAreNotReadAsNews) {
  write(kGood);
  World w = world();
  ASSERT_TRUE(w.start());
  const std::uint64_t revision = w.program()->revision;
  EXPECT_EQ(w.reload().value(), false);
  EXPECT_EQ(w.program()->revision, revision);
  host_.own = {*IpAddr::parse("192.0.2.7")};
  EXPECT_EQ(w.reload().value(), true) << "the node has a new address";
  write(kBetter);
  EXPECT_EQ(w.reload().value(), true);
  EXPECT_EQ(policy_in_force(), "better");
}

TEST(AssembleCluster, ARegistrationCompletesTheTopologysPod) {
  endpoints::Topology topology;
  policy::Endpoint known;
  known.endpoint_namespace = "a";
  known.name = "web";
  known.labels = {{"app", "web"}, {"tier", "topology"}};
  known.addresses = {*IpAddr::parse("10.9.9.9")};
  topology.cluster.endpoints = {known};
  store::RegisteredEndpoint pod{.container_id = "c",
                                .ifname = "eth0",
                                .endpoint_namespace = "a",
                                .name = "web",
                                .netns = "",
                                .host_interface = "veth7",
                                .addresses = {"10.0.0.5", "fd00::5"},
                                .labels = {{"tier", "registration"}}};
  const policy::Cluster cluster =
      assemble_cluster(topology, {pod}, {}, "node-1", {*IpAddr::parse("192.0.2.1")});
  ASSERT_EQ(cluster.endpoints.size(), 1u);
  const policy::Endpoint& merged = cluster.endpoints[0];
  EXPECT_TRUE(merged.local);
  EXPECT_EQ(merged.addresses.size(), 2u) << "the addresses are the CNI plugin's";
  EXPECT_EQ(merged.labels.at("app"), "web");
  EXPECT_EQ(merged.labels.at("tier"), "registration");
  EXPECT_EQ(merged.interface, "veth7");
  ASSERT_EQ(cluster.nodes.size(), 1u);
  EXPECT_EQ(cluster.nodes[0].addresses.size(), 1u);
}

}  // namespace
}  // namespace tierlog::daemon
