#include "cli/filters.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"
#include "cli/exit_code.h"

namespace tierlog::cli {
namespace {

using Field = store::FieldFilter::Field;
using Words = std::vector<std::string>;

// A command that has the filters and keeps what it was run with.
struct Listing {
  FilterOptions filters;
  Result<store::FlowQuery> query = fail(ErrorCode::Io, "not run");
  WallTime now = *parse_rfc3339("2026-11-21T20:00:00Z");

  int run(Words words) {
    Command command;
    command.name = "flows";
    add_range_options(command.options, filters);
    add_filter_options(command.options, filters);
    command.run = [this] {
      query = to_query(filters, now);
      return kDone;
    };
    words.insert(words.begin(), "flows");
    return run_command({command}, words);
  }
};

TEST(Filters, EachOptionIsOneFilterWithItsValues) {
  Listing listing;
  ASSERT_EQ(listing.run({"--port", "80,443", "--port=8080", "--to", "tenant-01/db"}), kDone);
  ASSERT_TRUE(listing.query);
  ASSERT_EQ(listing.query->filters.size(), 3u);
  std::vector<Words> ports;
  for (const auto& filter : listing.query->filters) {
    EXPECT_FALSE(filter.negate);
    if (filter.field == Field::Port) ports.push_back(filter.values);
    if (filter.field == Field::To) {
      EXPECT_EQ(filter.values, Words({"tenant-01/db"}));
    }
  }
  EXPECT_EQ(ports, (std::vector<Words>{{"80,443"}, {"8080"}}));
}

struct NotCase {
  const char* name;
  Words words;
  std::vector<std::pair<Field, bool>> expected;  // in the order of fields
};

class Negation : public testing::TestWithParam<NotCase> {};

TEST_P(Negation, HoldsForTheNextOptionOnly) {
  Listing listing;
  ASSERT_EQ(listing.run(GetParam().words), kDone);
  ASSERT_TRUE(listing.query) << listing.query.error().message;
  std::vector<std::pair<Field, bool>> found;
  for (const auto& filter : listing.query->filters) found.emplace_back(filter.field, filter.negate);
  EXPECT_EQ(found, GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Words, Negation,
                         testing::Values(NotCase{"first",
                                                 {"--not", "--tier", "a", "--port", "1"},
                                                 {{Field::Tier, true}, {Field::Port, false}}},
                                         NotCase{"second",
                                                 {"--tier", "a", "--not", "--port", "1"},
                                                 {{Field::Tier, false}, {Field::Port, true}}},
                                         NotCase{"equals", {"--not", "--port=1"}, {{Field::Port, true}}},
                                         NotCase{"flag", {"--not", "--logged"}, {{Field::Logged, true}}},
                                         NotCase{"both",
                                                 {"--not", "--tier", "a", "--not", "--port", "1"},
                                                 {{Field::Tier, true}, {Field::Port, true}}},
                                         NotCase{"same_twice",
                                                 {"--port", "1", "--not", "--port", "2"},
                                                 {{Field::Port, false}, {Field::Port, true}}}),
                         [](const auto& test) { return std::string(test.param.name); });

struct RangeCase {
  const char* name;
  Words words;
  const char* since;  // nullptr: none
  std::size_t limit;
  bool oldest_first;
  const char* text;
};

class Ranges : public testing::TestWithParam<RangeCase> {};

TEST_P(Ranges, AreUnderstood) {
  const RangeCase& expected = GetParam();
  Listing listing;
  ASSERT_EQ(listing.run(expected.words), kDone);
  ASSERT_TRUE(listing.query) << listing.query.error().message;
  const store::FlowQuery& query = *listing.query;
  EXPECT_EQ(query.since, expected.since == nullptr ? std::nullopt : parse_rfc3339(expected.since));
  EXPECT_EQ(query.limit, expected.limit);
  EXPECT_EQ(query.oldest_first, expected.oldest_first);
  EXPECT_EQ(range_text(listing.filters, query), expected.text);
}

INSTANTIATE_TEST_SUITE_P(
    Options, Ranges,
    testing::Values(
        RangeCase{"none", {}, nullptr, 100, false, ""},
        RangeCase{"hour", {"--since", "1h"}, "2026-11-21T19:00:00Z", 100, false, " in the last hour"},
        RangeCase{"minutes", {"--since", "15m"}, "2026-11-21T19:45:00Z", 100, false, " in the last 15 min"},
        RangeCase{"instant",
                  {"--since", "2026-11-20T00:00:00Z"},
                  "2026-11-20T00:00:00Z",
                  100,
                  false,
                  " since 2026-11-20 00:00:00"},
        RangeCase{"until", {"--until", "1h"}, nullptr, 100, false, " until 2026-11-21 19:00:00"},
        RangeCase{"limit_all", {"--limit", "0"}, nullptr, 0, false, ""},
        RangeCase{"first", {"--first", "5"}, nullptr, 5, true, ""},
        RangeCase{"last", {"--last", "7"}, nullptr, 7, false, ""}),
    [](const auto& test) { return std::string(test.param.name); });

struct BadCase {
  const char* name;
  Words words;
  const char* expected;  // part of the sentence
};

class BadFilters : public testing::TestWithParam<BadCase> {};

TEST_P(BadFilters, SayWhatWasExpected) {
  Listing listing;
  ASSERT_EQ(listing.run(GetParam().words), kDone);
  ASSERT_FALSE(listing.query);
  EXPECT_EQ(listing.query.error().code, ErrorCode::InvalidArgument);
  EXPECT_NE(listing.query.error().message.find(GetParam().expected), std::string::npos)
      << listing.query.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Options, BadFilters,
    testing::Values(
        BadCase{"since", {"--since", "yesterday"}, "--since \"yesterday\" is not understood; expected 15m"},
        BadCase{"reversed", {"--since", "1h", "--until", "2h"}, "nothing can be between them"},
        BadCase{"limit", {"--limit", "many"}, "--limit \"many\""},
        BadCase{"first_zero", {"--first", "0"}, "a number from 1"},
        BadCase{"first_and_last", {"--first", "1", "--last", "1"}, "exclude each other"},
        BadCase{"process", {"--process", "curl"}, "--process has no data yet"},
        BadCase{"domain", {"--domain", "example.org"}, "--domain has no data yet"}),
    [](const auto& test) { return std::string(test.param.name); });

class BadUsage : public testing::TestWithParam<BadCase> {};

TEST_P(BadUsage, IsRefusedWithASentence) {
  Listing listing;
  testing::internal::CaptureStderr();
  EXPECT_EQ(listing.run(GetParam().words), kBadInput);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find(GetParam().expected), std::string::npos) << said;
}

INSTANTIATE_TEST_SUITE_P(
    Words, BadUsage,
    testing::Values(BadCase{"not_at_the_end", {"--not"}, "nothing follows it"},
                    BadCase{"not_before_a_range", {"--not", "--since", "1h"}, "\"--since\" is no filter"},
                    BadCase{"not_before_a_value", {"--not", "allow"}, "\"allow\" is no filter"},
                    BadCase{"unknown_option", {"--polcy", "x"}, "did you mean --policy?"},
                    BadCase{"no_value", {"--port"}, "--port"},
                    BadCase{"too_many", {"x"}, "\"x\" is one argument too many"}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace tierlog::cli
