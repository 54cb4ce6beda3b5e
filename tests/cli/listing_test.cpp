// Listings of a database that the store wrote: what they print, in every form.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

using testing_program::Outcome;
using testing_program::Words;
using Json = nlohmann::json;
namespace sample = store::sample;

// Two packets of one denied flow, one denied at the end of the tier, two allowed.
class Listings : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<sample::Folder>();
    store::FlowStore store = sample::open_store(database());
    ASSERT_TRUE(store.put_catalog(sample::catalog()));
    store::FlowRecord second = sample::denied();
    second.end = sample::at(10);
    ASSERT_TRUE(store.insert(std::vector<store::FlowRecord>{sample::denied(), second, sample::denied_at_end(),
                                                            sample::allowed(), sample::without_policy()}));
    const std::vector<store::RuleCount> counts = {{sample::kDenyRule, 3, 180}, {sample::kLogRule, 4, 240}};
    const std::vector<store::LossCount> losses = {{"nflog-gap", sample::kDenyRule, 1}};
    ASSERT_TRUE(store.put_counts(counts, losses, sample::at(20)));
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string database() { return folder_->file("flows.db"); }
  static Outcome run(Words words) {
    return testing_program::run(words, {{"TIERLOG_DB", database()}, {"COLUMNS", "120"}});
  }
  static Json items(const Words& words) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const Json object = Json::parse(outcome.out);
    EXPECT_TRUE(object.at("notes").is_array());
    return object.at("items");
  }

 private:
  static inline std::unique_ptr<sample::Folder> folder_;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(Listings, DeniedSumsFlowsAndNamesThePolicy) {
  const Outcome outcome = run({"denied", "tenant-01-restrict"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(
      outcome.out,
      "TIME (UTC)     FROM               TO             PORT     TIER     POLICY                       RULE  "
      "      "
      "PACKETS\n"
      "11-21 20:14:17 tenant-02/web-7c9f tenant-01/db-0 5432/tcp platform tenant-01/tenant-01-restrict "
      "ingress[2]  "
      "      2\n"
      "11-21 20:14:07 203.0.113.9        tenant-01/db-0 8080/tcp platform tenant-01/tenant-01-restrict "
      "end-of-tier "
      "      1\n"
      "2 flows denied by platform/tenant-01/tenant-01-restrict · 3 packets, 180 B · 1 packet unattributed\n");
}

TEST_F(Listings, WideShowsEverythingUncut) {
  const Outcome outcome = run({"denied", "-o", "wide"});
  ASSERT_EQ(outcome.code, 0);
  for (const char* part :
       {"2026-11-21 20:14:17", "outside 203.0.113.9", "tenant-01/tenant-01-restrict", "ingress[2] Deny",
        "NetworkPolicy", "102", "10.244.1.9", "platform/tenant-01/tighten-db would deny"})
    EXPECT_TRUE(has(outcome.out, part)) << part << "\n" << outcome.out;
}

class ListingCommands : public Listings, public testing::WithParamInterface<Words> {};

TEST_P(ListingCommands, NoLineIsWrappedAt120) {
  const Outcome outcome = run(GetParam());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const std::string& line : lines_of(outcome.out)) {
    const auto columns = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; });
    EXPECT_LE(columns, 120) << line;
  }
}

TEST_P(ListingCommands, FormsAgreeOnTheNumberOfItems) {
  Words words = GetParam();
  words.insert(words.end(), {"-o", "json"});
  const std::size_t count = items(words).size();
  EXPECT_GT(count, 0u);
  words.back() = "jsonl";
  for (const std::string& line : lines_of(run(words).out)) EXPECT_TRUE(Json::parse(line).is_object());
  EXPECT_EQ(lines_of(run(words).out).size(), count);
  words.back() = "csv";
  EXPECT_EQ(lines_of(run(words).out).size(), count + 1);
}

TEST_P(ListingCommands, ColoursNothingWithoutATerminal) {
  EXPECT_FALSE(has(run(GetParam()).out, "\x1b"));
}

INSTANTIATE_TEST_SUITE_P(All, ListingCommands,
                         testing::Values(Words{"flows"}, Words{"denied"}, Words{"policies"}, Words{"rules"},
                                         Words{"rules", "--all"}, Words{"endpoints"}),
                         [](const auto& test) {
                           std::string name;
                           for (const std::string& word : test.param)
                             std::copy_if(word.begin(), word.end(), std::back_inserter(name),
                                          [](char c) { return c != '-'; });
                           return name;
                         });

TEST_F(Listings, DeniedItemsHoldTheSums) {
  const Json flows = items({"denied", "--to", "tenant-01/db-0", "--port", "5432", "-o", "json"});
  ASSERT_EQ(flows.size(), 1u);
  EXPECT_EQ(flows[0]["policy"], "platform/tenant-01/tenant-01-restrict");
  EXPECT_EQ(flows[0]["rule_index"], 2);
  EXPECT_EQ(flows[0]["rule_id"], 0x102);
  EXPECT_EQ(flows[0]["verdict_packets"], 2);
  EXPECT_EQ(flows[0]["bytes_out"], 120);
  EXPECT_EQ(flows[0]["records"], 2);
  EXPECT_EQ(flows[0]["start_time"], "2026-11-21T20:14:07.000000123Z");
  EXPECT_EQ(flows[0]["end_time"], "2026-11-21T20:14:17.000000123Z");
}

struct FilterCase {
  const char* name;
  Words words;
  std::size_t count;
};

class FlowFilters : public Listings, public testing::WithParamInterface<FilterCase> {};

TEST_P(FlowFilters, SelectRecords) {
  Words words = {"flows", "-o", "json"};
  words.insert(words.end(), GetParam().words.begin(), GetParam().words.end());
  EXPECT_EQ(items(words).size(), GetParam().count);
}

INSTANTIATE_TEST_SUITE_P(
    Options, FlowFilters,
    testing::Values(FilterCase{"none", {}, 5}, FilterCase{"action", {"--action", "deny"}, 3},
                    FilterCase{"not_action", {"--not", "--action", "deny"}, 2},
                    FilterCase{"not_is_for_the_next_only", {"--not", "--port", "53", "--action", "allow"}, 1},
                    FilterCase{"values_by_comma", {"--port", "53,8080"}, 2},
                    FilterCase{"values_by_repeating", {"--port", "53", "--port", "8080"}, 2},
                    FilterCase{"rule_by_id", {"--rule", "0x103"}, 1},
                    FilterCase{"end_of_tier", {"--rule", "end-of-tier"}, 1},
                    FilterCase{"from_cidr", {"--from", "203.0.113.0/24"}, 1},
                    FilterCase{"policy_asked_at_the_end", {"--policy", "isolate"}, 1},
                    FilterCase{"policy_pattern", {"--policy", "/tenant-01-(re|x)strict$/"}, 4},
                    FilterCase{"kind", {"--kind", "NP"}, 4}, FilterCase{"logged", {"--logged"}, 2},
                    FilterCase{"not_logged", {"--not", "--logged"}, 3},
                    FilterCase{"limit", {"--limit", "2"}, 2}, FilterCase{"last", {"--last", "1"}, 1},
                    FilterCase{"since_an_instant", {"--since", "2026-11-21T20:14:10Z"}, 1},
                    FilterCase{"until_an_instant", {"--until", "2026-11-21T20:14:10Z"}, 4}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(Listings, FirstIsOldestFirst) {
  const Json oldest = items({"flows", "--first", "2", "-o", "json"});
  const Json newest = items({"flows", "--last", "1", "-o", "json"});
  ASSERT_EQ(oldest.size(), 2u);
  EXPECT_EQ(oldest[0]["end_time"], "2026-11-21T20:14:07.000000123Z");
  EXPECT_EQ(oldest[1], newest[0]);  // written second, ended last
}

TEST_F(Listings, SaysWhenThereIsMore) {
  EXPECT_TRUE(has(run({"flows", "--limit", "2"}).err, "--limit 0 shows all"));
  EXPECT_EQ(run({"flows", "--limit", "5"}).err, "");
}

TEST_F(Listings, EveryEmptyAnswerSaysWhy) {
  const Outcome range = run({"denied", "tenant-01-restrict", "--until", "2020-01-01T00:00:00Z"});
  EXPECT_EQ(range.code, 0);
  EXPECT_EQ(range.out, "");
  EXPECT_TRUE(has(range.err, "the newest that does ended 2026-11-21 20:14:17 UTC")) << range.err;
  const Outcome filter = run({"flows", "--port", "1"});
  EXPECT_TRUE(has(filter.err, "no recorded flow matches these filters")) << filter.err;
  const Outcome policy = run({"denied", "security//quarantine"});
  EXPECT_TRUE(has(policy.err, "security//quarantine has denied nothing that is recorded")) << policy.err;
  const Json object = Json::parse(run({"flows", "--port", "1", "-o", "json"}).out);
  EXPECT_EQ(object["items"], Json::array());
  EXPECT_EQ(object["notes"].size(), 1u);
}

TEST_F(Listings, BoardHasTiersAndPoliciesInOrder) {
  const Outcome outcome = run({"policies"});
  ASSERT_EQ(outcome.code, 0);
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 6u) << outcome.out;
  EXPECT_TRUE(lines[1].starts_with("security    100  /quarantine ")) << outcome.out;
  EXPECT_TRUE(lines[2].starts_with("platform  200.5  tenant-01/isolate ")) << outcome.out;
  EXPECT_TRUE(lines[3].starts_with("                 tenant-01/tenant-01-restrict  NP ")) << outcome.out;
  EXPECT_TRUE(has(lines[4], "tenant-01/tighten-db          SNP         2        -  would 2       -       -"))
      << outcome.out;
  EXPECT_EQ(lines[5],
            "allowed counts connections, denied counts packets, since 2026-11-21 19:14 · `tierlog rules "
            "POLICY` for each "
            "rule");
}

TEST_F(Listings, RulesShowTheBooks) {
  const Json rules = items({"rules", "tenant-01-restrict", "-o", "json"});
  const auto deny =
      std::find_if(rules.begin(), rules.end(), [](const Json& rule) { return rule["rule_id"] == 0x102; });
  ASSERT_NE(deny, rules.end());
  EXPECT_EQ((*deny)["rule_hex"], "102");
  EXPECT_EQ((*deny)["kernel_packets"], 3);
  EXPECT_EQ((*deny)["recorded_packets"], 2);
  EXPECT_EQ((*deny)["unattributed"], 1);
  const Outcome table = run({"rules", "tenant-01-restrict"});
  EXPECT_TRUE(has(table.out, "of platform/tenant-01/tenant-01-restrict")) << table.out;
}

TEST_F(Listings, SumsAddUpInTableAndJson) {
  const Json groups = items({"flows", "--group-by", "action,port", "--bins", "1m", "--rate", "-o", "json"});
  ASSERT_EQ(groups.size(), 4u);
  std::uint64_t denied = 0, connections = 0, binned = 0;
  for (const Json& group : groups) {
    denied += group["denied_packets"].get<std::uint64_t>();
    connections += group["connections"].get<std::uint64_t>();
    for (const Json& bin : group["bins"]) binned += bin["denied_packets"].get<std::uint64_t>();
    EXPECT_TRUE(group.contains("bytes_per_second"));
  }
  EXPECT_EQ(denied, 3u);
  EXPECT_EQ(connections, 2u);
  EXPECT_EQ(binned, denied);
  const Outcome table = run({"flows", "--top", "2", "--bins", "10s"});
  EXPECT_EQ(table.code, 0);
  EXPECT_TRUE(has(table.out, "OVER TIME")) << table.out;
  EXPECT_TRUE(has(table.out, "█")) << table.out;
  EXPECT_TRUE(has(table.out, "2 connections, 3 denied packets")) << table.out;
  EXPECT_TRUE(has(table.err, "the 2 largest of 4 groups")) << table.err;
}

TEST_F(Listings, AnUnknownPolicyIsNo) {
  for (const Words& words : {Words{"denied", "tenat-01-restrict"}, Words{"rules", "tenat-01-restrict"},
                             Words{"flows", "--policy", "tenat-01-restrict"}}) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err,
              "no policy matches \"tenat-01-restrict\"; did you mean platform/tenant-01/tenant-01-restrict? "
              "(`tierlog "
              "policies` lists all)\n");
  }
}

TEST_F(Listings, AnUnknownNamespaceOrTierIsNo) {
  for (const Words& words :
       {Words{"flows", "--namespace", "tenat-01"}, Words{"denied", "--to-namespace", "tenat-01"}}) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.err,
              "no namespace is called \"tenat-01\", now or in any record; did you mean tenant-01?\n");
  }
  EXPECT_EQ(run({"flows", "--tier", "platfrom"}).code, 1);
  EXPECT_EQ(run({"flows", "--tier", "platfrom*"}).code, 0) << "a pattern may match nothing";
  EXPECT_EQ(run({"flows", "--not", "--tier", "platfrom", "--limit", "1"}).code, 0);
  EXPECT_EQ(run({"flows", "--tier", "platform", "--until", "2000-01-01T00:00:00Z"}).code, 0);
}

TEST_F(Listings, AStagedPolicyDeniesNothingAndSaysWhatItWould) {
  const Outcome outcome = run({"denied", "tighten-db"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(has(outcome.err, "is staged and denies nothing; it would have denied 2 packets"))
      << outcome.err;
  EXPECT_TRUE(has(outcome.err, "--staged-action deny")) << outcome.err;
  EXPECT_EQ(items({"flows", "--staged-action", "deny", "-o", "json"}).empty(), false);
}

TEST_F(Listings, AFolderIsNoDatabase) {
  const std::string folder = database().substr(0, database().rfind('/'));
  const Outcome outcome = run({"flows", "--db", folder});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, folder + " is a folder; expected a flow database, such as " + database() + "\n");
}

TEST_F(Listings, NothingIsCutForAProgram) {
  const Outcome outcome = testing_program::run({"rules"}, {{"TIERLOG_DB", database()}});
  EXPECT_EQ(outcome.out.find("…"), std::string::npos) << outcome.out;
  EXPECT_NE(run({"rules"}).out, outcome.out) << "on a terminal of 120 columns it is cut";
}

TEST_F(Listings, JsonKeysAreTheViewsColumns) {
  const Json rule = items({"rules", "-o", "json"})[0];
  for (const char* key : {"rule_id", "rule_hex", "unattributed", "suppressed", "kernel_packets"})
    EXPECT_TRUE(rule.contains(key)) << key;
  const Json policy = items({"policies", "-o", "json"})[0];
  for (const char* key : {"short_kind", "policy_order", "allowed", "denied", "passed", "logged",
                          "staged_denied", "last_hit_time"})
    EXPECT_TRUE(policy.contains(key)) << key;
}

TEST_F(Listings, TheOptionIsStrongerThanTheVariable) {
  EXPECT_EQ(testing_program::run({"flows", "--db", database()}, {{"TIERLOG_DB", "/nonexistent"}}).code, 0);
}

TEST_F(Listings, FitsANarrowTerminal) {
  const Outcome outcome = testing_program::run({"denied"}, {{"TIERLOG_DB", database()}, {"COLUMNS", "100"}});
  for (const std::string& line :
       lines_of(outcome.out).empty() ? std::vector<std::string>{} : lines_of(outcome.out)) {
    if (has(line, "flows denied")) continue;
    const auto columns = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; });
    EXPECT_LE(columns, 100) << line;
  }
}

TEST(HostileNames, CannotReachTheTerminal) {
  const sample::Folder folder;
  {
    store::FlowStore store = sample::open_store(folder.file("flows.db"));
    ASSERT_TRUE(store.put_catalog(sample::catalog()));
    store::FlowRecord record = sample::denied();
    record.src.name = "web\x1b[2J\nfake line";
    ASSERT_TRUE(store.insert(std::vector<store::FlowRecord>{record}));
  }
  for (const char* form : {"table", "wide"}) {
    const Outcome outcome = testing_program::run({"denied", "-o", form, "--db", folder.file("flows.db")});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_FALSE(has(outcome.out, "\x1b"));
    EXPECT_EQ(lines_of(outcome.out).size(), 3u) << outcome.out;
  }
}

TEST(EmptyDatabase, SaysThatNothingIsThereYet) {
  const sample::Folder folder;
  { const store::FlowStore store = sample::open_store(folder.file("flows.db")); }
  const auto run = [&](const Words& words) {
    return testing_program::run(words, {{"TIERLOG_DB", folder.file("flows.db")}});
  };
  for (const char* command : {"flows", "denied"})
    EXPECT_TRUE(has(run({command}).err, "nothing has been recorded yet")) << run({command}).err;
  EXPECT_TRUE(has(run({"policies"}).err, "no policy is loaded"));
  EXPECT_TRUE(has(run({"endpoints"}).err, "no endpoint is known"));
  EXPECT_TRUE(has(run({"denied", "x"}).err, "knows no policy yet"));
  EXPECT_EQ(run({"policies"}).code, 0);
}

}  // namespace
}  // namespace tierlog::cli
