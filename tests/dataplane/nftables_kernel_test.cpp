// The back end against the real kernel, in a network namespace of its own: what it makes is accepted, what
// is refused leaves the old in force, and a second process finds what the first left.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

#include "dataplane/nftables/backend.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/nflog.h"
#include "dataplane/nftables/label_watch.h"
#include "dataplane/nftables/read_back.h"
#include "dataplane/nftables/watch.h"
#include "tests/dataplane/programs.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr const char* kEverything = R"(
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: first}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: mixed}
spec:
  tier: first
  selector: all()
  types: [Ingress, Egress]
  ingress:
  - {action: Log, protocol: TCP, destination: {ports: [80, "100:200", http]}}
  - {action: Deny, source: {nets: ["10.9.0.0/16", "fd09::/16"], notNets: ["10.9.1.0/24", "fd09:1::/32"]}}
  - {action: Deny, protocol: ICMP, icmp: {type: 8, code: 0}}
  - {action: Deny, protocol: ICMPv6, notICMP: {type: 128}}
  - {action: Pass, protocol: 47}
  - {action: Allow, source: {selector: role == 'api'}, destination: {notPorts: [1, "5:9"]}}
  - {action: Allow, notProtocol: UDP, source: {notSelector: role == 'api'}}
  egress:
  - {action: Allow, ipVersion: 6, protocol: UDP, source: {ports: [53]}, destination: {ports: [http]}}
  - {action: Pass}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: last, namespace: a}
spec:
  ingress:
  - {action: Allow, protocol: TCP}
)";

bool kernel_protects_tables() {
  utsname system{};
  ::uname(&system);
  int major = 0, minor = 0;
  std::sscanf(system.release, "%d.%d", &major, &minor);
  return major > 6 || (major == 6 && minor >= 9);
}

class NftablesKernel : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNET) != 0)
      GTEST_SKIP() << "needs CAP_SYS_ADMIN (network namespaces): " << std::strerror(errno);
  }

  std::unique_ptr<NftablesBackend> open(const Features& features = {}, const TableOptions& options = {}) {
    auto backend = NftablesBackend::open(options, features);
    EXPECT_TRUE(backend) << backend.error().message;
    return backend ? std::move(*backend) : nullptr;
  }

  std::shared_ptr<const policy::Program> program(const std::string& text) {
    return tierlog::testing::compile(
        text,
        {tierlog::testing::local_pod("a", "api", {"10.0.0.1", "fd00::1"}, {{"role", "api"}}),
         tierlog::testing::local_pod("a", "web", {"10.0.0.2", "fd00::2"}, {})},
        ids_);
  }

  static std::set<std::string> chains() {
    auto socket = NetfilterSocket::open();
    return *read_chains(*socket);
  }

  static std::set<std::string> sets() {
    auto socket = NetfilterSocket::open();
    std::set<std::string> names;
    const auto read = read_sets(*socket);
    for (const auto& [name, filled_by_packets] : *read) names.insert(name);
    return names;
  }

  policy::MemoryRuleIds ids_;
};

TEST_F(NftablesKernel, AcceptsEveryKindOfMatch) {
  const auto backend = open();
  ASSERT_TRUE(backend);
  EXPECT_EQ(backend->owned(), kernel_protects_tables());
  const auto applied = backend->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  const auto counters = backend->read_counters();
  ASSERT_TRUE(counters);
  EXPECT_GE(counters->size(), reserved_rules().size() + 10);
}

TEST_F(NftablesKernel, TheSameAgainChangesNothing) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  EXPECT_GT(backend->changed(), 20u);
  const auto applied = backend->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  EXPECT_EQ(backend->changed(), 0u);
  EXPECT_FALSE(backend->connections_in_doubt());
}

TEST_F(NftablesKernel, AReplacementLeavesNothingOfTheOld) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program("")));
  const auto little = chains();
  const auto few = sets();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  EXPECT_GT(chains().size(), little.size());
  const auto back = backend->apply(program(""));
  ASSERT_TRUE(back) << back.error().message;
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  const auto swept = backend->sweep_when_due();
  ASSERT_TRUE(swept) << swept.error().message;
  EXPECT_EQ(chains(), little);
  EXPECT_EQ(sets(), few);
  EXPECT_TRUE(backend->connections_in_doubt()) << "what the old rules allowed is judged anew";
  ASSERT_TRUE(backend->settle(false));
  EXPECT_FALSE(backend->connections_in_doubt());
}

TEST_F(NftablesKernel, WhatSomebodyChangedIsFoundAndMadeGood) {
  const auto backend = open({.owner = false});
  ASSERT_TRUE(backend);
  EXPECT_FALSE(backend->owned());
  ASSERT_TRUE(backend->apply(program(kEverything)));
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  ASSERT_TRUE(backend->sweep_when_due());
  const auto whole = chains();
  auto clean = backend->verify();
  ASSERT_TRUE(clean) << clean.error().message;
  EXPECT_EQ(clean->objects, 0u);
  EXPECT_FALSE(clean->rebuilt);

  auto socket = NetfilterSocket::open();
  Batch foreign;
  flush_chain(foreign, "new_forward");
  ASSERT_TRUE(socket->commit(foreign));
  auto repaired = backend->verify();
  ASSERT_TRUE(repaired) << repaired.error().message;
  EXPECT_EQ(repaired->objects, 1u);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));

  Batch flush;
  delete_table(flush);
  ASSERT_TRUE(socket->commit(flush));
  repaired = backend->verify();
  ASSERT_TRUE(repaired) << repaired.error().message;
  EXPECT_TRUE(repaired->rebuilt);
  EXPECT_EQ(chains(), whole);
}

TEST_F(NftablesKernel, AnOlderLayoutIsReplacedAndItsCountersGoOn) {
  auto socket = NetfilterSocket::open();
  Batch older;
  add_table(older, 0);
  add_counter(older, counter_name(RuleId{1}), 42, 4200);
  ASSERT_TRUE(socket->commit(older));
  // The text of the layout is the table's user data, which add_table always writes as this version's.
  ASSERT_EQ(std::system("nft delete table inet tierlog"), 0);
  ASSERT_EQ(std::system("nft 'table inet tierlog { counter c_00000001 { packets 42 bytes 4200 }; chain old { "
                        "type filter hook forward priority 10; }; }'"),
            0);
  const auto backend = open();
  ASSERT_TRUE(backend);
  EXPECT_EQ(backend->older_layout(), "unknown");
  EXPECT_EQ(chains().count("old"), 1u) << "in force until the first apply";
  const auto applied = backend->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  EXPECT_EQ(chains().count("old"), 0u);
  EXPECT_EQ(chains().count("forward"), 1u);
  std::uint64_t packets = 0;
  const auto counters = backend->read_counters();
  for (const RuleCounter& counter : *counters)
    if (counter.id == RuleId{1}) packets = counter.packets;
  EXPECT_EQ(packets, 42u);
  EXPECT_NE(std::system("nft list table inet tierlog_hold 2>/dev/null >&2"), 0);
}

std::string tiers(int count, const std::string& rule) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const std::string tier = "tier" + std::to_string(i);
    text += "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: " + tier +
            "}\nspec: {order: " + std::to_string(i) +
            "}\n---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " + tier +
            ".p}\nspec: {tier: " + tier + ", ingress: [" + rule + "]}\n";
  }
  return text;
}

TEST_F(NftablesKernel, TiersThatPassCostNoChains) {
  const auto backend = open();
  for (const char* rule : {"{action: Pass}", "{action: Pass, source: {selector: role == 'api'}}",
                           "{action: Pass, protocol: TCP, destination: {ports: [80]}}"}) {
    for (const int count : {6, 9, 12, 40}) {
      const auto applied = backend->apply(program(tiers(count, rule)));
      EXPECT_TRUE(applied) << count << " times " << rule << ": " << applied.error().message;
    }
  }
}

// Killed after the old tables were gone and before the new ones were filled: the hold is all that stands.
TEST_F(NftablesKernel, WhatADaemonHeldWhenItDiedIsLetGoByTheNext) {
  { ASSERT_TRUE(open()) << "empty tables of this layout"; }
  ASSERT_EQ(std::system("nft 'table inet tierlog_hold { counter c_held { packets 7 bytes 700 }; chain forward { "
                        "type filter hook forward priority 11; ct state new counter name c_held drop; }; }'"),
            0);
  const auto second = open();
  ASSERT_TRUE(second);
  EXPECT_EQ(std::system("nft list table inet tierlog_hold >/dev/null 2>&1"), 0) << "until there are rules";
  const auto applied = second->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  EXPECT_NE(std::system("nft list table inet tierlog_hold >/dev/null 2>&1"), 0);
  EXPECT_EQ(second->held_packets(), 7u);
}

TEST_F(NftablesKernel, WhereFramesCannotBeGuardedOnTheirWayInTheRestIs) {
  ASSERT_EQ(std::system("ip link add br0 type bridge && ip link add v0 master br0 type veth peer name v1"), 0);
  auto pod = tierlog::testing::local_pod("a", "api", {"10.0.0.1"}, {});
  pod.interface = "v0";
  pod.bridge = "br0";
  for (const bool has_hook : {true, false}) {
    const auto backend = open({.egress_hook = has_hook});
    ASSERT_TRUE(backend);
    const auto applied = backend->apply(tierlog::testing::compile(kEverything, {pod}, ids_));
    ASSERT_TRUE(applied) << applied.error().message;
    auto socket = NetfilterSocket::open();
    const auto guards = read_chains(*socket, NFPROTO_NETDEV);
    ASSERT_TRUE(guards);
    const auto starting = [&](const std::string& start) {
      return std::count_if(guards->begin(), guards->end(),
                           [&](const std::string& name) { return name.rfind(start, 0) == 0; });
    };
    EXPECT_EQ(starting("out_"), 1);
    EXPECT_EQ(starting("in_"), has_hook ? 1 : 0);
  }
}

TEST_F(NftablesKernel, WhoChangesTablesIsHeardUnlessItIsUs) {
  const auto backend = open({.owner = false});
  ASSERT_TRUE(backend);
  const auto watch = TableWatch::open(backend->port());
  ASSERT_TRUE(watch) << watch.error().message;
  ASSERT_TRUE(backend->apply(program(kEverything)));
  EXPECT_FALSE((*watch)->foreign_change());
  ASSERT_EQ(std::system("nft add table inet other"), 0);
  EXPECT_TRUE((*watch)->foreign_change());
  EXPECT_FALSE((*watch)->foreign_change()) << "once";
}

TEST_F(NftablesKernel, WhoWritesConnectionLabelsIsHeardWhenItComesAndWhenItGoes) {
  const auto backend = open();
  ASSERT_TRUE(backend);
  const auto watch = LabelWatch::open(backend->port());
  ASSERT_TRUE(watch) << watch.error().message;
  ASSERT_TRUE(backend->apply(program(kEverything)));
  struct Step {
    const char* command;
    bool news;
    std::vector<std::string> writers;
  };
  const std::vector<std::string> other{"table other chain c"};
  for (const Step& step : {Step{"nft add table inet tierlog_not_ours", false, {}},
                           {"nft 'table inet other { chain c { ct label 3 counter; }; }'", false, {}},
                           {"nft add rule inet other c ct label set 3", true, other},
                           {"nft add rule inet other c ct label set 4", false, other},
                           {"nft flush chain inet other c", true, {}},
                           {"nft delete table inet other", false, {}}}) {
    ASSERT_EQ(std::system(step.command), 0) << step.command;
    const auto news = (*watch)->on_readable();
    ASSERT_TRUE(news) << step.command << ": " << news.error().message;
    EXPECT_EQ(*news, step.news) << step.command;
    EXPECT_EQ((*watch)->writers(), step.writers) << step.command;
  }
  ASSERT_EQ(std::system("nft delete table inet tierlog_not_ours"), 0);
}

TEST_F(NftablesKernel, SomeAuditedEndpointsHaveHooksOfTheirOwn) {
  const std::string annotated = std::string("apiVersion: v1\nkind: Namespace\nmetadata: {name: w, annotations: "
                                            "{tierlog.io/enforcement: audit}}\n---") +
                                kEverything;
  const auto mixed = tierlog::testing::compile(annotated,
                                               {tierlog::testing::local_pod("a", "api", {"10.0.0.1", "fd00::1"}, {}),
                                                tierlog::testing::local_pod("w", "web", {"10.0.0.2", "fd00::2"}, {})},
                                               ids_);
  const auto backend = open();
  ASSERT_TRUE(backend);
  const auto applied = backend->apply(mixed);
  ASSERT_TRUE(applied) << applied.error().message;
  EXPECT_EQ(chains().count("audit_forward"), 1u);
  auto socket = NetfilterSocket::open();
  EXPECT_EQ(read_elements(*socket, "eg4")->size(), 1u);
  EXPECT_EQ(read_elements(*socket, "audit_eg4")->size(), 1u);
  const auto enforced = backend->apply(program(kEverything));
  ASSERT_TRUE(enforced) << enforced.error().message;
  EXPECT_EQ(chains().count("audit_forward"), 0u);
  EXPECT_EQ(read_elements(*socket, "eg4")->size(), 2u);
}

TEST_F(NftablesKernel, WhatTheKernelRefusesLeavesTheOldInForceAndSaysWhy) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  const auto before_chains = chains();
  const auto before_sets = sets();
  // What a Pass asks beside addresses, protocol and port is a chain each.
  const auto refused = backend->apply(program(tiers(16, "{action: Pass, protocol: TCP, source: {ports: [7]}}")));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::Refused);
  EXPECT_NE(refused.error().message.find("EMLINK"), std::string::npos) << refused.error().message;
  EXPECT_NE(refused.error().message.find("16 tiers"), std::string::npos) << refused.error().message;
  EXPECT_EQ(chains(), before_chains);
  EXPECT_EQ(sets(), before_sets);
  EXPECT_TRUE(backend->apply(program(kEverything))) << "and the next good set goes in";
}

TEST_F(NftablesKernel, ARestartedProcessAdoptsTheTablesAndChangesNothing) {
  std::set<std::string> before;
  {
    const auto backend = open();
    ASSERT_TRUE(backend->apply(program(kEverything)));
    before = chains();
  }
  EXPECT_EQ(chains(), before) << "rules stay when their maker ends";
  const auto second = open();
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->adopted());
  EXPECT_FALSE(second->spares_midstream());
  const auto applied = second->apply(program(kEverything));
  ASSERT_TRUE(applied) << applied.error().message;
  // The first start spared what was in mid-stream with its two pods: that is what the second ends.
  EXPECT_EQ(second->changed(), 4u);
  EXPECT_EQ(chains(), before);
  ASSERT_TRUE(second->remove_all());
  EXPECT_TRUE(chains().empty());
}

// The rules that judge living connections stand in the base chains.
std::size_t rules_of_forward() {
  auto socket = NetfilterSocket::open();
  const auto seals = read_seals(*socket);
  return seals->at("forward").size();
}

TEST_F(NftablesKernel, ConnectionsInDoubtAndCutOnesStaySoWhenTheDaemonDies) {
  std::size_t quiet = 0;
  {
    const auto backend = open();
    ASSERT_TRUE(backend->apply(program(kEverything)));
    quiet = rules_of_forward();
    ASSERT_TRUE(backend->apply(program("")));
    ASSERT_TRUE(backend->connections_in_doubt());
    EXPECT_GT(rules_of_forward(), quiet);
  }
  {
    const auto second = open();
    EXPECT_TRUE(second->connections_in_doubt());
    auto socket = NetfilterSocket::open();
    const std::size_t before = read_elements(*socket, "revoked")->size();
    EXPECT_GT(before, 0u);
    ASSERT_TRUE(second->apply(program("")));
    EXPECT_GT(rules_of_forward(), quiet);
    EXPECT_GE(read_elements(*socket, "revoked")->size(), before);
    ASSERT_TRUE(second->settle(true));
    EXPECT_FALSE(second->connections_in_doubt());
  }
  const auto third = open();
  EXPECT_FALSE(third->connections_in_doubt());
  ASSERT_TRUE(third->apply(program("")));
  EXPECT_GT(rules_of_forward(), quiet) << "some are cut, for all that is known";
  ASSERT_TRUE(third->settle(false));
  EXPECT_EQ(rules_of_forward(), quiet);
}

TEST_F(NftablesKernel, ASecondOwnerIsRefused) {
  if (!kernel_protects_tables()) GTEST_SKIP() << "needs tables with owners (NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST: Linux 6.9)";
  const auto first = open();
  ASSERT_TRUE(first);
  const auto second = NftablesBackend::open({});
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another process owns the table"), std::string::npos)
      << second.error().message;
}

TEST_F(NftablesKernel, WhoeverElseWritesConnectionLabelsIsNamedAndRefused) {
  ASSERT_EQ(std::system("nft 'table inet other { chain marks { ct label set 7; }; }'"), 0);
  const auto refused = NftablesBackend::open({});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("table other chain marks"), std::string::npos)
      << refused.error().message;
  EXPECT_TRUE(chains().empty());
}

TEST_F(NftablesKernel, ThePodsOfAnAddressChangeWithTheProgram) {
  const auto backend = open();
  ASSERT_TRUE(backend->apply(program(kEverything)));
  auto socket = NetfilterSocket::open();
  EXPECT_EQ(read_elements(*socket, "eg4")->size(), 2u);
  EXPECT_EQ(read_elements(*socket, "in6")->size(), 2u);
  const auto fewer = tierlog::testing::compile(
      kEverything, {tierlog::testing::local_pod("a", "web", {"10.0.0.9"}, {})}, ids_);
  ASSERT_TRUE(backend->apply(fewer));
  EXPECT_EQ(read_elements(*socket, "eg4")->size(), 1u);
  EXPECT_EQ(read_elements(*socket, "in6")->size(), 0u);
}

// One place among the denied flows and one among the rules that are sampled: as when the kernel has no memory for more.
TEST_F(NftablesKernel, ARuleWhoseFlowsFindNoRoomIsToldAllTheSame) {
  TableOptions options;
  options.deny_set_size = 1;
  const auto backend = open({}, options);
  ASSERT_TRUE(backend);
  const auto source = NflogSource::open(options.nflog_group);
  ASSERT_TRUE(source) << source.error().message;
  const auto denying = program(R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: deny, namespace: a}
spec:
  types: [Egress]
  egress:
  - {action: Deny, protocol: UDP, destination: {ports: ["1:2"]}}
  - {action: Deny, protocol: UDP, destination: {ports: [3]}}
)");
  ASSERT_TRUE(backend->apply(denying));
  ASSERT_EQ(std::system("ip link set lo up && ip address add 10.0.0.1/32 dev lo && ip address add 10.0.0.2/32 dev lo"), 0);
  const Fd socket(::socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in from{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(0x0a000001)}, .sin_zero = {}};
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&from), sizeof from), 0) << std::strerror(errno);
  for (std::uint16_t port = 1; port <= 3; ++port) {
    sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(0x0a000002)}, .sin_zero = {}};
    static_cast<void>(::sendto(socket.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to));
  }
  std::vector<VerdictEvent> events;
  for (int i = 0; i < 100 && events.size() < 6; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_TRUE((*source)->drain(events, 10));
  }
  std::vector<std::pair<RuleId, EventKind>> told;
  for (const VerdictEvent& event : events)  // the node's own sending to its pod is told as well
    if (event.kind != EventKind::Allowed) told.emplace_back(event.rule, event.kind);
  const std::vector<std::pair<RuleId, EventKind>> expected{{denying->rules[0].id, EventKind::Denied},
                                                           {denying->rules[0].id, EventKind::Overflow},
                                                           {denying->rules[1].id, EventKind::Overflow}};
  EXPECT_EQ(told, expected);
  const auto overflow = backend->read_overflow();
  ASSERT_TRUE(overflow);
  EXPECT_EQ(*overflow, 2u) << "counted as well";
}

TEST_F(NftablesKernel, TheLogGroupIsHeldByOne) {
  const auto first = NflogSource::open(4610);
  ASSERT_TRUE(first) << first.error().message;
  const auto second = NflogSource::open(4610);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another process holds the group"), std::string::npos)
      << second.error().message;
  std::vector<VerdictEvent> events;
  const auto more = (*first)->drain(events, 10);
  ASSERT_TRUE(more);
  EXPECT_FALSE(*more);
}

}  // namespace
}  // namespace tierlog::dataplane::nftables
