// The shipped example files: clean, and each decides what its comment says.
#include <gtest/gtest.h>

#include "endpoints/topology.h"
#include "policy/compile.h"
#include "policy/explain.h"
#include "policy/lint.h"
#include "policy/load.h"

namespace tierlog::policy {
namespace {

const std::string kExamples = std::string(TIERLOG_SOURCE_DIR) + "/examples";

struct World {
  std::shared_ptr<const Cluster> cluster;
  Program program;
};

const World& world() {
  static const World built = [] {
    const endpoints::LoadedTopology topology =
        endpoints::load_topology(kExamples + "/topologies/tenants.yaml");
    EXPECT_EQ(topology.findings.to_string(), "");
    const Loaded loaded = load_paths({kExamples + "/policies"});
    EXPECT_EQ(loaded.findings.to_string(), "");
    World w;
    w.cluster = std::make_shared<const Cluster>(topology.topology.cluster);
    EXPECT_EQ(lint(loaded.set, w.cluster.get()).to_string(), "");
    MemoryRuleIds ids;
    auto program = compile(loaded.set, w.cluster, ids);
    EXPECT_TRUE(program);
    if (program) w.program = std::move(*program);
    return w;
  }();
  return built;
}

struct Try {
  const char* name;
  const char* from;
  const char* to;
  std::uint8_t protocol;
  std::uint16_t port;  // or the ICMP type
  Action action;
  const char* decides;  // "policy rule" of the direction that counts
  Family family = Family::V4;
};

Packet packet_of(const Try& attempt) {
  Packet packet;
  packet.source = *resolve_who(*world().cluster, attempt.from, attempt.family);
  packet.destination = *resolve_who(*world().cluster, attempt.to, attempt.family);
  packet.protocol = attempt.protocol;
  if (protocol::is_icmp(attempt.protocol))
    packet.icmp_type = static_cast<std::uint8_t>(attempt.port);
  else
    packet.destination_port = attempt.port;
  return packet;
}

// "platform/tenant-01/tenant-01-restrict 2", "platform -1" at the end of a tier, "profile".
std::string decider(const Explanation& explanation) {
  const auto& direction = explanation.ingress ? explanation.ingress : explanation.egress;
  if (!direction) return "nobody";
  for (const ExplainedStep& step : direction->steps) {
    if (!step.decides) continue;
    if (!step.rule_index) return "profile";
    return (step.policy.empty() ? step.tier : step.policy) + " " + std::to_string(*step.rule_index);
  }
  return "nobody";
}

class Examples : public testing::TestWithParam<Try> {};

TEST_P(Examples, Decide) {
  const Explanation explanation = explain(world().program, packet_of(GetParam()));
  EXPECT_EQ(explanation.action, GetParam().action);
  EXPECT_EQ(decider(explanation), GetParam().decides);
}

constexpr std::uint8_t kTcp = protocol::kTcp, kUdp = protocol::kUdp;
constexpr Action kAllow = Action::Allow, kDeny = Action::Deny;

const Try kTries[] = {
    {"StrangerToDatabase", "tenant-02/web", "tenant-01/db", kTcp, 5432, kDeny,
     "platform/tenant-01/tenant-01-restrict 2"},
    {"StrangerToDatabaseV6", "tenant-02/web", "tenant-01/db", kTcp, 5432, kDeny,
     "platform/tenant-01/tenant-01-restrict 2", Family::V6},
    {"ApiToDatabase", "tenant-01/api", "tenant-01/db", kTcp, 5432, kAllow,
     "platform/tenant-01/tenant-01-restrict 1"},
    {"ScrapeOfDatabase", "monitoring/prometheus", "tenant-01/db", kTcp, 9100, kDeny, "platform -1"},
    {"OutsideToDatabase", "203.0.113.9", "tenant-01/db", kTcp, 5432, kDeny,
     "platform/tenant-01/tenant-01-restrict 2"},
    {"DefaultDeny", "203.0.113.9", "tenant-01/web", kTcp, 8080, kDeny, "default//default-deny 1"},
    {"OtherTenantToApi", "tenant-02/web", "tenant-01/api", kTcp, 8080, kDeny, "default//default-deny 1"},
    {"FromQuarantine", "tenant-02/batch", "tenant-02/web", kTcp, 8080, kDeny, "security//quarantine 1"},
    {"ToQuarantine", "tenant-02/web", "tenant-02/batch", kTcp, 80, kDeny, "security//quarantine 2"},
    {"QuarantinedToOutside", "tenant-02/batch", "203.0.113.9", kTcp, 443, kDeny,
     "security//egress-baseline 3"},
    {"Blocked", "tenant-02/web", "192.0.2.66", kTcp, 443, kDeny, "security//egress-baseline 2"},
    {"Storefront", "tenant-01/web", "tenant-02/web", kTcp, 8080, kAllow, "app/tenant-02/storefront 0"},
    {"ApiFromWeb", "tenant-02/web", "tenant-02/api", kTcp, 8080, kAllow, "default/tenant-02/api-from-web 0"},
    {"Partner", "tenant-01/web", "203.0.113.9", kTcp, 443, kAllow, "default/tenant-01/tenant-01-egress 1"},
    {"PartnerV6", "tenant-01/web", "2001:db8:113::9", kTcp, 443, kAllow,
     "default/tenant-01/tenant-01-egress 1", Family::V6},
    {"Nets", "tenant-01/web", "203.0.113.9", kTcp, 8443, kAllow, "default/tenant-01/tenant-01-egress 2"},
    {"NotNets", "tenant-01/web", "198.51.100.7", kTcp, 8443, kDeny, "default -1"},
    {"InsideTheTenant", "tenant-01/web", "tenant-01/api", kTcp, 8080, kAllow,
     "default/tenant-01/tenant-01-http 0"},
    {"Scraper", "monitoring/prometheus", "tenant-01/web", kTcp, 8080, kAllow,
     "default/tenant-01/tenant-01-http 1"},
    {"IpBlock", "203.0.113.9", "monitoring/prometheus", kTcp, 9090, kAllow,
     "default/monitoring/prometheus 0"},
    {"IpBlockExcept", "198.51.100.7", "monitoring/prometheus", kTcp, 9090, kDeny, "default -1"},
    {"IpBlockV6", "2001:db8:113::9", "monitoring/prometheus", kTcp, 9090, kAllow,
     "default/monitoring/prometheus 0", Family::V6},
    {"EndPort", "tenant-01/web", "monitoring/prometheus", kTcp, 9099, kAllow,
     "default/monitoring/prometheus 1"},
    {"ScraperToOutside", "monitoring/prometheus", "203.0.113.9", kTcp, 443, kDeny, "default -1"},
    {"NamedUdpPort", "tenant-01/web", "monitoring/dns", kUdp, 53, kAllow, "default/monitoring/dns 0"},
    {"NamedTcpPort", "tenant-01/web", "monitoring/dns", kTcp, 53, kAllow, "default/monitoring/dns 1"},
    {"Ping", "tenant-01/web", "monitoring/dns", protocol::kIcmp, 8, kAllow, "default/monitoring/dns 2"},
    {"OtherIcmp", "203.0.113.9", "monitoring/dns", protocol::kIcmp, 13, kDeny, "default -1"},
    {"PingV6", "2001:db8:113::9", "monitoring/dns", protocol::kIcmpV6, 128, kAllow,
     "default/monitoring/dns 3", Family::V6},
    {"RangeV6", "tenant-01/web", "monitoring/dns", kTcp, 8003, kAllow, "default/monitoring/dns 4",
     Family::V6},
    {"RangeV4", "tenant-01/web", "monitoring/dns", kTcp, 8003, kDeny, "default/monitoring/dns 6"},
    {"OtherUdp", "203.0.113.9", "monitoring/dns", kUdp, 5353, kDeny, "default -1"},
};
INSTANTIATE_TEST_SUITE_P(Tries, Examples, testing::ValuesIn(kTries),
                         [](const auto& param) { return param.param.name; });

TEST(ExampleTrace, GoesThroughTheTiers) {
  const Explanation explanation = explain(world().program, packet_of(kTries[0]));
  ASSERT_TRUE(explanation.egress && explanation.ingress);
  std::vector<std::string> egress, ingress;
  for (const ExplainedStep& step : explanation.egress->steps)
    if (egress.empty() || egress.back() != step.tier) egress.push_back(step.tier);
  for (const ExplainedStep& step : explanation.ingress->steps)
    if (ingress.empty() || ingress.back() != step.tier) ingress.push_back(step.tier);
  EXPECT_EQ(egress, (std::vector<std::string>{"security", "app", "default"}));
  EXPECT_EQ(ingress, (std::vector<std::string>{"security", "platform"}));
}

TEST(ExampleTopologies, Load) {
  EXPECT_EQ(endpoints::load_topology(kExamples + "/topologies/small.yaml").findings.to_string(), "");
}

}  // namespace
}  // namespace tierlog::policy
