// Filters by name, as any front end gives them.
#include "query/filters.h"

#include <gtest/gtest.h>

#include "tests/store/sample.h"

namespace tierlog::query {
namespace {

using Parameters = std::vector<std::pair<std::string, std::string>>;
using Field = store::FieldFilter::Field;

const WallTime kNow = store::sample::at(0);

TEST(FilterNames, BecomeAQuery) {
  const auto query = parse_query({{"policy", "a"},
                                  {"policy", "b"},
                                  {"not-namespace", "x"},
                                  {"logged", "true"},
                                  {"since", "1h"},
                                  {"limit", "5"}},
                                 kNow);
  ASSERT_TRUE(query) << query.error().message;
  ASSERT_EQ(query->query.filters.size(), 4u);
  EXPECT_EQ(query->query.filters[2].field, Field::Namespace);
  EXPECT_TRUE(query->query.filters[2].negate);
  EXPECT_EQ(query->query.since, kNow - std::chrono::hours(1));
  EXPECT_EQ(query->query.limit, 5u);
}

TEST(FilterNames, EveryOneOfTheInterfaceIsThere) {
  for (const char* name :
       {"policy",         "tier",         "action",   "rule",    "revision",   "namespace",
        "from-namespace", "to-namespace", "pod",      "from",    "to",         "label",
        "from-label",     "to-label",     "workload", "service", "ip",         "port",
        "protocol",       "direction",    "reporter", "logged",  "unanswered", "staged-action",
        "reason",         "node",         "cluster"})
    EXPECT_NE(find_filter(name), nullptr) << name;
  EXPECT_NE(without_data("process"), nullptr);
  EXPECT_NE(without_data("domain"), nullptr);
}

struct Mistake {
  const char* name;
  Parameters parameters;
  const char* message;
};

class FilterMistakes : public testing::TestWithParam<Mistake> {};

TEST_P(FilterMistakes, SayWhatWasExpected) {
  const auto query = parse_query(GetParam().parameters, kNow);
  ASSERT_FALSE(query);
  EXPECT_EQ(query.error().code, ErrorCode::InvalidArgument);
  EXPECT_NE(query.error().message.find(GetParam().message), std::string::npos) << query.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    All, FilterMistakes,
    testing::Values(Mistake{"unknown", {{"polcy", "a"}}, "did you mean policy?"},
                    Mistake{"no_data", {{"process", "curl"}}, "has no data yet"},
                    Mistake{"not_since", {{"not-since", "1h"}}, "unknown filter"},
                    Mistake{"time", {{"since", "yesterday"}}, "--since \"yesterday\" is not understood"},
                    Mistake{"order", {{"order", "bytes"}}, "add --group-by"},
                    Mistake{"order_word", {{"order", "up"}}, "expected newest, oldest"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Times, AreTakenAsPeopleWriteThem) {
  for (const char* text : {"2026-11-21T20:14:00Z", "2026-11-21T20:14:00.000Z", "2026-11-21 20:14:00",
                           "2026-11-21T20:14", "2026-11-21T21:14:00+01:00"}) {
    const auto query = parse_query({{"since", text}}, kNow);
    ASSERT_TRUE(query) << text;
    EXPECT_EQ(query->query.since, parse_rfc3339("2026-11-21T20:14:00Z")) << text;
  }
  EXPECT_EQ(parse_query({{"since", "2026-11-21"}}, kNow)->query.since, parse_rfc3339("2026-11-21T00:00:00Z"));
  EXPECT_TRUE(parse_query({{"since", "2028-02-29"}}, kNow));
  for (const char* text : {"2026-13-41", "2026-02-29", "2026-04-31T10:00:00Z", "2026-11-21T20:14:00+24:00",
                           "2026-11-21T20:14:00+01:60"})
    EXPECT_FALSE(parse_query({{"since", text}}, kNow)) << text;
}

TEST(Sums, AreAskedForByAnyOfTheirOptions) {
  Range range;
  EXPECT_FALSE(*read_groups(range, {}));
  range.top = "3";
  const auto top = read_groups(range, {});
  ASSERT_TRUE(top && *top);
  EXPECT_EQ((*top)->top, 3u);
  EXPECT_EQ((*top)->fields.size(), 4u);
  range.bins = "0s";
  EXPECT_FALSE(read_groups(range, {}));
  range.bins = "1m";
  range.group_by = "polcy";
  const auto typo = read_groups(range, {});
  ASSERT_FALSE(typo);
  EXPECT_NE(typo.error().message.find("did you mean policy?"), std::string::npos);
}

}  // namespace
}  // namespace tierlog::query
