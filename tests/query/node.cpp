#include "tests/query/node.h"

#include <gtest/gtest.h>

#include "logger/rule_names.h"
#include "policy/explain.h"
#include "store/history.h"

namespace tierlog::query::testing_node {
namespace {

namespace sample = store::sample;

class NotingIds final : public policy::RuleIdRegistry {
 public:
  explicit NotingIds(policy::RuleIdRegistry& real) : real_(real) {}
  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys) override {
    auto given = real_.identify(keys);
    for (std::size_t i = 0; i < keys.size(); ++i)
      noted.push_back({store::key_hash(keys[i].text()), (*given)[i]});
    return given;
  }
  std::vector<store::KnownRule> noted;

 private:
  policy::RuleIdRegistry& real_;
};

}  // namespace

policy::Endpoint pod(const std::string& ns, const std::string& name, const std::string& address,
                     policy::Labels labels) {
  policy::Endpoint endpoint;
  endpoint.endpoint_namespace = ns;
  endpoint.name = name;
  endpoint.workload = policy::workload_of(name);
  endpoint.addresses = {*IpAddr::parse(address)};
  endpoint.labels = std::move(labels);
  endpoint.local = true;
  return endpoint;
}

policy::PolicySet load(const std::string& text) {
  policy::Loaded loaded = policy::load_text(text, "test.yaml");
  EXPECT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string() << text;
  return std::move(loaded.set);
}

Node::Node() : store_(sample::open_store(folder_.file("flows.db"))) {}

void Node::in_force(int second, const std::string& policies, const policy::Cluster& cluster) {
  NotingIds ids(ids_);
  const policy::PolicySet set = load(policies);
  auto program = policy::compile(set, std::make_shared<const policy::Cluster>(cluster), ids,
                                 {.scope = policy::CompileOptions::Scope::Local, .revision = ++revision_});
  ASSERT_TRUE(program);
  program_ = std::make_shared<const policy::Program>(std::move(*program));
  ASSERT_TRUE(store_.put_catalog(logger::make_catalog(*program_, sample::at(second))));
  const store::Moment moment{sample::at(second), revision_, true, {{"test.yaml", policies}}, {}};
  ASSERT_TRUE(store_.put_moment(moment, cluster, ids.noted));
}

store::Peer Node::peer_of(const IpAddr& address) const {
  store::Peer peer;
  peer.ip = address;
  peer.kind = store::PeerKind::Public;
  if (const policy::Endpoint* endpoint = program_->known(address)) {
    peer.kind = store::PeerKind::Pod;
    peer.peer_namespace = endpoint->endpoint_namespace;
    peer.name = endpoint->name;
    peer.workload = endpoint->workload;
    peer.labels = endpoint->labels;
  }
  return peer;
}

void Node::record(int second, const policy::Packet& packet, const policy::DirectionVerdict& verdict) {
  store::FlowRecord record = sample::sparse_record();
  record.start = record.end = sample::at(second);
  record.direction = verdict.direction;
  record.reporter =
      verdict.direction == Direction::Ingress ? store::Reporter::Destination : store::Reporter::Source;
  record.action = verdict.action == policy::Action::Allow ? store::Verdict::Allow : store::Verdict::Deny;
  record.rule = verdict.rule;
  for (const store::RuleRow& row : logger::rule_rows(*program_)) {
    if (row.id != verdict.rule) continue;
    record.tier = row.tier;
    record.policy = row.policy;
    record.policy_kind = row.policy_kind;
    record.policy_namespace = row.policy_namespace;
    record.policy_name = row.policy_name;
    record.rule_index = row.rule_index;
    record.policy_revision = row.revision;
    record.reason = row.reason == "policy"        ? Reason::Policy
                    : row.reason == "end-of-tier" ? Reason::EndOfTier
                                                  : Reason::NoPolicy;
  }
  record.proto = packet.protocol;
  record.src = peer_of(packet.source);
  record.dst = peer_of(packet.destination);
  record.src_port = packet.source_port;
  record.dst_port = packet.destination_port;
  if (protocol::is_icmp(packet.protocol)) {
    record.src_port = record.dst_port = std::nullopt;
    record.icmp_type = packet.icmp_type;
    record.icmp_code = packet.icmp_code;
  }
  record.verdict_packets = 1;
  if (record.action == store::Verdict::Allow) record.connections = 1;
  record.bytes_out = 100;
  record.bytes_in = record.action == store::Verdict::Allow ? 1000 : 0;
  ASSERT_TRUE(store_.insert(std::vector{record}));
}

void Node::connect(int second, const std::string& from, const std::string& to, std::uint16_t port,
                   std::uint8_t proto) {
  policy::Packet packet;
  packet.source = *policy::resolve_who(*program_->cluster, from);
  packet.destination = *policy::resolve_who(*program_->cluster, to);
  packet.protocol = proto;
  packet.source_port = static_cast<std::uint16_t>(40000 + ++records_);
  packet.destination_port = port;
  if (protocol::is_icmp(proto)) {
    packet.source_port = packet.destination_port = 0;
    packet.icmp_type = static_cast<std::uint8_t>(port);
  }
  const policy::Evaluation evaluation = policy::evaluate(*program_, packet);
  if (evaluation.egress) record(second, packet, *evaluation.egress);
  if (evaluation.ingress) record(second, packet, *evaluation.ingress);
}

store::FlowReader Node::reader() const {
  auto opened = store::FlowReader::open(path());
  EXPECT_TRUE(opened) << opened.error().message;
  return std::move(*opened);
}

}  // namespace tierlog::query::testing_node
