// cli/filters.h - the filter options of `flows` and `denied` and what they ask of the flow index.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "cli/command.h"
#include "query/filters.h"
#include "store/query.h"

namespace tierlog::cli {

struct FilterOptions {
  // One for each filter and its negation; a deque, since options keep the addresses.
  struct Given {
    store::FieldFilter::Field field{};
    bool negate = false;
    std::vector<std::string> values;  // as typed, one entry an option
    bool flag = false;
  };
  std::deque<Given> given;
  std::vector<std::string> process, domain;
  query::Range range;
};

// `without`: the name of a filter that the command decides itself.
void add_filter_options(std::vector<Option>& options, FilterOptions& filters, std::string_view without = {});
void add_range_options(std::vector<Option>& options, FilterOptions& filters);
// --since and --until alone.
void add_time_options(std::vector<Option>& options, FilterOptions& filters);
// --group-by, --top, --bins, --rate.
void add_sum_options(std::vector<Option>& options, FilterOptions& filters);

// What was asked for. Errors: InvalidArgument with a sentence.
Result<store::FlowQuery> to_query(const FilterOptions& filters, WallTime now);

// " in the last hour", " since 2026-…", "": the time range as the end of a sentence.
std::string range_text(const FilterOptions& filters, const store::FlowQuery& query);
bool restricts(const FilterOptions& filters);  // any filter or time range was given

}  // namespace tierlog::cli
