// The example policies on a real node: who denied or allowed what, read back from SQLite.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "endpoints/topology.h"
#include "policy/compile.h"
#include "policy/load.h"
#include "tests/e2e/matrix.h"

namespace tierlog::testing {
namespace {

const std::string kSource = TIERLOG_SOURCE_DIR;

struct World {
  std::optional<lab::Lab> lab;
  std::shared_ptr<const policy::Program> program;  // the same files, compiled here
  std::vector<Try> tries;
  Index index;
};

// What a person who read the example files expects.
struct Expectation {
  const char* from;
  const char* from_address;  // of outside; empty: the pod's own
  const char* to;            // ns/pod or an address
  std::uint8_t protocol;
  std::uint16_t port;
  Family family;
  bool allows;
  Direction direction;
  const char* policy;
  int rule;
};

constexpr auto kIn = Direction::Ingress;
constexpr auto kOut = Direction::Egress;
constexpr auto kV4 = Family::V4;
constexpr auto kV6 = Family::V6;
using namespace protocol;

const Expectation kExpectations[] = {
    {"tenant-02/web", "", "tenant-01/db", kTcp, 5432, kV4, false, kIn,
     "platform/tenant-01/tenant-01-restrict", 2},
    {"tenant-02/web", "", "tenant-01/db", kTcp, 5432, kV6, false, kIn,
     "platform/tenant-01/tenant-01-restrict", 2},
    {"tenant-02/web", "", "tenant-01/db", kTcp, 5432, kV4, true, kOut, "default/tenant-02/allow-egress", 0},
    {"tenant-01/api", "", "tenant-01/db", kTcp, 5432, kV4, true, kIn, "platform/tenant-01/tenant-01-restrict",
     1},
    {"tenant-01/api", "", "tenant-01/db", kTcp, 5432, kV6, true, kOut, "default/tenant-01/tenant-01-egress",
     0},
    {"monitoring/prometheus", "", "tenant-01/db", kTcp, 9100, kV4, false, kIn,
     "platform/tenant-01/tenant-01-restrict", -1},
    {"monitoring/prometheus", "", "tenant-01/db", kTcp, 9100, kV4, true, kOut,
     "default/monitoring/prometheus", 0},
    {"tenant-01/web", "", "192.0.2.66", kTcp, 443, kV4, false, kOut, "security//egress-baseline", 2},
    {"tenant-02/batch", "", "tenant-01/web", kTcp, 8080, kV4, false, kIn, "security//quarantine", 1},
    {"tenant-02/web", "", "tenant-02/api", kTcp, 8080, kV6, true, kOut, "app/tenant-02/storefront", 0},
    {"tenant-02/web", "", "tenant-02/api", kTcp, 8080, kV6, true, kIn, "default/tenant-02/api-from-web", 0},
    {"tenant-01/web", "", "203.0.113.9", kTcp, 443, kV4, true, kOut, "default/tenant-01/tenant-01-egress", 1},
    {"tenant-01/web", "", "198.51.100.7", kTcp, 8443, kV4, false, kOut, "default/tenant-01/tenant-01-egress",
     -1},
    {"outside", "203.0.113.9", "monitoring/prometheus", kTcp, 9090, kV4, true, kIn,
     "default/monitoring/prometheus", 0},
    {"outside", "198.51.100.7", "monitoring/prometheus", kTcp, 9090, kV4, false, kIn,
     "default/monitoring/prometheus", -1},
    {"outside", "2001:db8:113::9", "monitoring/prometheus", kTcp, 9090, kV6, true, kIn,
     "default/monitoring/prometheus", 0},
    {"outside", "203.0.113.9", "tenant-01/web", kTcp, 8080, kV4, false, kIn, "default//default-deny", 1},
    {"tenant-02/web", "", "tenant-01/web", kTcp, 8080, kV6, false, kIn, "default//default-deny", 1},
    {"tenant-02/web", "", "monitoring/dns", kUdp, 53, kV4, true, kIn, "default/monitoring/dns", 0},
    {"tenant-02/web", "", "monitoring/dns", kUdp, 5353, kV4, false, kIn, "default/monitoring/dns", -1},
    {"tenant-02/web", "", "monitoring/dns", kTcp, 9999, kV4, false, kIn, "default/monitoring/dns", 6},
    {"tenant-02/web", "", "monitoring/dns", kTcp, 8001, kV6, true, kIn, "default/monitoring/dns", 4},
    {"tenant-02/web", "", "monitoring/dns", kTcp, 8001, kV4, false, kIn, "default/monitoring/dns", 6},
    {"tenant-02/web", "", "monitoring/dns", kIcmp, 0, kV4, true, kIn, "default/monitoring/dns", 2},
    {"tenant-02/web", "", "monitoring/dns", kIcmpV6, 0, kV6, true, kIn, "default/monitoring/dns", 3},
    {"tenant-02/web", "", "tenant-01/db", kIcmp, 0, kV4, false, kIn, "platform/tenant-01/tenant-01-restrict",
     -1},
};

class Examples : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    world_ = std::make_unique<World>();
    bring_up();
    if (HasFatalFailure()) return;
    for (const Expectation& e : kExpectations) add(try_of(e));
    add_everybody_to_everybody();
    attempt_all(*world_->lab, world_->tries);
    flush(*world_->lab);
    world_->index = Index::read(world_->lab->database());
  }
  static void TearDownTestSuite() { world_.reset(); }
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    ASSERT_TRUE(world_ && world_->lab) << "the lab did not come up";
  }

  static void bring_up() {
    const std::string topology_path = kSource + "/examples/topologies/tenants.yaml";
    lab::LabOptions options;
    options.name = "e2e-examples-" + std::to_string(::getpid());
    options.policies = {kSource + "/examples/policies"};
    options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
    options.life = lab::LabOptions::Life::WithCaller;
    auto lab = lab::Lab::up(topology_path, options);
    ASSERT_TRUE(lab) << lab.error().message;
    world_->lab.emplace(std::move(*lab));
    const auto topology = endpoints::load_topology(topology_path);
    const auto policies = policy::load_paths(options.policies);
    ASSERT_FALSE(policies.findings.has_errors()) << policies.findings.to_string();
    policy::MemoryRuleIds ids;
    auto program = policy::compile(policies.set,
                                   std::make_shared<const policy::Cluster>(topology.topology.cluster), ids);
    ASSERT_TRUE(program) << program.error().message;
    world_->program = std::make_shared<const policy::Program>(std::move(*program));
  }

  static IpAddr address_of(const std::string& who, Family family) {
    if (const auto address = IpAddr::parse(who)) return *address;
    const auto address = world_->lab->address(who, family);
    EXPECT_TRUE(address) << who;
    return address.value_or(IpAddr{});
  }

  static Try try_of(const Expectation& e) {
    return {e.from, address_of(*e.from_address != '\0' ? e.from_address : e.from, e.family),
            address_of(e.to, e.family), e.protocol, e.port};
  }

  static void add(Try t) {
    const auto same = [&](const Try& other) { return other.title() == t.title(); };
    if (std::none_of(world_->tries.begin(), world_->tries.end(), same)) world_->tries.push_back(std::move(t));
  }

  static void add_everybody_to_everybody() {
    struct Service {
      std::uint8_t protocol;
      std::uint16_t port;
    };
    constexpr Service kServices[] = {{kTcp, 5432}, {kTcp, 8080}, {kTcp, 53}, {kUdp, 53}, {kIcmp, 0}};
    std::vector<std::pair<std::string, IpAddr>> sources, targets;
    for (const lab::LabHost& host : world_->lab->hosts()) {
      if (host.name == "node" || host.name == "outside") continue;
      for (const IpAddr& address : host.addresses) {
        sources.emplace_back(host.name, address);
        targets.emplace_back(host.name, address);
      }
    }
    for (const char* text : {"203.0.113.9", "198.51.100.7", "192.0.2.66", "2001:db8:113::9"}) {
      targets.emplace_back("outside", *IpAddr::parse(text));
      if (std::string(text) != "192.0.2.66") sources.emplace_back("outside", *IpAddr::parse(text));
    }
    for (const auto& [from_host, from] : sources)
      for (const auto& [to_host, to] : targets) {
        if (from_host == to_host || from.family != to.family) continue;
        for (Service service : kServices) {
          if (service.protocol == kIcmp && from.family == kV6) service.protocol = kIcmpV6;
          add({from_host, from, to, service.protocol, service.port});
        }
      }
  }

  static std::unique_ptr<World> world_;
};

std::unique_ptr<World> Examples::world_;

TEST_F(Examples, SayWhatTheirReaderExpects) {
  for (const Expectation& e : kExpectations) {
    const Try t = try_of(e);
    const Decision decision{e.direction, e.allows, e.policy, e.rule,
                            e.rule < 0 ? Reason::EndOfTier : Reason::Policy};
    EXPECT_EQ(world_->index.disagreement(t, decision), "") << t.title();
  }
}

TEST_F(Examples, EveryAttemptEndsAndIsRecordedAsTheEvaluatorPromises) {
  ASSERT_GT(world_->tries.size(), 500u) << "too little traffic to prove anything";
  std::size_t denied = 0;
  for (const Try& t : world_->tries) {
    const auto decisions = expected_decisions(*world_->program, t.packet());
    bool allowed = true;
    for (const Decision& decision : decisions) {
      allowed = allowed && decision.allows;
      EXPECT_EQ(world_->index.disagreement(t, decision), "") << t.title();
    }
    EXPECT_EQ(t.outcome != lab::Attempt::TimedOut, allowed) << t.title() << ": " << name(t.outcome);
    denied += allowed ? 0 : 1;
  }
  EXPECT_GT(denied, 100u);
  EXPECT_GT(world_->tries.size() - denied, 100u);
}

TEST_F(Examples, EveryPolicyDecidesSomething) {
  std::set<std::string> deciding;
  for (const store::FlowRecord& record : world_->index.records()) deciding.insert(record.policy);
  for (const policy::ProgramPolicy& policy : world_->program->policies) {
    if (policy.staged) continue;
    EXPECT_EQ(deciding.count(policy.display), 1u) << policy.display;
  }
}

TEST_F(Examples, LogRulesAndStagedVerdictsAreInTheRecord) {
  const auto& records = world_->index.records();
  const auto found = std::find_if(records.begin(), records.end(), [](const store::FlowRecord& r) {
    return r.policy == "platform/tenant-01/tenant-01-restrict" && r.rule_index == 2;
  });
  ASSERT_NE(found, records.end());
  ASSERT_EQ(found->logged_by.size(), 1u);
  EXPECT_EQ(found->logged_by[0].rule_index, 0);
  EXPECT_EQ(found->logged_by[0].label, "database access");
  ASSERT_FALSE(found->staged.empty());
  EXPECT_EQ(found->staged[0].policy, "platform/tenant-01/tighten-db");
}

// The control: were the kernel's id wrong by one, these comparisons would say so.
TEST_F(Examples, APlantedWrongIdIsFound) {
  const Try t = try_of(kExpectations[0]);
  const Decision decision{kIn, false, kExpectations[0].policy, kExpectations[0].rule, Reason::Policy};
  ASSERT_EQ(world_->index.disagreement(t, decision), "");
  Index planted = world_->index;
  for (store::FlowRecord& record : planted.records())
    if (record.src.ip == t.from && record.dst.ip == t.to && record.dst_port == t.port)
      record.rule = RuleId{number(record.rule) - 1};
  EXPECT_NE(planted.disagreement(t, decision), "");
  Index lost = world_->index;
  std::erase_if(lost.records(),
                [&](const store::FlowRecord& r) { return r.src.ip == t.from && r.dst.ip == t.to; });
  EXPECT_NE(lost.disagreement(t, decision), "");
}

}  // namespace
}  // namespace tierlog::testing
