#include "tests/store/sample.h"

#include <stdlib.h>
#include <filesystem>
#include <stdexcept>

namespace tierlog::store::sample {
namespace {

// A UUIDv7 that differs by `n`.
std::string uuid(int n) {
  char text[40];
  std::snprintf(text, sizeof text, "018fabcd-ef01-7123-8456-%012x", static_cast<unsigned>(n));
  return text;
}

int next_number() {
  static int count = 0;
  return ++count;
}

FlowRecord base_record() {
  FlowRecord record;
  record.id = uuid(next_number());
  record.start = at(0);
  record.end = at(0);
  record.reporter = Reporter::Destination;
  record.direction = Direction::Ingress;
  record.proto = protocol::kTcp;
  record.src_port = 41122;
  record.dst_port = 5432;
  record.src = pod("10.244.1.7", "tenant-02", "web-7c9f", "web", {{"app", "web"}, {"tier", "front"}});
  record.dst = pod("10.244.1.9", "tenant-01", "db-0", "db", {{"app", "db"}});
  record.tcp_flags = "s";
  record.ct_state = "new";
  return record;
}

void name_policy(FlowRecord& record) {
  record.tier = "platform";
  record.policy = kRestrict;
  record.policy_kind = "NetworkPolicy";
  record.policy_namespace = "tenant-01";
  record.policy_name = "tenant-01-restrict";
}

RuleRow rule_row(RuleId id, int index, const std::string& action, const std::string& reason) {
  RuleRow row;
  row.id = id;
  row.policy = kRestrict;
  row.policy_kind = "NetworkPolicy";
  row.tier = "platform";
  row.policy_namespace = "tenant-01";
  row.policy_name = "tenant-01-restrict";
  row.direction = Direction::Ingress;
  row.rule_index = index;
  row.action = action;
  row.reason = reason;
  row.revision = 3;
  row.text = action + " rule";
  row.source = "policies/30-platform.yaml:18:5";
  return row;
}

PolicyRow policy_row(const std::string& tier, const std::string& pod_namespace, const std::string& name,
                     std::optional<double> order, int position, bool staged = false) {
  PolicyRow row;
  row.display = tier + "/" + pod_namespace + "/" + name;
  row.tier = tier;
  row.kind = pod_namespace.empty() ? "GlobalNetworkPolicy" : staged ? "StagedNetworkPolicy" : "NetworkPolicy";
  row.short_kind = pod_namespace.empty() ? "GNP" : staged ? "SNP" : "NP";
  row.policy_namespace = pod_namespace;
  row.name = name;
  row.order = order;
  row.position = position;
  row.revision = 3;
  row.endpoints_selected = 2;
  row.staged = staged;
  row.selector = "all()";
  row.source = "policies/30-platform.yaml:1";
  return row;
}

std::vector<RuleRow> rules() {
  RuleRow pass = rule_row(kPassRule, 0, "Pass", "policy");
  pass.policy = kQuarantine;
  pass.tier = "security";
  pass.policy_kind = "GlobalNetworkPolicy";
  pass.policy_namespace = "";
  pass.policy_name = "quarantine";
  RuleRow end = rule_row(kEndOfTier, -1, "Deny", "end-of-tier");
  end.also_policies = {kIsolate, kRestrict};
  RuleRow reserved;
  reserved.id = reserved::kNoPolicyIngress;
  reserved.direction = Direction::Ingress;
  reserved.action = "Allow";
  reserved.reason = "no-policy";
  reserved.text = "no policy selects the endpoint";
  return {pass,
          rule_row(kLogRule, 0, "Log", "policy"),
          rule_row(kAllowRule, 1, "Allow", "policy"),
          rule_row(kDenyRule, 2, "Deny", "policy"),
          end,
          reserved};
}

}  // namespace

Folder::Folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tierlog-store-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

WallTime at(int seconds) {
  return *parse_rfc3339("2026-11-21T20:14:07.000000123Z") + std::chrono::seconds(seconds);
}

Peer pod(const std::string& address, const std::string& pod_namespace, const std::string& name,
         const std::string& workload, policy::Labels labels) {
  return {*IpAddr::parse(address), PeerKind::Pod, pod_namespace, name, workload, std::move(labels)};
}

FlowRecord full_record() {
  FlowRecord record = base_record();
  name_policy(record);
  record.end = at(7) + Nanoseconds(5);
  record.reporter = Reporter::Source;
  record.direction = Direction::Egress;
  record.action = Verdict::Deny;
  record.reason = Reason::DroppedLater;
  record.rule_index = 4;
  record.rule = RuleId{0xfffffffe};
  record.policy_revision = 17;
  record.logged_by = {{kQuarantine, 0, kLogRule, "audit \"quoted\"", 9}, {kRestrict, 1, kDenyRule, "", 0}};
  record.trace = {{Direction::Egress, "security", kQuarantine, std::nullopt, "no-match"},
                  {Direction::Egress, "security", "", -1, "pass"},
                  {Direction::Ingress, "platform", kRestrict, 4, "deny"}};
  record.staged = {{kTighten, Verdict::Deny, 0}, {kTighten, Verdict::Allow, std::nullopt}};
  record.proto = protocol::kIcmpV6;
  record.src.ip = *IpAddr::parse("2001:db8::7");
  record.dst.ip = *IpAddr::parse("fd00:244::9");
  record.dst.kind = PeerKind::NetworkSet;
  record.dst_service = "tenant-01/db";
  record.icmp_type = 128;
  record.icmp_code = 0;
  record.connections = 1;
  record.verdict_packets = 12;
  record.packets_out = 13;
  record.packets_in = 14;
  record.bytes_out = 1'000'000'000'000;
  record.bytes_in = 0;
  record.tcp_flags = "sa";
  return record;
}

FlowRecord sparse_record() {
  FlowRecord record;
  record.id = uuid(next_number());
  record.start = at(0);
  record.end = at(0);
  record.proto = 132;
  record.rule = reserved::kNoPolicyIngress;
  record.reason = Reason::NoPolicy;
  record.src = {*IpAddr::parse("203.0.113.9"), PeerKind::Public, "", "", "", {}};
  record.dst = {*IpAddr::parse("10.0.0.1"), PeerKind::Private, "", "", "", {}};
  return record;
}

FlowRecord denied() {
  FlowRecord record = base_record();
  name_policy(record);
  record.action = Verdict::Deny;
  record.reason = Reason::Policy;
  record.rule_index = 2;
  record.rule = kDenyRule;
  record.policy_revision = 3;
  record.logged_by = {{kRestrict, 0, kLogRule, "", 0}};
  record.verdict_packets = 1;
  record.packets_out = 1;
  record.packets_in = 0;
  record.bytes_out = 60;
  record.bytes_in = 0;
  record.staged = {{kTighten, Verdict::Deny, 0}};
  return record;
}

FlowRecord denied_at_end() {
  FlowRecord record = denied();
  record.reason = Reason::EndOfTier;
  record.rule_index = -1;
  record.rule = kEndOfTier;
  record.policy_revision = 1;
  record.logged_by = {};
  record.staged = {};
  record.dst_port = 8080;
  record.src = {*IpAddr::parse("203.0.113.9"), PeerKind::Public, "", "", "", {}};
  return record;
}

FlowRecord allowed() {
  FlowRecord record = base_record();
  name_policy(record);
  record.reason = Reason::Policy;
  record.rule_index = 1;
  record.rule = kAllowRule;
  record.policy_revision = 3;
  record.connections = 1;
  record.verdict_packets = 1;
  record.src = pod("10.244.1.8", "tenant-01", "api-5d4c", "api", {{"app", "api"}, {"role", "api"}});
  record.dst_service = "tenant-01/db";
  return record;
}

FlowRecord without_policy() {
  FlowRecord record = base_record();
  record.reason = Reason::NoPolicy;
  record.rule = reserved::kNoPolicyIngress;
  record.connections = 1;
  record.verdict_packets = 1;
  record.proto = protocol::kUdp;
  record.dst_port = 53;
  record.dst = pod("fd00:244::5", "kube-system", "coredns-1", "coredns", {{"k8s-app", "kube-dns"}});
  record.src.ip = *IpAddr::parse("fd00:244::7");
  record.bytes_out = 70;
  record.bytes_in = 140;
  record.tcp_flags = "";
  return record;
}

Catalog catalog() {
  Catalog made;
  made.revision = 19;
  made.since = at(-3600);
  made.tiers = {
      {"security", 100, "Pass", 0}, {"platform", 200.5, "Deny", 1}, {"default", std::nullopt, "Deny", 2}};
  made.policies = {policy_row("security", "", "quarantine", 10, 0),
                   policy_row("platform", "tenant-01", "isolate", 5, 1),
                   policy_row("platform", "tenant-01", "tenant-01-restrict", 20, 2),
                   policy_row("platform", "tenant-01", "tighten-db", std::nullopt, 3, true)};
  made.rules = rules();
  made.endpoints = {{"tenant-01",
                     "db-0",
                     "node-1",
                     "veth1",
                     "db",
                     {{"app", "db"}},
                     {"10.244.1.9", "fd00:244::9"},
                     true,
                     {kQuarantine, kRestrict},
                     {}}};
  return made;
}

FlowStore open_store(const std::string& path) {
  auto store = FlowStore::open_writer(path, {"c1", "node-1"});
  if (!store) throw std::runtime_error(store.error().message);
  return std::move(*store);
}

}  // namespace tierlog::store::sample
