// The API answers what the command answers: same items, same notes, same sentences for mistakes.
#include "api/api.h"

#include <gtest/gtest.h>

#include <filesystem>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::api {
namespace {

using Json = nlohmann::json;
using cli::testing_program::Words;
namespace sample = store::sample;

// "from=a&not-port=53" as a request has it; nothing here is escaped.
http::Request request_of(const std::string& target) {
  http::Request request;
  const auto mark = target.find('?');
  request.path = target.substr(0, mark);
  std::string rest = mark == std::string::npos ? "" : target.substr(mark + 1);
  while (!rest.empty()) {
    const auto end = rest.find('&');
    const std::string one = rest.substr(0, end);
    const auto equals = one.find('=');
    request.parameters.emplace_back(one.substr(0, equals),
                                    equals == std::string::npos ? "" : one.substr(equals + 1));
    rest = end == std::string::npos ? "" : rest.substr(end + 1);
  }
  return request;
}

class Apis : public ::testing::Test {
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

  http::Response ask(const std::string& target) const { return api_.answer(request_of(target)); }
  Json json(const std::string& target) const {
    const http::Response response = ask(target);
    EXPECT_EQ(response.status, 200) << target << ": " << response.body;
    return Json::parse(response.body);
  }

  static inline std::unique_ptr<sample::Folder> folder_;
  SystemClock clock_;
  Api api_{database(), [] { return std::make_shared<const std::string>("{\"node\":\"n\"}"); }, clock_};
};

struct Pair {
  const char* title;
  Words words;
  const char* target;
};

class SameAnswers : public Apis, public ::testing::WithParamInterface<Pair> {};

TEST_P(SameAnswers, AsTheCommand) {
  Words words = GetParam().words;
  words.insert(words.end(), {"-o", "json", "--db", database()});
  const auto command = cli::testing_program::run(words);
  const http::Response answer = ask(GetParam().target);
  const bool fails = command.code != 0;
  EXPECT_EQ(fails, answer.status != 200) << command.err << answer.body;
  const Json said = Json::parse(answer.body);
  if (fails) {
    EXPECT_EQ(answer.status, command.code == 1 ? 404 : 400);
    EXPECT_NE(command.err.find(said.at("error").get<std::string>()), std::string::npos)
        << command.err << " / " << answer.body;
    return;
  }
  const Json expected = Json::parse(command.out);
  EXPECT_EQ(said.at("items"), expected.at("items"));
  EXPECT_EQ(said.at("notes"), expected.at("notes"));
}

const Pair kPairs[] = {
    {"Flows", {"flows"}, "/api/v1/flows"},
    {"FlowsOfAPolicy",
     {"flows", "--policy", "tenant-01-restrict"},
     "/api/v1/flows?policy=tenant-01-restrict"},
    {"Negated", {"flows", "--not", "--action", "deny"}, "/api/v1/flows?not-action=deny"},
    {"Underscores", {"flows", "--from-namespace", "tenant-02"}, "/api/v1/flows?from_namespace=tenant-02"},
    {"SeveralValues",
     {"flows", "--port", "5432,8080", "--port", "53"},
     "/api/v1/flows?port=5432,8080&port=53"},
    {"Flag", {"flows", "--logged"}, "/api/v1/flows?logged"},
    {"NegatedFlag", {"flows", "--not", "--logged"}, "/api/v1/flows?not-logged=true"},
    {"Limit", {"flows", "--limit", "2"}, "/api/v1/flows?limit=2"},
    {"First", {"flows", "--first", "2"}, "/api/v1/flows?first=2"},
    {"Time", {"flows", "--since", "2026-11-21T20:14:10Z"}, "/api/v1/flows?since=2026-11-21T20:14:10Z"},
    {"Nothing", {"flows", "--port", "1"}, "/api/v1/flows?port=1"},
    {"NothingInTime", {"flows", "--until", "2020-01-01"}, "/api/v1/flows?until=2020-01-01"},
    {"Denied", {"denied"}, "/api/v1/denied"},
    {"DeniedByPolicy", {"denied", "tenant-01-restrict"}, "/api/v1/denied/tenant-01-restrict"},
    {"DeniedByDisplay",
     {"denied", "platform/tenant-01/tenant-01-restrict"},
     "/api/v1/denied/platform/tenant-01/tenant-01-restrict"},
    {"DeniedByFilter",
     {"denied", "--policy", "/^platform.*restrict/"},
     "/api/v1/denied?policy=/^platform.*restrict/"},
    {"DeniedByStaged", {"denied", "tighten-db"}, "/api/v1/denied/tighten-db"},
    {"Sums", {"flows", "--group-by", "policy,tier,rule"}, "/api/v1/flows?group-by=policy,tier,rule"},
    {"Bins", {"flows", "--top", "3", "--bins", "1m", "--rate"}, "/api/v1/flows?top=3&bins=1m&rate"},
    {"DeniedSums",
     {"denied", "--group-by", "policy", "--order", "packets"},
     "/api/v1/denied?group-by=policy&order=packets"},
    {"Policies", {"policies"}, "/api/v1/policies"},
    {"Unused", {"policies", "--unused", "1h"}, "/api/v1/policies?unused=1h"},
    {"Rules", {"rules"}, "/api/v1/rules"},
    {"RulesOfAPolicy", {"rules", "tenant-01-restrict", "--all"}, "/api/v1/rules/tenant-01-restrict?all"},
    {"Endpoints", {"endpoints"}, "/api/v1/endpoints"},
    // mistakes
    {"UnknownPolicy", {"denied", "tenat-01-restrict"}, "/api/v1/denied/tenat-01-restrict"},
    {"UnknownPolicyOfRules", {"rules", "nobody"}, "/api/v1/rules?policy=nobody"},
    {"UnknownNamespace", {"flows", "--namespace", "tenant-011"}, "/api/v1/flows?namespace=tenant-011"},
    {"BadPort", {"flows", "--port", "99999"}, "/api/v1/flows?port=99999"},
    {"BadTime", {"flows", "--since", "yesterday"}, "/api/v1/flows?since=yesterday"},
    {"BadOrder", {"flows", "--order", "bytes"}, "/api/v1/flows?order=bytes"},
    {"BadField", {"flows", "--group-by", "polcy"}, "/api/v1/flows?group-by=polcy"},
    {"BadPattern", {"flows", "--policy", "/(/"}, "/api/v1/flows?policy=/(/"},
    {"BadLimit", {"flows", "--limit", "-1"}, "/api/v1/flows?limit=-1"},
    {"Both", {"flows", "--first", "1", "--last", "1"}, "/api/v1/flows?first=1&last=1"},
    {"NoData", {"flows", "--process", "curl"}, "/api/v1/flows?process=curl"},
    {"BadUnused", {"policies", "--unused", "x"}, "/api/v1/policies?unused=x"},
};
INSTANTIATE_TEST_SUITE_P(Api, SameAnswers, ::testing::ValuesIn(kPairs),
                         [](const auto& param_info) { return std::string(param_info.param.title); });

TEST_F(Apis, MistakesThatTheCommandCannotMake) {
  const std::pair<const char*, const char*> cases[] = {
      {"/api/v1/flows?polcy=a", "did you mean policy?"},
      {"/api/v1/flows?limit=0", "expected 1 to 10000"},
      {"/api/v1/flows?limit=10001", "expected 1 to 10000"},
      {"/api/v1/flows?page=x", "what the page before has"},
      {"/api/v1/flows?page=1", "what the page before has"},
      {"/api/v1/flows?first=1&page=1-2", "what the page before has"},
      {"/api/v1/flows?rate=maybe", "expected true or false"},
      {"/api/v1/denied?action=allow", "denied lists what was denied"},
      {"/api/v1/policies?unsed=1h", "did you mean unused?"},
      {"/api/v1/endpoints?x=1", "expected none"},
      {"/api/v1/rules?all=perhaps", "expected true or false"}};
  for (const auto& [target, text] : cases) {
    const http::Response response = ask(target);
    EXPECT_EQ(response.status, 400) << target;
    EXPECT_NE(Json::parse(response.body).at("error").get<std::string>().find(text), std::string::npos)
        << target << ": " << response.body;
  }
  for (const char* target :
       {"/api/v1/flow", "/api/v1/policies/x", "/api/v1/flows/0193-none", "/api/v1/status/x"})
    EXPECT_EQ(ask(target).status, 404) << target;
}

TEST_F(Apis, OneRecordAndTheRest) {
  const Json all = json("/api/v1/flows");
  const std::string id = all["items"][0]["id"];
  EXPECT_EQ(json("/api/v1/flows/" + id)["items"], Json::array({all["items"][0]}));
  EXPECT_EQ(json("/api/v1/status")["node"], "n");
  EXPECT_EQ(json("/api/v1/losses")["items"][0]["cause"], "nflog-gap");
  EXPECT_EQ(json("/api/v1")["version"], "v1");
}

// Records that end at the same time, and new ones while the pages are read.
TEST(Pages, HaveEveryRecordOnce) {
  sample::Folder folder;
  store::FlowStore store = sample::open_store(folder.file("flows.db"));
  const auto put = [&](int from, int count) {
    std::vector<store::FlowRecord> records;
    for (int i = from; i < from + count; ++i) {
      records.push_back(i % 2 == 0 ? sample::denied() : sample::allowed());
      records.back().id = "0193a000-0000-7000-8000-" + std::to_string(100000000000 + i);
      records.back().end = sample::at(i / 7);
      records.back().dst_port = static_cast<std::uint16_t>(1000 + i);
    }
    ASSERT_TRUE(store.insert(records));
  };
  put(0, 100);
  SystemClock clock;
  const Api api(
      folder.file("flows.db"), [] { return nullptr; }, clock);
  const std::pair<const char*, std::size_t> listings[] = {{"/api/v1/flows?limit=9", 100},
                                                          {"/api/v1/flows?limit=9&order=oldest", 107},
                                                          {"/api/v1/flows?limit=9&port=1000-1049", 50},
                                                          {"/api/v1/denied?limit=9", 54}};
  for (const auto& [listing, count] : listings) {
    std::multiset<int> ports;
    std::string page;
    int pages = 0;
    do {
      const http::Response response = api.answer(request_of(listing + (page.empty() ? "" : "&page=" + page)));
      ASSERT_EQ(response.status, 200) << response.body;
      const Json json = Json::parse(response.body);
      for (const Json& item : json["items"]) ports.insert(item["dst_port"].get<int>());
      page = json.value("next", "");
      if (++pages == 3 && std::string(listing) == "/api/v1/flows?limit=9") put(100, 7);
      ASSERT_LT(pages, 30);
    } while (!page.empty());
    EXPECT_EQ(ports.size(), count) << listing;
    EXPECT_EQ(std::set<int>(ports.begin(), ports.end()).size(), count) << listing;
  }
}

TEST(Files, ThatAreReplacedAreReadAnew) {
  sample::Folder folder;
  const std::string path = folder.file("flows.db");
  SystemClock clock;
  const Api api(
      path, [] { return nullptr; }, clock);
  EXPECT_EQ(api.answer(request_of("/api/v1/flows")).status, 404);
  const auto fill = [&](const std::string& file, std::size_t records) {
    store::FlowStore store = sample::open_store(file);
    std::vector<store::FlowRecord> rows(records, sample::allowed());
    for (std::size_t i = 0; i < records; ++i)
      rows[i].id = "0193a000-0000-7000-8000-" + std::to_string(100000000000 + i);
    ASSERT_TRUE(store.insert(rows));
  };
  fill(path, 1);
  const auto count = [&] {
    return Json::parse(api.answer(request_of("/api/v1/flows")).body)["items"].size();
  };
  EXPECT_EQ(count(), 1u);
  fill(folder.file("other.db"), 3);
  for (const char* end : {"-wal", "-shm"}) std::filesystem::remove(path + end);
  std::filesystem::rename(folder.file("other.db"), path);
  for (const char* end : {"-wal", "-shm"})
    if (std::filesystem::exists(folder.file("other.db") + end))
      std::filesystem::rename(folder.file("other.db") + end, path + end);
  EXPECT_EQ(count(), 3u);
  EXPECT_EQ(api.answer(request_of("/api/v1/status")).status, 503) << "not published yet";
}

}  // namespace
}  // namespace tierlog::api
