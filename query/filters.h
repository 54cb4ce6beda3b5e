// query/filters.h - the filters of the flow records by their names: one table for every way to ask.
//
//   cli/ options, HTTP parameters --(name, value)--> [FlowQuery] --> store/query.h
//
// Nothing here knows a command line: a filter is a name ("from-namespace"), values and whether it is
// negated. Values of one name are ORed, names are ANDed.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/groups.h"
#include "store/query.h"

namespace tierlog::query {

struct FilterSpec {
  store::FieldFilter::Field field;
  const char* name;   // without "--"
  const char* value;  // what a value stands for in help texts; nullptr: a flag
  const char* help;
};
std::span<const FilterSpec> filters();
// nullptr when there is none; "not-NAME" is not a name of its own.
const FilterSpec* find_filter(std::string_view name);

// Filters that records hold no data for: what to say when somebody asks. nullptr: not one of these.
const char* without_data(std::string_view name);

// Which part of the records, and in which form: texts as typed, absent = not asked for.
struct Range {
  std::optional<std::string> since, until, limit, first, last, order;
  std::optional<std::string> group_by, top, bins;
  bool rate = false;
};

// Fills the query's time range, number of rows and order.
// Errors: InvalidArgument with a sentence ("--since \"yesterday\" is not understood; expected …").
Result<void> apply_range(const Range& range, WallTime now, store::FlowQuery& query);

// What --group-by, --top, --bins, --order and --rate ask for; nothing when sums are not asked for.
Result<std::optional<store::GroupQuery>> read_groups(const Range& range, const store::FlowQuery& query);

struct Parsed {
  store::FlowQuery query;
  Range range;
};

// All at once, from names and values: filters ("not-" in front negates; a flag's value is "true", "false" or
// nothing), since, until, limit, first, last, order, group-by, top, bins, rate. "_" stands for "-", so that the keys
// of records are names too. Errors: InvalidArgument, also for a name that is unknown, with the nearest known one.
Result<Parsed> parse_query(const std::vector<std::pair<std::string, std::string>>& parameters, WallTime now);

}  // namespace tierlog::query
