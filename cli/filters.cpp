#include "cli/filters.h"

#include "query/listing.h"
#include "store/groups.h"

namespace tierlog::cli {
namespace {

constexpr const char* kGroup = "Filters (several values: repeat or use commas; --not negates the next one)";

}  // namespace

void add_filter_options(std::vector<Option>& options, FilterOptions& filters, std::string_view without) {
  for (const query::FilterSpec& spec : query::filters()) {
    if (spec.name == without) continue;
    for (const bool negate : {false, true}) {
      auto& given = filters.given.emplace_back();
      given.field = spec.field;
      given.negate = negate;
      Binding into = &given.values;
      if (spec.value == nullptr) into = &given.flag;
      options.push_back({std::string(negate ? "--not-" : "--") + spec.name,
                         spec.value == nullptr ? "" : spec.value, spec.help, into, kGroup, false, negate});
    }
  }
  options.push_back(
      {"--process", "NAME", "has no data yet: records hold no process", &filters.process, kGroup});
  options.push_back({"--domain", "NAME", "has no data yet: records hold no domain", &filters.domain, kGroup});
}

void add_time_options(std::vector<Option>& options, FilterOptions& filters) {
  const std::string group = "Which part";
  options.push_back(
      {"--since", "WHEN", "from then on: 15m, 1.5h, 7d, 2w ago, or an RFC 3339 time", &filters.range.since, group});
  options.push_back({"--until", "WHEN", "up to then, in the same forms", &filters.range.until, group});
}

void add_range_options(std::vector<Option>& options, FilterOptions& filters) {
  const std::string group = "Which part";
  add_time_options(options, filters);
  options.push_back({"--limit", "N", "at most N rows (default 100, 0 = all)", &filters.range.limit, group});
  options.push_back({"--first", "N", "the N oldest, oldest first", &filters.range.first, group});
  options.push_back({"--last", "N", "the N newest", &filters.range.last, group});
  options.push_back({"--order", "ORDER",
                     "newest or oldest; of sums also records, connections, packets, bytes, name",
                     &filters.range.order, group});
}

void add_sum_options(std::vector<Option>& options, FilterOptions& filters) {
  const std::string group = "Sums instead of records";
  std::string fields;
  for (const std::string_view field : store::group_field_names())
    fields += (fields.empty() ? "" : ", ") + std::string(field);
  options.push_back(
      {"--group-by", "FIELDS", "a line for each combination of: " + fields, &filters.range.group_by, group});
  options.push_back({"--top", "N", "the N largest; without --group-by by from, to, port and action",
                     &filters.range.top, group});
  options.push_back({"--bins", "WIDTH", "by time too: 1m, 1h; a sparkline in the table, a list in JSON",
                     &filters.range.bins, group});
  options.push_back({"--rate", "", "adds what that is per second", &filters.range.rate, group});
}

Result<store::FlowQuery> to_query(const FilterOptions& filters, WallTime now) {
  if (!filters.process.empty()) return fail(ErrorCode::InvalidArgument, query::without_data("process"));
  if (!filters.domain.empty()) return fail(ErrorCode::InvalidArgument, query::without_data("domain"));
  store::FlowQuery asked;
  for (const FilterOptions::Given& given : filters.given) {
    if (given.flag) asked.filters.push_back({given.field, {}, given.negate});
    for (const std::string& text : given.values) asked.filters.push_back({given.field, {text}, given.negate});
  }
  TL_TRY(query::apply_range(filters.range, now, asked));
  return asked;
}

std::string range_text(const FilterOptions& filters, const store::FlowQuery& query) {
  return query::range_text(filters.range, query);
}

bool restricts(const FilterOptions& filters) {
  for (const auto& given : filters.given)
    if (given.flag || !given.values.empty()) return true;
  return filters.range.since || filters.range.until;
}

}  // namespace tierlog::cli
