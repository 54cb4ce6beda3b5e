#include "store/rollup_query.h"

#include <algorithm>
#include <limits>

namespace tierlog::store {
namespace {

constexpr std::int64_t kForEver = std::numeric_limits<std::int64_t>::max();
constexpr const char* kSums =
    "records, connections, verdict_packets, packets_out, packets_in, bytes_out, bytes_in";
constexpr const char* kSumOfEach =
    "sum(records), sum(connections), sum(verdict_packets), sum(packets_out), sum(packets_in), sum(bytes_out),"
    " sum(bytes_in)";
constexpr const char* kSumNames[] = {"records",    "connections", "verdict_packets", "packets_out",
                                     "packets_in", "bytes_out",   "bytes_in"};

// Instants from `from` up to, not including, `to`.
struct Span {
  std::int64_t from = 0, to = 0;
  bool empty() const { return from >= to; }
};

std::int64_t floor_to(std::int64_t ns, std::int64_t width) {
  const std::int64_t rest = ns % width;
  return ns - (rest < 0 ? rest + width : rest);
}
std::int64_t ceil_to(std::int64_t ns, std::int64_t width) {
  const std::int64_t down = floor_to(ns, width);
  return down == ns ? ns : down + width;
}

// The part of `span` that is whole buckets; an end at the end of time is one.
Span whole_buckets(const Span& span, std::int64_t width) {
  Span whole{ceil_to(span.from, width), span.to == kForEver ? kForEver : floor_to(span.to, width)};
  if (whole.empty()) whole = {span.to, span.to};
  return whole;
}

std::string n(std::int64_t value) {
  return std::to_string(value);
}

// SQL for all of one range.
class Rows {
 public:
  // Whole buckets are read where none of their records is gone.
  Rows(RollupPeer peer, const RollupRange& range, std::int64_t rolled, std::int64_t eroded)
      : peer_(peer), rolled_(rolled), deny_(range.action == Verdict::Deny) {
    // Both actions, one by one: each is one stretch of a roll-up's key.
    if (range.action) actions_ = {static_cast<int>(*range.action)};
    all_ = {range.since ? to_ns(*range.since) : 0, range.until ? to_ns(*range.until) + 1 : kForEver};
    if (all_.empty()) all_.to = all_.from;
    const Span minutes =
        whole_buckets({std::min(std::max(all_.from, eroded + 1), all_.to), all_.to}, kMinuteNs);
    const bool hours_serve = range.bin.count() % kHourNs == 0;
    const Span hours = hours_serve ? whole_buckets(minutes, kHourNs) : Span{minutes.to, minutes.to};
    table_rows(kHourNs, hours);
    table_rows(kMinuteNs, {minutes.from, hours.from});
    table_rows(kMinuteNs, {hours.to, minutes.to});
    edge_rows({all_.from, minutes.from});
    edge_rows({minutes.to, all_.to});
    unrolled_rows();
  }
  std::string sql() const { return "(" + sql_ + ")"; }

 private:
  void append(const std::string& select) { sql_ += (sql_.empty() ? "" : " UNION ALL ") + select; }

  void table_rows(std::int64_t width, const Span& span) {
    if (span.empty()) return;
    for (const RollupTable& table : kRollupTables) {
      if (table.peer != peer_ || table.width_ns != width) continue;
      const std::string peer = peer_ == RollupPeer::None ? "0 AS peer" : "peer";
      for (const int action : actions_)
        append("SELECT bucket * " + n(width) + " AS time_ns, action, reporter, rule, " + peer + ", " + kSums +
               ", first_ns, last_ns FROM " + table.name + " WHERE action = " + n(action) + " AND bucket >= " +
               n(span.from / width) + (span.to == kForEver ? "" : " AND bucket < " + n(span.to / width)));
    }
  }

  std::string of_rows() const {
    const char* peer = peer_ == RollupPeer::None ? "0" : peer_ == RollupPeer::Source ? "f.src" : "f.dst";
    return std::string(
               "SELECT f.end_ns AS time_ns, f.action AS action, f.reporter AS reporter, f.rule AS rule, ") +
           peer +
           " AS peer, 1 AS records, coalesce(f.connections, 0) AS connections,"
           " f.verdict_packets AS verdict_packets, "
           " coalesce(f.packets_out, iif(f.action = 1, f.verdict_packets, 0)) AS packets_out,"
           " coalesce(f.packets_in, 0) AS packets_in, coalesce(f.bytes_out, 0) AS bytes_out,"
           " coalesce(f.bytes_in, 0) AS bytes_in, f.end_ns - f.span_ns AS first_ns, f.end_ns AS last_ns FROM "
           "flow AS f";
  }
  std::string of_actions() const {
    return actions_.size() > 1 ? "" : " AND f.action = " + n(actions_.front());
  }

  void edge_rows(const Span& span) {
    if (span.empty()) return;
    append(of_rows() + (deny_ ? " INDEXED BY flow_denied_end" : " INDEXED BY flow_end") +
           " WHERE f.end_ns >= " + n(span.from) + " AND f.end_ns < " + n(span.to) + of_actions() +
           " AND +f.seq <= " + n(rolled_));
  }
  // The + keeps these rows from being looked for by time: they are the last of the table.
  void unrolled_rows() {
    append(of_rows() + " WHERE f.seq > " + n(rolled_) + " AND +f.end_ns >= " + n(all_.from) +
           (all_.to == kForEver ? "" : " AND +f.end_ns < " + n(all_.to)) +
           (deny_ ? " AND +f.action = 1" : of_actions()));
  }

  RollupPeer peer_;
  std::int64_t rolled_;
  bool deny_;
  std::vector<int> actions_{0, 1};
  Span all_;
  std::string sql_;
};

Result<std::vector<RollupLine>> lines(sqlite::Database& database, const std::string& sql) {
  TL_ASSIGN(auto select, database.prepare(sql));
  std::vector<RollupLine> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    RollupLine line;
    line.key = select.integer(0);
    for (std::size_t i = 0; i < kRollupSums; ++i) line.sums[i] = select.integer(static_cast<int>(i) + 1);
    found.push_back(line);
  }
}

}  // namespace

Result<std::string> rollup_rows(sqlite::Database& database, RollupPeer peer, const RollupRange& range) {
  if (range.bin.count() < 0 || range.bin.count() % kMinuteNs != 0)
    return fail(ErrorCode::InvalidArgument,
                "bins of " + format_duration(range.bin) + "; expected a whole number of minutes");
  TL_ASSIGN(const std::int64_t rolled,
            database.integer("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'rolled_sequence'"));
  TL_ASSIGN(const std::int64_t eroded,
            database.integer("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'eroded_ns'"));
  return Rows(peer, range, rolled, eroded).sql();
}

Result<std::vector<RollupLine>> top_peers(sqlite::Database& database, RollupPeer peer,
                                          const RollupRange& range, const std::string& where, RollupSum by,
                                          std::size_t limit) {
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(database, "DEFERRED"));
  TL_ASSIGN(const std::string rows, rollup_rows(database, peer, range));
  const std::string sum = std::string("sum(") + kSumNames[by] + ")";
  return lines(database, "SELECT peer, " + std::string(kSumOfEach) + " FROM " + rows + " WHERE " + where +
                             " GROUP BY peer ORDER BY " + sum + " DESC, peer LIMIT " + std::to_string(limit));
}

Result<std::vector<RollupLine>> histogram(sqlite::Database& database, const RollupRange& range,
                                          const std::string& where) {
  if (range.bin.count() <= 0) return fail(ErrorCode::InvalidArgument, "a histogram without bins");
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(database, "DEFERRED"));
  TL_ASSIGN(const std::string rows, rollup_rows(database, RollupPeer::None, range));
  const std::string width = std::to_string(range.bin.count());
  return lines(database, "SELECT time_ns / " + width + " * " + width + " AS bin, " + kSumOfEach + " FROM " +
                             rows + " WHERE " + where + " GROUP BY bin ORDER BY bin");
}

}  // namespace tierlog::store
