// store/groups.h - sums over records by what they have in common: --group-by, --top, --bins, --rate.
//
//   query/filters.h --[GroupQuery]--> FlowReader::groups --> one SQL statement over table flow,
//   or the sums beside it (store/rollup_groups.h) where they tell the same
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/query.h"

namespace tierlog::store {

// What records are told apart by. Peers are named as people name them: "ns/pod", "node n1", an address.
struct GroupField {
  // What it is made of, which says whether sums beside the rows tell it (store/rollups.h).
  enum class Of : std::uint8_t { Row, Slice, Rule, From, To };  // Slice: action, reporter, and the file's origin

  const char* name;  // "from-workload", as typed
  const char* sql;   // over flow AS f, peer AS s and d, rule_revision AS r; texts, '' = none
  Of of = Of::Row;
  bool is_reporter = false;  // tells the two views of a local connection apart
};

// All there are, in the order in which help texts list them.
std::vector<std::string_view> group_field_names();
// "policy,tier,rule" -> fields. Errors: InvalidArgument, with the nearest known name.
Result<std::vector<const GroupField*>> parse_group_fields(std::string_view text);

struct GroupQuery {
  enum class Order : std::uint8_t { Newest, Oldest, Records, Connections, Packets, Bytes, Name };

  FlowQuery flows;                        // filters and time range; its limit and order are not used
  std::vector<const GroupField*> fields;  // empty: one group of all
  std::optional<Order> order;             // default: bytes, then packets, descending
  std::size_t top = 0;                    // 0 = all
  std::optional<Nanoseconds> bin;         // sums by time as well
  bool rate = false;
  bool from_rows = false;  // sums that are kept beside the rows are not asked: for those who compare
};

struct Sums {
  std::uint64_t records = 0;
  std::uint64_t connections = 0;     // allowed ones, as they begin
  std::uint64_t denied_packets = 0;  // counted exactly
  std::uint64_t packets = 0;         // both ways where they were measured
  std::uint64_t bytes_out = 0, bytes_in = 0;

  void add(const Sums& other);
};

struct FlowSums {
  std::vector<std::string> names;  // one a field
  Sums sums;
  WallTime first{}, last{};
  std::vector<Sums> bins;  // one a bin of GroupResult, when bins were asked for
};

struct GroupResult {
  std::vector<FlowSums> groups;
  std::size_t all = 0;  // groups before --top cut them
  FlowSums total;       // over all groups, the cut ones too
  // The time that the sums are about: what was asked for, else from the first record to the last.
  WallTime from{}, until{};
  Nanoseconds bin{};  // width; 0 = none
};

// At most so many bins: a width that gives more is refused.
inline constexpr std::size_t kMaxBins = 10'000;

}  // namespace tierlog::store
