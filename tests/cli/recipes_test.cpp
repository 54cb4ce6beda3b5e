// Every command and statement of docs/recipes.md against one filled database: both must give the same rows.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

using testing_program::Words;
using Json = nlohmann::json;
using store::FlowRecord;
namespace sample = store::sample;

struct Recipe {
  std::string question, command, sql;
};

std::vector<Recipe> recipes() {
  std::ifstream page(std::string(TIERLOG_SOURCE_DIR) + "/docs/recipes.md");
  std::vector<Recipe> all;
  bool in_sql = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("## ")) all.push_back({line.substr(3), "", ""});
    if (all.empty()) continue;
    if (line.starts_with("```")) {
      in_sql = line == "```sql";
    } else if (in_sql) {
      all.back().sql += line + "\n";
    } else if (line.starts_with("    tierlog ") && all.back().command.empty()) {
      all.back().command = line.substr(12);
    }
  }
  std::erase_if(all, [](const Recipe& recipe) { return recipe.sql.empty(); });
  return all;
}

Words words_of(const std::string& command) {
  Words words;
  std::istringstream stream(command);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

FlowRecord egress(const std::string& to, std::uint16_t port, int second) {
  FlowRecord record = sample::allowed();
  record.reporter = store::Reporter::Source;
  record.direction = Direction::Egress;
  record.src = sample::pod("10.244.1.7", "tenant-02", "web-7c9f", "web", {{"app", "web"}});
  record.dst = {*IpAddr::parse(to), store::PeerKind::Public, "", "", "", {}};
  record.dst_port = port;
  record.dst_service = "";
  record.end = sample::at(second);
  record.bytes_out = 500;
  record.bytes_in = 0;
  record.end_reason = store::EndReason::Unanswered;
  return record;
}

FlowRecord received(int second, std::uint64_t bytes) {
  FlowRecord record = sample::allowed();
  record.end = sample::at(second);
  record.bytes_out = bytes;
  record.bytes_in = bytes * 3;
  return record;
}

class Recipes : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<sample::Folder>();
    store::FlowStore store = sample::open_store(database());
    ASSERT_TRUE(store.put_catalog(sample::catalog()));
    FlowRecord again = sample::denied();
    again.end = sample::at(3);
    FlowRecord dns = sample::denied();
    dns.dst_port = 53;
    dns.proto = protocol::kUdp;
    dns.verdict_packets = 7;
    dns.end = sample::at(4);
    FlowRecord end = sample::denied_at_end();
    end.end = sample::at(5);
    FlowRecord no_policy = sample::without_policy();
    no_policy.end = sample::at(6);
    ASSERT_TRUE(store.insert(std::vector{sample::denied(), again, dns, end, no_policy,
                                         egress("198.51.100.7", 443, 7), egress("198.51.100.8", 80, 8),
                                         received(9, 100), received(10, 250), sample::full_record()}));
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static std::string database() { return folder_->file("flows.db"); }

  // The rows of a statement as plain sqlite3 gives them.
  static Json rows(const std::string& sql) {
    sqlite3* database_handle = nullptr;
    EXPECT_EQ(sqlite3_open_v2(database().c_str(), &database_handle, SQLITE_OPEN_READONLY, nullptr),
              SQLITE_OK);
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(database_handle, sql.c_str(), -1, &statement, nullptr), SQLITE_OK)
        << sqlite3_errmsg(database_handle) << "\n"
        << sql;
    Json list = Json::array();
    while (statement != nullptr && sqlite3_step(statement) == SQLITE_ROW) {
      Json row = Json::object();
      for (int i = 0; i < sqlite3_column_count(statement); ++i)
        row[sqlite3_column_name(statement, i)] = cell(statement, i);
      list.push_back(row);
    }
    sqlite3_finalize(statement);
    sqlite3_close(database_handle);
    return list;
  }

  static Json cell(sqlite3_stmt* statement, int column) {
    switch (sqlite3_column_type(statement, column)) {
      case SQLITE_NULL:
        return nullptr;
      case SQLITE_INTEGER:
        return sqlite3_column_int64(statement, column);
      default:
        break;
    }
    const std::string text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
    return text.starts_with("[") ? Json::parse(text) : Json(text);
  }

  static Json items(const std::string& command) {
    Words words = words_of(command);
    words.insert(words.end(), {"--db", database(), "-o", "json"});
    const auto outcome = testing_program::run(words);
    EXPECT_EQ(outcome.code, 0) << command << "\n" << outcome.err;
    return Json::parse(outcome.out).at("items");
  }

 private:
  static inline std::unique_ptr<sample::Folder> folder_;
};

TEST_F(Recipes, TheCommandAndTheStatementGiveTheSameRows) {
  const std::vector<Recipe> all = recipes();
  ASSERT_GE(all.size(), 9u);
  for (const Recipe& recipe : all) {
    SCOPED_TRACE(recipe.question);
    const Json by_command = items(recipe.command), by_sql = rows(recipe.sql);
    ASSERT_EQ(by_command.size(), by_sql.size()) << by_command.dump(1) << by_sql.dump(1);
    EXPECT_FALSE(by_sql.empty()) << "an empty answer proves nothing";
    for (std::size_t i = 0; i < by_sql.size(); ++i)
      for (const auto& [key, value] : by_sql[i].items()) {
        if (key == "newest") continue;  // what a sum is ordered by
        ASSERT_TRUE(by_command[i].contains(key)) << key;
        EXPECT_EQ(by_command[i][key], value) << key << " of row " << i;
      }
  }
}

// The control: a statement that asks for something else is told from the command.
TEST_F(Recipes, AnotherStatementGivesOtherRows) {
  EXPECT_NE(items("flows --to 198.51.100.7 --limit 0").size(),
            rows("SELECT id FROM flows WHERE dst_ip LIKE '198.51.100.%'").size());
}

}  // namespace
}  // namespace tierlog::cli
