// The record's JSON form: the keys, their order, nulls.
#include "store/record_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

const std::vector<std::string> kKeys{
    "id",          "start_time",      "end_time",         "cluster",      "node",
    "reporter",    "direction",       "action",           "reason",       "tier",
    "policy",      "policy_kind",     "policy_namespace", "policy_name",  "rule_index",
    "rule_id",     "policy_revision", "logged_by",        "trace",        "staged",
    "proto",       "src_ip",          "src_port",         "src_kind",     "src_namespace",
    "src_pod",     "src_workload",    "src_labels",       "dst_ip",       "dst_port",
    "dst_kind",    "dst_namespace",   "dst_pod",          "dst_workload", "dst_labels",
    "dst_service", "icmp_type",       "icmp_code",        "connections",  "verdict_packets",
    "packets_out", "packets_in",      "bytes_out",        "bytes_in",     "tcp_flags",
    "ct_state"};

TEST(RecordJson, HasTheKeysInTheirOrder) {
  for (const FlowRecord& record : {sample::full_record(), sample::sparse_record()}) {
    std::vector<std::string> keys;
    const auto json = to_json(record, {"c1", "node-1"});
    for (const auto& item : json.items()) keys.push_back(item.key());
    EXPECT_EQ(keys, kKeys);
  }
}

TEST(RecordJson, ADeniedFlow) {
  FlowRecord record = sample::denied();
  record.id = "018fabcd-ef01-7123-8456-000000000001";
  record.trace = {{Direction::Ingress, "security", sample::kQuarantine, std::nullopt, "no-match"}};
  const auto expected = nlohmann::ordered_json::parse(R"({
    "id":"018fabcd-ef01-7123-8456-000000000001", "start_time":"2026-11-21T20:14:07.000000123Z",
    "end_time":"2026-11-21T20:14:07.000000123Z", "cluster":"c1", "node":"node-1", "reporter":"dst",
    "direction":"ingress", "action":"deny", "reason":"policy", "tier":"platform",
    "policy":"platform/tenant-01/tenant-01-restrict", "policy_kind":"NetworkPolicy",
    "policy_namespace":"tenant-01", "policy_name":"tenant-01-restrict", "rule_index":2, "rule_id":258,
    "policy_revision":3,
    "logged_by":[{"policy":"platform/tenant-01/tenant-01-restrict","rule_index":0,"rule_id":257,"label":null,
                  "suppressed":0}],
    "trace":[{"direction":"ingress","tier":"security","policy":"security//quarantine","rule_index":null,
              "result":"no-match"}],
    "staged":[{"policy":"platform/tenant-01/tighten-db","action":"deny","rule_index":0}],
    "proto":"tcp", "src_ip":"10.244.1.7", "src_port":41122, "src_kind":"pod", "src_namespace":"tenant-02",
    "src_pod":"web-7c9f", "src_workload":"web", "src_labels":{"app":"web","tier":"front"},
    "dst_ip":"10.244.1.9", "dst_port":5432, "dst_kind":"pod", "dst_namespace":"tenant-01", "dst_pod":"db-0",
    "dst_workload":"db", "dst_labels":{"app":"db"}, "dst_service":null, "icmp_type":null, "icmp_code":null,
    "connections":null, "verdict_packets":1, "packets_out":1, "packets_in":0, "bytes_out":60, "bytes_in":0,
    "tcp_flags":"s", "ct_state":"new"})");
  EXPECT_EQ(to_json(record, {"c1", "node-1"}), expected);
}

TEST(RecordJson, WhatIsUnsetIsNull) {
  const auto json = to_json(sample::sparse_record(), {});
  for (const char* key :
       {"cluster",          "node",          "tier",        "policy",          "policy_kind",
        "policy_namespace", "policy_name",   "rule_index",  "policy_revision", "src_port",
        "dst_port",         "src_namespace", "src_pod",     "src_workload",    "dst_service",
        "icmp_type",        "icmp_code",     "connections", "packets_out",     "packets_in",
        "bytes_out",        "bytes_in",      "tcp_flags",   "ct_state"})
    EXPECT_TRUE(json.at(key).is_null()) << key;
  for (const char* key : {"logged_by", "trace", "staged"}) EXPECT_EQ(json.at(key).dump(), "[]") << key;
  EXPECT_EQ(json.at("src_labels").dump(), "{}");
}

TEST(RecordJson, TextThatIsNoUtf8StillMakesARecord) {
  FlowRecord record = sample::denied();
  record.src.labels["app"] = "\xff";
  EXPECT_NE(labels_text(record.src.labels), "");
}

TEST(RecordJson, NestedPartsReadBack) {
  const FlowRecord record = sample::full_record();
  EXPECT_EQ(parse_logged_by(logged_by_text(record.logged_by)).value(), record.logged_by);
  EXPECT_EQ(parse_trace(trace_text(record.trace)).value(), record.trace);
  EXPECT_EQ(parse_staged(staged_text(record.staged)).value(), record.staged);
  EXPECT_EQ(parse_labels(labels_text(record.src.labels)).value(), record.src.labels);
  EXPECT_EQ(parse_trace("{").error().code, ErrorCode::Corrupt);
}

}  // namespace
}  // namespace tierlog::store
