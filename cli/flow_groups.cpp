#include "cli/flow_groups.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "cli/format.h"
#include "query/items.h"
#include "query/listing.h"

namespace tierlog::cli {
namespace {

using query::seconds_of;
using store::FlowSums;
using store::GroupQuery;
using store::GroupResult;
using store::Sums;

constexpr std::size_t kSparkWidth = 30;

std::string title_of(std::string_view field) {
  std::string title(field);
  for (char& c : title) c = c == '-' ? ' ' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return title;
}

std::string per_second(std::uint64_t count, double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g/s", static_cast<double>(count) / seconds);
  return text;
}

std::string bytes_per_second(std::uint64_t bytes, double seconds) {
  return bytes_text(static_cast<std::uint64_t>(static_cast<double>(bytes) / seconds)) + "/s";
}

// What a bin's height stands for: bytes where any were measured, else judged packets.
std::uint64_t height(const Sums& sums, bool by_bytes) {
  return by_bytes ? sums.bytes_out + sums.bytes_in : sums.connections + sums.denied_packets;
}

std::vector<std::uint64_t> heights(const std::vector<Sums>& bins, bool by_bytes) {
  std::vector<std::uint64_t> values;
  for (const Sums& bin : bins) values.push_back(height(bin, by_bytes));
  return values;
}

std::vector<Column> columns(const GroupQuery& query) {
  std::vector<Column> list;
  for (const store::GroupField* field : query.fields)
    list.push_back({title_of(field->name), Align::Left, 10, Cut::Middle, 0, false, 0, 0});
  const auto number = [&](const char* title, bool wide = false) {
    list.push_back({title, Align::Right, 0, Cut::End, 0, wide, 0, 0});
  };
  number("CONNS");
  number("DENIED");
  number("BYTES OUT");
  number("BYTES IN");
  number("RECORDS", true);
  number("PACKETS", true);
  if (query.rate) {
    number("CONNS/S");
    number("DENIED/S");
    number("BYTES/S");
  }
  if (query.bin) list.push_back({"OVER TIME", Align::Left, 8, Cut::Start, 0, false, 0, 0});
  list.push_back({"LAST", Align::Left, 0, Cut::End, 0, true, 0, 0});
  return list;
}

std::vector<Cell> cells(const GroupQuery& query, const GroupResult& result, const FlowSums& group,
                        bool by_bytes) {
  std::vector<Cell> row;
  for (const std::string& name : group.names) row.emplace_back(or_dash(name));
  row.emplace_back(with_commas(group.sums.connections),
                   group.sums.connections > 0 ? Style::Allow : Style::Plain);
  row.emplace_back(with_commas(group.sums.denied_packets),
                   group.sums.denied_packets > 0 ? Style::Deny : Style::Plain);
  for (const std::uint64_t bytes : {group.sums.bytes_out, group.sums.bytes_in})
    row.emplace_back(bytes_text(bytes));
  row.emplace_back(with_commas(group.sums.records));
  row.emplace_back(with_commas(group.sums.packets));
  if (query.rate) {
    const double seconds = seconds_of(result);
    row.emplace_back(per_second(group.sums.connections, seconds));
    row.emplace_back(per_second(group.sums.denied_packets, seconds));
    row.emplace_back(bytes_per_second(group.sums.bytes_out + group.sums.bytes_in, seconds));
  }
  if (query.bin) row.emplace_back(sparkline(heights(group.bins, by_bytes), kSparkWidth));
  row.emplace_back(format_for_people(group.last));
  return row;
}

}  // namespace

std::string sparkline(const std::vector<std::uint64_t>& values, std::size_t width) {
  static constexpr std::array<const char*, 8> kBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::size_t per = std::max<std::size_t>(1, (values.size() + width - 1) / width);
  std::vector<std::uint64_t> sums((values.size() + per - 1) / per, 0);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i / per] += values[i];
  const std::uint64_t highest = sums.empty() ? 0 : *std::max_element(sums.begin(), sums.end());
  std::string text;
  for (const std::uint64_t value : sums)
    text += value == 0
                ? " "
                : kBars[std::min<std::size_t>(7, static_cast<std::size_t>(8.0 * static_cast<double>(value) /
                                                                          static_cast<double>(highest)))];
  return text;
}

Listing group_listing(const GroupQuery& query, const GroupResult& result) {
  Listing listing(columns(query));
  const Sums& all = result.total.sums;
  const bool by_bytes = all.bytes_out + all.bytes_in > 0;
  for (const FlowSums& group : result.groups) {
    listing.table.add(cells(query, result, group, by_bytes));
    listing.items.push_back(query::item_of(query, result, group));
  }
  listing.notes = query::notes_of(query, result);
  listing.summary = counted(all.connections, "connection") + ", " +
                    counted(all.denied_packets, "denied packet") + ", " + bytes_text(all.bytes_out) +
                    " out, " + bytes_text(all.bytes_in) + " in";
  return listing;
}

}  // namespace tierlog::cli
