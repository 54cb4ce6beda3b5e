// tests/exporters/sample_records.h - records as the flow index hands them out.
#pragma once

#include <string>
#include <vector>

#include "store/flow_store.h"

namespace tierlog::exporters::fluentbit::testing {

inline const store::Origin kOrigin{"c1", "node-1"};

inline store::StoredRecord denied_record(int number) {
  store::FlowRecord record;
  record.id = "018f0000-0000-7000-8000-" + std::to_string(100'000'000'000 + number);
  record.start = from_ns(1'795'292'047'000'000'123 + number);
  record.end = record.start + std::chrono::seconds(10);
  record.reporter = store::Reporter::Destination;
  record.direction = Direction::Ingress;
  record.action = store::Verdict::Deny;
  record.reason = Reason::Policy;
  record.tier = "platform";
  record.policy = "platform/tenant-01/tenant-01-restrict";
  record.policy_kind = "NetworkPolicy";
  record.policy_namespace = "tenant-01";
  record.policy_name = "tenant-01-restrict";
  record.rule_index = 2;
  record.rule = RuleId{0x12a};
  record.policy_revision = 3;
  record.logged_by = {{"platform/tenant-01/tenant-01-restrict", 0, RuleId{0x128}, "db", 0}};
  record.trace = {{Direction::Ingress, "security", "security//quarantine", std::nullopt, "no-match"},
                  {Direction::Ingress, "platform", "platform/tenant-01/tenant-01-restrict", 2, "deny"}};
  record.proto = protocol::kTcp;
  record.src_port = 41122;
  record.dst_port = 5432;
  record.src = {
      *IpAddr::parse("10.244.1.7"), store::PeerKind::Pod, "tenant-02", "web", "web", {{"role", "web"}}};
  record.dst = {
      *IpAddr::parse("10.244.1.9"), store::PeerKind::Pod, "tenant-01", "db", "db", {{"role", "db"}}};
  record.verdict_packets = 5'000'000'000;
  record.packets_out = 12;
  record.packets_in = 0;
  record.bytes_out = 720;
  record.bytes_in = 0;
  record.tcp_flags = "s";
  record.ct_state = "new";
  return {number, record};
}

inline std::vector<store::StoredRecord> denied_records(int count) {
  std::vector<store::StoredRecord> records;
  for (int i = 1; i <= count; ++i) records.push_back(denied_record(i));
  return records;
}

}  // namespace tierlog::exporters::fluentbit::testing
