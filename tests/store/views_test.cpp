// The SQL interface: what plain SQLite, without any function of ours, gets from the views. The example
// statements of docs/sql.md are run as they stand there.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <map>
#include <sstream>

#include <nlohmann/json.hpp>

#include "store/record_json.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

using Json = nlohmann::ordered_json;

class Views : public testing::Test {
 protected:
  void SetUp() override {
    FlowRecord more = sample::denied();
    more.end = sample::at(5);
    more.verdict_packets = 11;
    records_ = {sample::full_record(),
                sample::sparse_record(),
                sample::denied(),
                sample::denied_at_end(),
                sample::allowed(),
                sample::without_policy(),
                more};
    auto store = sample::open_store(folder_.file("flows.db"));
    ASSERT_TRUE(store.put_catalog(sample::catalog()));
    ASSERT_TRUE(store.insert(records_));
    ASSERT_TRUE(store.put_counts(
        std::vector<RuleCount>{
            {sample::kPassRule, 981, 58860}, {sample::kLogRule, 13, 780}, {sample::kDenyRule, 14, 840}},
        std::vector<LossCount>{{"nflog-gap", RuleId::None, 4}, {"deny-set-full", sample::kDenyRule, 2}},
        sample::at(60)));
    ASSERT_EQ(sqlite3_open_v2(folder_.file("flows.db").c_str(), &database_, SQLITE_OPEN_READONLY, nullptr),
              SQLITE_OK);
  }
  void TearDown() override { sqlite3_close(database_); }

  // Rows as objects; column types become JSON types.
  Json rows(const std::string& sql) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
      ADD_FAILURE() << sqlite3_errmsg(database_) << " in: " << sql;
      return Json::array();
    }
    Json list = Json::array();
    int code = 0;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      Json row = Json::object();
      for (int i = 0; i < sqlite3_column_count(statement); ++i)
        row[sqlite3_column_name(statement, i)] = cell(statement, i);
      list.push_back(row);
    }
    EXPECT_EQ(code, SQLITE_DONE) << sqlite3_errmsg(database_);
    sqlite3_finalize(statement);
    return list;
  }

  static Json cell(sqlite3_stmt* statement, int column) {
    switch (sqlite3_column_type(statement, column)) {
      case SQLITE_NULL:
        return {};
      case SQLITE_INTEGER:
        return sqlite3_column_int64(statement, column);
      case SQLITE_FLOAT:
        return sqlite3_column_double(statement, column);
      default:
        return reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
    }
  }

  sample::Folder folder_;
  std::vector<FlowRecord> records_;
  sqlite3* database_ = nullptr;
};

const std::vector<std::string> kJsonColumns{"logged_by", "trace", "staged", "src_labels", "dst_labels"};

// Keys of the JSON form that are there only where they have a value.
constexpr const char* kOptionalKeys[] = {"end_reason", "dst_nat_ip", "dst_nat_port", "src_nat_ip", "src_nat_port"};

TEST_F(Views, FlowsHasTheRecordsNamesAndValues) {
  const Json found = rows("SELECT * FROM flows ORDER BY sequence");
  ASSERT_EQ(found.size(), records_.size());
  for (std::size_t i = 0; i < records_.size(); ++i) {
    Json row = found[i];
    EXPECT_EQ(row.at("start_ns"), to_ns(records_[i].start));
    EXPECT_EQ(row.at("end_ns"), to_ns(records_[i].end));
    EXPECT_EQ(row.at("sequence"), i + 1);
    for (const char* key : {"start_ns", "end_ns", "sequence"}) row.erase(key);
    for (const char* key : kOptionalKeys)
      if (row.at(key).is_null()) row.erase(key);
    for (const std::string& key : kJsonColumns) row[key] = Json::parse(row.at(key).get<std::string>());
    const Json expected = to_json(records_[i], {"c1", "node-1"});
    EXPECT_EQ(row, expected) << Json::diff(expected, row).dump(1);
    // Equality above ignores nothing but order; columns come in the record's order too.
    std::vector<std::string> keys, columns;
    for (const auto& item : expected.items()) keys.push_back(item.key());
    for (const auto& item : row.items()) columns.push_back(item.key());
    EXPECT_EQ(columns, keys);
  }
}

TEST_F(Views, DeniedFlowsAreTheDeniedOnes) {
  EXPECT_EQ(rows("SELECT * FROM denied_flows ORDER BY sequence"),
            rows("SELECT * FROM flows WHERE action = 'deny' ORDER BY sequence"));
  EXPECT_EQ(rows("SELECT count(*) AS n FROM denied_flows")[0]["n"], 4);
}

TEST_F(Views, DeniedFlowsAreFoundByIndex) {
  const auto plan = [this](const std::string& sql) {
    std::string text;
    for (const Json& step : rows("EXPLAIN QUERY PLAN " + sql))
      text += step.at("detail").get<std::string>() + "\n";
    return text;
  };
  const std::string of_policy = plan("SELECT * FROM denied_flows WHERE policy = 'x'");
  EXPECT_NE(of_policy.find("flow_denied_rule"), std::string::npos) << of_policy;
  const std::string newest = plan("SELECT id FROM denied_flows ORDER BY end_ns DESC LIMIT 100");
  EXPECT_NE(newest.find("flow_denied_end"), std::string::npos) << newest;
}

TEST_F(Views, PolicyActivity) {
  const Json found = rows(
      "SELECT tier, tier_order, policy, policy_kind, short_kind, endpoints_selected, allowed, denied, "
      "passed, logged,"
      " staged_denied, last_hit_time FROM policy_activity");
  const Json expected = Json::parse(R"([
    {"tier":"security","tier_order":100.0,"policy":"security//quarantine","policy_kind":"GlobalNetworkPolicy",
     "short_kind":"GNP","endpoints_selected":2,"allowed":0,"denied":0,"passed":981,"logged":0,"staged_denied":0,
     "last_hit_time":"2026-11-21T20:15:07.000000123Z"},
    {"tier":"platform","tier_order":200.5,"policy":"platform/tenant-01/isolate","policy_kind":"NetworkPolicy",
     "short_kind":"NP","endpoints_selected":2,"allowed":0,"denied":0,"passed":0,"logged":0,"staged_denied":0,
     "last_hit_time":null},
    {"tier":"platform","tier_order":200.5,"policy":"platform/tenant-01/tenant-01-restrict",
     "policy_kind":"NetworkPolicy","short_kind":"NP","endpoints_selected":2,"allowed":2,"denied":25,"passed":0,
     "logged":13,"staged_denied":0,"last_hit_time":"2026-11-21T20:15:07.000000123Z"},
    {"tier":"platform","tier_order":200.5,"policy":"platform/tenant-01/tighten-db",
     "policy_kind":"StagedNetworkPolicy","short_kind":"SNP","endpoints_selected":2,"allowed":0,"denied":0,"passed":0,
     "logged":0,"staged_denied":24,"last_hit_time":"2026-11-21T20:14:14.000000128Z"}])");
  EXPECT_EQ(found, expected) << Json::diff(expected, found).dump(1);
}

TEST_F(Views, Rules) {
  const Json found = rows(
      "SELECT rule_id, rule_hex, policy, rule_index, action, reason, live, kernel_packets, kernel_bytes,"
      " recorded_packets, unattributed, suppressed FROM rules WHERE policy LIKE '%restrict' ORDER BY "
      "rule_id");
  const Json expected = Json::parse(R"([
    {"rule_id":257,"rule_hex":"101","policy":"platform/tenant-01/tenant-01-restrict","rule_index":0,"action":"Log",
     "reason":"policy","live":1,"kernel_packets":13,"kernel_bytes":780,"recorded_packets":0,"unattributed":0,
     "suppressed":9},
    {"rule_id":258,"rule_hex":"102","policy":"platform/tenant-01/tenant-01-restrict","rule_index":2,"action":"Deny",
     "reason":"policy","live":1,"kernel_packets":14,"kernel_bytes":840,"recorded_packets":12,"unattributed":2,
     "suppressed":0},
    {"rule_id":259,"rule_hex":"103","policy":"platform/tenant-01/tenant-01-restrict","rule_index":-1,"action":"Deny",
     "reason":"end-of-tier","live":1,"kernel_packets":0,"kernel_bytes":0,"recorded_packets":1,"unattributed":0,
     "suppressed":0},
    {"rule_id":260,"rule_hex":"104","policy":"platform/tenant-01/tenant-01-restrict","rule_index":1,"action":"Allow",
     "reason":"policy","live":1,"kernel_packets":0,"kernel_bytes":0,"recorded_packets":1,"unattributed":0,
     "suppressed":0}])");
  EXPECT_EQ(found, expected) << Json::diff(expected, found).dump(1);
}

TEST_F(Views, Endpoints) {
  EXPECT_EQ(rows("SELECT * FROM endpoints"), Json::parse(R"([
    {"namespace":"tenant-01","name":"db-0","node":"node-1","interface":"veth1","workload":"db",
     "labels":"{\"app\":\"db\"}","addresses":"[\"10.244.1.9\",\"fd00:244::9\"]","enforced":1,
     "ingress_policies":"[\"security//quarantine\",\"platform/tenant-01/tenant-01-restrict\"]",
     "egress_policies":"[]"}])"));
}

TEST_F(Views, Loss) {
  EXPECT_EQ(rows("SELECT cause, rule_id, policy, packets, changed_time FROM loss ORDER BY cause"),
            Json::parse(R"([
    {"cause":"deny-set-full","rule_id":258,"policy":"platform/tenant-01/tenant-01-restrict","packets":2,
     "changed_time":"2026-11-21T20:15:07.000000123Z"},
    {"cause":"nflog-gap","rule_id":null,"policy":null,"packets":4,
     "changed_time":"2026-11-21T20:15:07.000000123Z"}])"));
}

// The blocks ```sql … ``` of docs/sql.md, one statement each.
std::vector<std::string> documented_statements() {
  std::ifstream page(TIERLOG_SOURCE_DIR "/docs/sql.md");
  std::vector<std::string> statements;
  std::string line;
  bool inside = false;
  while (std::getline(page, line)) {
    if (line == "```sql") {
      inside = true;
      statements.emplace_back();
    } else if (line == "```") {
      inside = false;
    } else if (inside) {
      statements.back() += line + "\n";
    }
  }
  return statements;
}

TEST_F(Views, EveryStatementOfTheDocumentationGivesRows) {
  const auto statements = documented_statements();
  EXPECT_GE(statements.size(), 18u) << "three a view";
  for (const std::string& sql : statements) EXPECT_FALSE(rows(sql).empty()) << sql;
}

TEST_F(Views, EveryColumnIsDocumented) {
  std::ifstream page(TIERLOG_SOURCE_DIR "/docs/sql.md");
  std::ifstream record_page(TIERLOG_SOURCE_DIR "/docs/records.md");
  std::stringstream text, record_text;
  text << page.rdbuf();
  record_text << record_page.rdbuf();
  for (const char* view : {"flows", "denied_flows", "policy_activity", "rules", "endpoints", "loss"}) {
    EXPECT_NE(text.str().find("`" + std::string(view) + "`"), std::string::npos) << view;
    for (const Json& column : rows("SELECT name FROM pragma_table_info('" + std::string(view) + "')")) {
      const std::string quoted = "`" + column.at("name").get<std::string>() + "`";
      EXPECT_TRUE(text.str().find(quoted) != std::string::npos ||
                  record_text.str().find(quoted) != std::string::npos)
          << view << "." << quoted;
    }
  }
}

TEST(RecordKeys, AreAllDocumented) {
  std::ifstream page(TIERLOG_SOURCE_DIR "/docs/records.md");
  std::stringstream text;
  text << page.rdbuf();
  const Json json = to_json(sample::full_record(), {"c1", "node-1"});
  for (const auto& item : json.items())
    EXPECT_NE(text.str().find("`" + item.key() + "`"), std::string::npos) << item.key();
  for (int reason = 0; reason <= static_cast<int>(Reason::Other); ++reason) {
    const std::string quoted = "`" + std::string(name(static_cast<Reason>(reason))) + "`";
    EXPECT_NE(text.str().find(quoted), std::string::npos) << quoted;
  }
}

}  // namespace
}  // namespace tierlog::store
