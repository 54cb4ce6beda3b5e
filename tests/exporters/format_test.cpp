// What becomes what: the forms of a record field by field, and the choice of fields.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "exporters/format/record_format.h"
#include "store/record_json.h"
#include "tests/exporters/sample_records.h"

namespace tierlog::exporters {
namespace {

using Json = nlohmann::ordered_json;
using fluentbit::testing::denied_record;
using fluentbit::testing::kOrigin;

Json at(const Json& json, const std::string& pointer) {
  const Json::json_pointer place(pointer);
  return json.contains(place) ? json.at(place) : Json("(nothing)");
}

struct Expectation {
  const char* pointer;
  Json value;
};

void expect(const Json& json, std::initializer_list<Expectation> wanted) {
  for (const Expectation& one : wanted) EXPECT_EQ(at(json, one.pointer), one.value) << one.pointer << "\n" << json.dump(1);
}

TEST(CalicoFormat, HasTheNamesOfItsFlowLogs) {
  expect(to_calico(denied_record(1).record, kOrigin),
         {{"/start_time", 1795292047},
          {"/action", "deny"},
          {"/reporter", "dst"},
          {"/source_ip", "10.244.1.7"},
          {"/source_name", "web"},
          {"/source_type", "wep"},
          {"/source_namespace", "tenant-02"},
          {"/source_labels/labels/0", "role=web"},
          {"/dest_name_aggr", "db"},
          {"/dest_port", 5432},
          {"/proto", "tcp"},
          {"/host", "node-1"},
          // Ingress: what came to the reporter is "in".
          {"/packets_in", 12},
          {"/bytes_in", 720},
          {"/bytes_out", 0},
          {"/policies/all_policies", Json::array({"0|platform|tenant-01/platform.tenant-01-restrict|deny|2"})}});
}

TEST(CalicoFormat, TurnsToTheReportersView) {
  store::FlowRecord record = full_record();
  record.reporter = store::Reporter::Source;
  record.direction = Direction::Egress;
  record.trace = {{Direction::Egress, "security", "security//quarantine", std::nullopt, "no-match"},
                  {Direction::Egress, "security", "", std::nullopt, "pass"},
                  {Direction::Egress, "default", "default/tenant-02/allow-egress", 0, "allow"}};
  record.policy = "default/tenant-02/allow-egress";
  record.policy_kind = "KubernetesNetworkPolicy";
  expect(to_calico(record, kOrigin),
         {{"/bytes_out", 720},
          {"/bytes_in", 640},
          {"/source_name", "web-7c9f-x2x1z"},
          {"/source_name_aggr", "web-7c9f-*"},
          {"/dest_service_name", "db"},
          {"/dest_service_namespace", "tenant-01"},
          {"/dest_service_port_num", 80},
          {"/policies/enforced_policies", Json::array({"0|security|security.quarantine|pass|-1",
                                                       "1|default|tenant-02/knp.default.allow-egress|allow|0"})},
          {"/policies/pending_policies", Json::array({"2|platform|tenant-01/platform.staged:tighten-db|deny|0"})}});
}

TEST(CalicoFormat, FollowsProfilesAndNames) {
  store::FlowRecord record = full_record();
  record.policy = record.tier = "";
  record.trace.clear();
  record.staged.clear();
  record.src.kind = store::PeerKind::Public;
  record.src.name = record.src.peer_namespace = "";
  expect(to_calico(record, kOrigin),
         {{"/policies/all_policies", Json::array({"0|__PROFILE__|__PROFILE__.kns.tenant-01|allow|0"})},
          {"/source_type", "net"},
          {"/source_name", "-"},
          {"/source_name_aggr", "pub"},
          {"/source_namespace", "-"}});
}

TEST(EcsFormat, HasTheSchemasNames) {
  const Json json = to_ecs(full_record(), kOrigin);
  expect(json, {{"/@timestamp", "2026-11-21T20:14:07.000000123Z"},
                {"/event/id", full_record().id},
                {"/event/category", Json::array({"network"})},
                {"/event/type", Json::array({"connection", "allowed", "end"})},
                {"/event/duration", 10'000'000'000},
                {"/network/transport", "tcp"},
                {"/network/iana_number", "6"},
                {"/network/bytes", 1360},
                {"/source/ip", "10.244.1.7"},
                {"/source/bytes", 720},
                {"/source/nat/port", 61000},
                {"/destination/nat/ip", "10.96.0.10"},
                {"/rule/id", "298"},
                {"/rule/ruleset", "platform"},
                {"/observer/hostname", "node-1"},
                {"/orchestrator/cluster/name", "c1"},
                {"/tierlog/destination/pod", "db-0"},
                {"/tierlog/rule_index", 2}});
  EXPECT_EQ(at(to_ecs(denied_record(1).record, kOrigin), "/event/outcome"), "failure");
}

TEST(OcsfFormat, IsNetworkActivity) {
  expect(to_ocsf(denied_record(1).record, kOrigin), {{"/class_uid", 4001},
                                                     {"/activity_id", 5},
                                                     {"/type_uid", 400105},
                                                     {"/action_id", 2},
                                                     {"/disposition", "Blocked"},
                                                     {"/time", 1795292047000},
                                                     {"/metadata/uid", denied_record(1).record.id},
                                                     {"/src_endpoint/name", "tenant-02/web"},
                                                     {"/dst_endpoint/port", 5432},
                                                     {"/connection_info/protocol_num", 6},
                                                     {"/connection_info/direction", "Lateral"},
                                                     {"/traffic/bytes_out", 720}});
  store::FlowRecord record = full_record();
  expect(to_ocsf(record, kOrigin), {{"/activity_name", "Close"}, {"/type_uid", 400102}, {"/action_id", 1}});
  record.end_reason = store::EndReason::None;
  record.ct_state = "new";
  EXPECT_EQ(at(to_ocsf(record, kOrigin), "/activity_name"), "Open");
  // What was only watched was not blocked.
  record.action = store::Verdict::Deny;
  record.reason = Reason::Audit;
  expect(to_ocsf(record, kOrigin), {{"/disposition_id", 17}, {"/action", "Observed"}});
}

TEST(Choice, KeepsAndLeavesOut) {
  const RecordFormat few({.name = "tierlog", .fields = {"id", "action", "src_labels"}, .omit = {}});
  EXPECT_EQ(few.to_json(denied_record(1).record, kOrigin),
            (Json{{"id", denied_record(1).record.id}, {"action", "deny"}, {"src_labels", {{"role", "web"}}}}));
  const RecordFormat most({.name = "tierlog", .fields = {}, .omit = {"trace", "logged_by"}});
  const Json json = most.to_json(denied_record(1).record, kOrigin);
  EXPECT_FALSE(json.contains("trace"));
  EXPECT_EQ(json.size() + 2, store::to_json(denied_record(1).record, kOrigin).size());
  const RecordFormat inside({.name = "ecs", .fields = {"event.id", "source"}, .omit = {"source.address"}});
  const Json ecs = inside.to_json(denied_record(1).record, kOrigin);
  EXPECT_EQ(ecs["event"], (Json{{"id", denied_record(1).record.id}}));
  EXPECT_EQ(ecs["source"]["ip"], "10.244.1.7");
  EXPECT_FALSE(ecs["source"].contains("address"));
  EXPECT_EQ(ecs.size(), 2u);
}

TEST(Choice, NamesWhatDoesNotExist) {
  EXPECT_EQ(check_format({.name = "tierlog", .fields = {"id", "src_nat_ip"}, .omit = {"end_reason"}}).size(), 0u);
  EXPECT_EQ(check_format({.name = "ecs", .fields = {"event.id"}, .omit = {}}).size(), 0u);
  const auto typed = check_format({.name = "tierlog", .fields = {"src_adr"}, .omit = {"acton"}});
  ASSERT_EQ(typed.size(), 2u);
  EXPECT_NE(typed[1].find("did you mean action?"), std::string::npos) << typed[1];
  ASSERT_EQ(check_format({.name = "xml"}).size(), 1u);
}

// The exemplar has every key that a record can have.
TEST(Choice, KnowsEveryKey) {
  const auto paths = format_paths("tierlog");
  const Json json = store::to_json(denied_record(1).record, kOrigin);
  for (const auto& [key, value] : json.items())
    EXPECT_NE(std::find(paths.begin(), paths.end(), key), paths.end()) << key;
  for (const char* key : {"end_reason", "dst_nat_ip", "dst_nat_port", "src_nat_ip", "src_nat_port"})
    EXPECT_NE(std::find(paths.begin(), paths.end(), key), paths.end()) << key;
}

}  // namespace
}  // namespace tierlog::exporters
