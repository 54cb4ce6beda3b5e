// `tierlog store`: what a whole and a damaged file say, and records that come out as they went in.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "store/query.h"
#include "store/record_json.h"
#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

namespace sample = store::sample;
using Json = nlohmann::ordered_json;
using testing_program::Outcome;
using testing_program::Words;

class StoreCommands : public testing::Test {
 protected:
  StoreCommands() : database_(folder_.file("flows.db")) {
    records_ = {sample::full_record(), sample::denied(), sample::allowed(), sample::without_policy()};
    store::FlowStore store = sample::open_store(database_);
    EXPECT_TRUE(store.put_catalog(sample::catalog()));
    EXPECT_TRUE(store.insert(records_));
  }
  Outcome run(const Words& words) const { return testing_program::run(words, {{"TIERLOG_DB", database_}}); }

  sample::Folder folder_;
  std::string database_;
  std::vector<store::FlowRecord> records_;
};

std::vector<Json> lines_of(const std::string& text) {
  std::vector<Json> items;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) items.push_back(Json::parse(line));
  return items;
}

TEST_F(StoreCommands, AWholeFileIsWhole) {
  const Outcome text = run({"store", "check"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find(database_ + ": whole · 4 records"), std::string::npos) << text.out;
  const Json json = Json::parse(run({"store", "check", "-o", "json"}).out);
  EXPECT_EQ(json["whole"], true);
  EXPECT_EQ(json["records"], 4);
  EXPECT_EQ(json["damage"], Json::array());
}

TEST_F(StoreCommands, ADamagedFileIsNot) {
  {
    std::fstream file(database_, std::ios::in | std::ios::out | std::ios::binary);
    const auto size = std::filesystem::file_size(database_);
    file.seekp(static_cast<std::streamoff>(size / 2));
    file << std::string(size / 2, '\x5a');
  }
  const Outcome outcome = run({"store", "check", "-o", "json"});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out)["whole"], false);
}

TEST_F(StoreCommands, ExportsAreTheRecords) {
  const Outcome lines = run({"store", "export"});
  EXPECT_EQ(lines.code, 0) << lines.err;
  std::vector<Json> expected;
  for (const store::FlowRecord& record : records_)
    expected.push_back(store::to_json(record, {"c1", "node-1"}));
  EXPECT_EQ(lines_of(lines.out), expected);
  const Outcome denied =
      run({"store", "export", "--action", "deny", "--format", "csv", folder_.file("denied.csv")});
  EXPECT_EQ(denied.code, 0) << denied.err;
  EXPECT_EQ(denied.out, "");
  std::ifstream csv(folder_.file("denied.csv"));
  int rows = 0;
  std::string header;
  for (std::string row; std::getline(csv, row); ++rows)
    if (rows == 0) header = row;
  EXPECT_EQ(rows, 1 + 2);
  // The columns do not hang on what the records happen to have.
  for (const char* key : {"end_reason", "dst_nat_ip", "dst_nat_port", "src_nat_ip", "src_nat_port"})
    EXPECT_NE(("," + header + ",").find(std::string(",") + key + ","), std::string::npos) << key;
  for (const Words& words : {Words{"flows", "-o", "csv"}, Words{"flows", "--limit", "1", "-o", "csv"}})
    EXPECT_EQ(run(words).out.substr(0, header.size() + 1), header + "\n");
}

TEST_F(StoreCommands, AnExportedDatabaseIsOne) {
  const std::string copy = folder_.file("copy.db");
  const Outcome exported = run({"store", "export", "--format", "sqlite", "--action", "deny", copy});
  EXPECT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(run({"store", "check", "--db", copy}).code, 0);
  EXPECT_EQ(run({"flows", "--db", copy, "-o", "jsonl"}).out,
            run({"flows", "--action", "deny", "-o", "jsonl"}).out);
  EXPECT_EQ(run({"rules", "--all", "--db", copy, "-o", "jsonl"}).code, 0);
  EXPECT_EQ(run({"store", "export", "--format", "sqlite", copy}).code, 2);
}

TEST_F(StoreCommands, CompactKeepsEverything) {
  const std::string before = run({"store", "export"}).out;
  EXPECT_EQ(run({"store", "compact"}).code, 0);
  const Outcome rewritten = run({"store", "compact", "--rewrite", "-o", "json"});
  EXPECT_EQ(rewritten.code, 0) << rewritten.err;
  EXPECT_GT(Json::parse(rewritten.out)["bytes_after"], 0);
  EXPECT_EQ(run({"store", "export"}).out, before);
  EXPECT_EQ(run({"store", "check"}).code, 0);
}

}  // namespace
}  // namespace tierlog::cli
