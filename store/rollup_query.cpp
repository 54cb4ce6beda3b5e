#include "store/rollup_query.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

namespace tierlog::store {
namespace {

constexpr std::int64_t kForEver = std::numeric_limits<std::int64_t>::max();
constexpr int kDeny = static_cast<int>(Verdict::Deny);

// Instants from `from` up to, not including, `to`.
struct Span {
  std::int64_t from = 0, to = 0;
  bool empty() const { return from >= to; }
};

// A range as buckets of some widths, and what is left for the rows themselves.
struct Cover {
  struct Piece {
    std::size_t level;
    Span span;
  };
  std::vector<Piece> pieces;
  std::vector<Span> edges;
  const RollupReach& reach;
  std::int64_t bin;

  // Of that width and narrower ones.
  void add(const Span& span, std::size_t levels) {
    if (span.empty()) return;
    if (levels == 0) return edges.push_back(span);
    const std::size_t level = levels - 1;
    const std::int64_t width = kRollupWidths[level];
    if (bin % width != 0) return add(span, level);
    // The last bucket holds what ended before `reach`: with a range that goes further it may be read as it is.
    const Span whole{ceil_to(span.from, width),
                     span.to >= reach[level] ? reach[level] : floor_to(span.to, width)};
    if (whole.empty()) return add(span, level);
    pieces.push_back({level, whole});
    add({span.from, whole.from}, level);
    add({whole.to, span.to}, level);
  }
};

class Scan {
 public:
  Scan(sqlite::Database& database, const RollupRange& range, const RollupSlices& slices,
       const std::function<void(const RollupRow&)>& take)
      : database_(database),
        slices_(slices),
        take_(take),
        bin_(range.bin.count()),
        all_{range.since ? to_ns(*range.since) : 0, range.until ? to_ns(*range.until) + 1 : kForEver} {
    if (all_.empty()) all_.to = all_.from;
    only_denied_ = !slices[0][0] && !slices[0][1] && !slices[0][2];
  }

  Result<void> run() {
    const std::string number = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ";
    TL_ASSIGN(rolled_, database_.integer(number + "'rolled_sequence'"));
    TL_ASSIGN(const std::int64_t eroded, database_.integer(number + "'eroded_ns'"));
    // Whole buckets are read where none of their records is gone.
    const std::int64_t from = std::min(std::max(all_.from, eroded + 1), all_.to);
    std::vector<Span> edges;
    for (const RollupTable& table : kRollupTables) {
      if (!is_asked(table.peer)) continue;
      TL_ASSIGN(const RollupReach reach, read_rollup_reach(database_, table));
      Cover cover{{}, {}, reach, bin_};
      cover.add({all_.from, from}, 0);
      cover.add({from, all_.to}, kRollupLevels);
      TL_TRY(sums(table, cover));
      edges = cover.edges;  // the same for each table: minutes reach everywhere
    }
    for (const Span& edge : edges) TL_TRY(rows_by_time(edge));
    return unrolled_rows();
  }

 private:
  bool is_asked(RollupPeer peer) const {
    for (const auto& of_action : slices_)
      for (const auto& slice : of_action)
        if (slice == peer) return true;
    return false;
  }

  Result<void> sums(const RollupTable& table, const Cover& cover) {
    TL_ASSIGN(auto select, prepare_rollup_scan(database_, table));
    RollupRow row;
    for (row.action = 0; row.action < 2; ++row.action)
      for (row.view = 0; row.view < kRollupViews; ++row.view) {
        if (slice(row.action, row.view) != table.peer) continue;
        for (const Cover::Piece& piece : cover.pieces) {
          const std::int64_t width = kRollupWidths[piece.level];
          const std::int64_t past = piece.span.to == kForEver ? kForEver : ceil_to(piece.span.to, width) / width;
          select.bind(width / kRollupSecondNs, row.action, row.view, piece.span.from / width, past);
          TL_TRY(scan_rollups(select, width, [&](std::int64_t begin, const KeySums& sums) {
            row.time_ns = begin;
            row.peer = sums.peer;
            row.rule = sums.rule;
            row.first_ns = sums.first_ns;
            row.last_ns = sums.last_ns;
            row.sums = sums.sums;
            take_(row);
          }));
        }
      }
    return {};
  }

  const std::optional<RollupPeer>& slice(int action, int view) const {
    return slices_[static_cast<std::size_t>(action)][static_cast<std::size_t>(view)];
  }

  Result<void> rows_by_time(const Span& span) {
    TL_ASSIGN(auto select, database_.prepare(std::string("SELECT ") + kRolledColumns + " FROM flow AS f INDEXED BY " +
                                             (only_denied_ ? "flow_denied_end" : "flow_end") +
                                             " WHERE f.end_ns >= ?1 AND f.end_ns < ?2 AND +f.seq <= ?3" +
                                             (only_denied_ ? " AND f.action = 1" : "")));
    select.bind(span.from, span.to, rolled_);
    return rows_of(select);
  }
  // The + keeps these rows from being looked for by time: they are the last of the table.
  Result<void> unrolled_rows() {
    TL_ASSIGN(auto select, database_.prepare(std::string("SELECT ") + kRolledColumns +
                                             " FROM flow AS f WHERE f.seq > ?1 AND +f.end_ns >= ?2 AND +f.end_ns < ?3" +
                                             (only_denied_ ? " AND +f.action = 1" : "")));
    select.bind(rolled_, all_.from, all_.to);
    return rows_of(select);
  }

  Result<void> rows_of(sqlite::Statement& select) {
    for (;;) {
      TL_ASSIGN(const bool more, select.step());
      if (!more) return {};
      const RolledRow row = read_rolled_row(select, 0);
      const auto& peer = slice(row.action == kDeny ? 1 : 0, row.view);
      if (!peer) continue;
      take_({row.end_ns, row.action, row.view, row.rule,
             *peer == RollupPeer::None     ? 0
             : *peer == RollupPeer::Source ? row.src
                                           : row.dst,
             row.sums, row.end_ns - row.span_ns, row.end_ns});
    }
  }

  sqlite::Database& database_;
  const RollupSlices& slices_;
  const std::function<void(const RollupRow&)>& take_;
  std::int64_t bin_;
  Span all_;
  bool only_denied_ = false;
  std::int64_t rolled_ = 0;
};

}  // namespace

Result<void> read_rollups(sqlite::Database& database, const RollupRange& range, const RollupSlices& slices,
                          const std::function<void(const RollupRow&)>& take) {
  if (range.bin.count() < 0 || range.bin.count() % kMinuteNs != 0)
    return fail(ErrorCode::InvalidArgument,
                "bins of " + format_duration(range.bin) + "; expected a whole number of minutes");
  return Scan(database, range, slices, take).run();
}

}  // namespace tierlog::store
