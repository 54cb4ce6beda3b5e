// Compiling with what the compilation before left gives the same Program as compiling from nothing, whatever
// changed in between.
#include <random>

#include "policy/compile.h"
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

// Counts what it is asked.
class CountingIds final : public RuleIdRegistry {
 public:
  Result<std::vector<RuleIdentity>> identify(const std::vector<RuleKey>& keys) override {
    asked += keys.size();
    return ids.identify(keys);
  }
  std::size_t asked = 0;
  MemoryRuleIds ids;
};

Program compile_with(World& world, RuleIdRegistry& ids, CompileMemory* memory) {
  auto program = compile(world.set, std::make_shared<Cluster>(world.cluster), ids, {.memory = memory});
  EXPECT_TRUE(program);
  return program ? std::move(*program) : Program{};
}

std::string whole(const Program& program) {
  std::string text = program.dump();
  for (const AddressSet& set : program.sets) {
    text += set.key + ":";
    for (const Cidr& member : set.members) text += " " + member.to_string();
    text += "\n";
  }
  for (const PortSet& set : program.port_sets) {
    text += set.key + ":";
    for (const EndpointPort& member : set.members)
      text += " " + member.address.to_string() + "/" + std::to_string(member.port);
    text += "\n";
  }
  for (const ProgramPolicy& policy : program.policies)
    text += policy.display + " " + std::to_string(policy.endpoints_selected) + "\n";
  return text;
}

class Changes {
 public:
  explicit Changes(unsigned seed) : random_(seed) {}

  void one(World& world) {
    switch (below(8)) {
      case 0:
      case 1:
        add_pod(world);
        break;
      case 2:
        if (!world.cluster.endpoints.empty()) world.cluster.endpoints.erase(some(world));
        break;
      case 3:
        if (!world.cluster.endpoints.empty()) some(world)->labels["role"] = role();
        break;
      case 4:
        world.cluster.namespaces["n0"] = {"n0", {{"team", role()}}, LogDecisions::None};
        break;
      case 5:
        add_policy(world);
        break;
      case 6:
        if (!world.set.policies.empty()) world.set.policies.pop_back();
        break;
      default:
        world.set.network_sets = {{"", "net", {{"role", role()}}, nets({"10.1.0.0/" + std::to_string(16 + below(8))}), {}}};
    }
  }

  void add_pod(World& world) {
    const std::string number = std::to_string(next_++);
    Endpoint& pod = world.pod("n" + std::to_string(below(2)), "p" + number, {"10.0.0." + number}, {{"role", role()}});
    pod.ports = {{"http", protocol::kTcp, static_cast<std::uint16_t>(8000 + below(3))}};
    pod.host_network = below(6) == 0;
  }

  void add_policy(World& world) {
    const std::string number = std::to_string(next_++);
    Policy& policy = world.policy("default", "", "policy-" + number, 1,
                                  below(3) == 0 ? "projectcalico.org/name == 'p3'" : "role == '" + role() + "'");
    policy.ingress = rules({rule(Action::Allow, from("role == '" + role() + "'")),
                            rule(Action::Deny, to_port(port("http"))), rule(Action::Pass, from("pcns.team == 'r1'"))});
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  std::string role() { return "r" + std::to_string(below(3)); }
  std::vector<Endpoint>::iterator some(World& world) {
    return world.cluster.endpoints.begin() + below(static_cast<int>(world.cluster.endpoints.size()));
  }

  std::mt19937 random_;
  int next_ = 1;
};

class Incremental : public testing::TestWithParam<unsigned> {};

TEST_P(Incremental, GivesTheSameAsFromNothing) {
  Changes changes(GetParam());
  World world;
  CompileMemory memory;
  for (int step = 0; step < 40 && !HasFailure(); ++step) {
    for (unsigned n = 0; n <= GetParam() % 3; ++n) changes.one(world);
    EXPECT_EQ(whole(compile_with(world, world.ids, &memory)), whole(compile_with(world, world.ids, nullptr)))
        << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Incremental, testing::Range(1u, 13u));

TEST(Incremental, TheRegistryIsAskedForWhatIsNew) {
  Changes changes(1);
  World world;
  for (int i = 0; i < 5; ++i) changes.add_pod(world);
  for (int i = 0; i < 3; ++i) changes.add_policy(world);
  CompileMemory memory;
  CountingIds ids;
  compile_with(world, ids, &memory);
  EXPECT_GT(ids.asked, 9u);
  const std::size_t before = ids.asked;
  compile_with(world, ids, &memory);
  EXPECT_EQ(ids.asked, before);
  changes.add_policy(world);
  compile_with(world, ids, &memory);
  EXPECT_GT(ids.asked, before);
  EXPECT_LE(ids.asked, before + 3 + 3) << "the new policy's rules and ends";
}

}  // namespace
}  // namespace tierlog::policy::test
