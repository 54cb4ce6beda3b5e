#include "store/sightings.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "store/groups.h"
#include "store/rollup_groups.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;
using Of = GroupField::Of;

// Days that are looked through at once; of narrower buckets as many.
constexpr std::int64_t kBucketsAtOnce = 8;

// Of the filters that no sum tells by itself, those that choose peers of either side.
bool is_either(const FieldFilter& filter) {
  switch (filter.field) {
    case Field::Pod:
    case Field::Namespace:
    case Field::Label:
    case Field::Workload:
    case Field::Ip:
      return !filter.negate;
    default:
      return false;
  }
}

// What the filters leave of a dictionary; `of_all`: "SELECT f.src FROM (SELECT id AS src FROM peer) AS f
// WHERE ".
Result<std::unordered_set<std::int64_t>> left_of(sqlite::Database& database, std::vector<FieldFilter> filters,
                                                 const Origin& origin, const char* of_all) {
  FlowQuery part;
  part.filters = std::move(filters);
  TL_ASSIGN(const WhereClause where, WhereClause::of(part, origin));
  TL_ASSIGN(auto select, database.prepare(of_all + where.sql()));
  where.bind(select);
  std::unordered_set<std::int64_t> left;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return left;
    left.insert(select.integer(0));
  }
}

// The conditions, of which none leads the planner by time.
Result<WhereClause> where_by_hand(const FlowQuery& query, const Origin& origin) {
  FlowQuery timeless = query;
  timeless.since = timeless.until = std::nullopt;
  timeless.behind = std::nullopt;
  TL_ASSIGN(WhereClause where, WhereClause::of(timeless, origin));
  std::string sql = "(" + where.sql() + ")";
  if (query.since) sql += " AND +f.end_ns >= " + where.add(to_ns(*query.since));
  if (query.until) sql += " AND +f.end_ns <= " + where.add(to_ns(*query.until));
  if (query.behind) {
    const std::string end = where.add(query.behind->end_ns);
    sql += " AND (+f.end_ns < " + end + " OR (+f.end_ns = " + end + " AND f.seq < " +
           where.add(query.behind->sequence) + "))";
  }
  where.set_sql(std::move(sql));
  return where;
}

constexpr const char* kRolledSequence =
    "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'rolled_sequence'";

}  // namespace

Result<std::optional<Sightings>> Sightings::of(sqlite::Database& database, const FlowQuery& query,
                                               const Origin& origin) {
  Sightings made;
  made.database_ = &database;
  TL_TRY(made.choose(query, origin));
  if (made.nobody_) return made;
  if (made.looks_.empty()) return std::nullopt;
  TL_ASSIGN(const std::int64_t first, database.integer("SELECT coalesce(min(end_ns), 0) FROM flow"));
  TL_ASSIGN(const std::int64_t last, database.integer("SELECT coalesce(max(end_ns), 0) FROM flow"));
  EndSpan all{query.since ? std::max(first, to_ns(*query.since)) : first,
              query.until ? std::min(last, to_ns(*query.until)) : last};
  if (query.behind) all.to = std::min(all.to, query.behind->end_ns);
  if (all.from <= all.to)
    made.cover({floor_to(all.from, kMinuteNs), floor_to(all.to, kMinuteNs) + kMinuteNs});
  return made;
}

// Of what the filters ask for, what leaves the fewest peers; rules count beside any of them.
Result<void> Sightings::choose(const FlowQuery& query, const Origin& origin) {
  std::vector<FieldFilter> of_rule, of_from, of_to;
  std::vector<std::vector<FieldFilter>> of_either;  // by field: those of one are ORed
  for (const FieldFilter& filter : query.filters) {
    switch (told_by(filter)) {
      case Of::Rule:
        of_rule.push_back(filter);
        break;
      case Of::From:
        of_from.push_back(filter);
        break;
      case Of::To:
        of_to.push_back(filter);
        break;
      default: {
        if (!is_either(filter)) break;
        const auto same = std::find_if(of_either.begin(), of_either.end(),
                                       [&](const auto& others) { return others[0].field == filter.field; });
        (same == of_either.end() ? of_either.emplace_back() : *same).push_back(filter);
      }
    }
  }
  if (const auto action = only_action(query)) actions_[*action == Verdict::Deny ? 0 : 1] = false;
  if (!of_rule.empty()) {
    TL_ASSIGN(rules_, left_of(*database_, of_rule, origin,
                              "SELECT f.rule FROM (SELECT id AS rule FROM rule_revision) AS f WHERE "));
    nobody_ = rules_->empty();
  }
  struct Choice {
    References peers;
    std::vector<RollupPeer> tables;
  };
  std::optional<Choice> best;
  const auto offer = [&](References peers, std::vector<RollupPeer> tables) {
    nobody_ = nobody_ || peers.empty();
    if (!best || peers.size() < best->peers.size()) best = Choice{std::move(peers), std::move(tables)};
  };
  if (!of_from.empty()) {
    TL_ASSIGN(auto peers, left_of(*database_, of_from, origin,
                                  "SELECT f.src FROM (SELECT id AS src FROM peer) AS f WHERE "));
    offer(std::move(peers), {RollupPeer::Source});
  }
  if (!of_to.empty()) {
    TL_ASSIGN(auto peers, left_of(*database_, of_to, origin,
                                  "SELECT f.dst FROM (SELECT id AS dst FROM peer) AS f WHERE "));
    offer(std::move(peers), {RollupPeer::Target});
  }
  for (const auto& filters : of_either) {
    TL_ASSIGN(auto peers, left_of(*database_, filters, origin,
                                  "SELECT f.src FROM (SELECT id AS src, id AS dst FROM peer) AS f WHERE "));
    offer(std::move(peers), {RollupPeer::Source, RollupPeer::Target});
  }
  if (nobody_) return {};
  if (best) {
    for (const RollupPeer table : best->tables) TL_TRY(look_in(table, best->peers));
  } else if (rules_) {
    TL_TRY(look_in(RollupPeer::None, std::nullopt));
  }
  return {};
}

Result<void> Sightings::look_in(RollupPeer table, std::optional<References> peers) {
  for (const RollupTable& known : kRollupTables) {
    if (known.peer != table) continue;
    Look look;
    TL_ASSIGN(look.scan, prepare_rollup_scan(*database_, known));
    TL_ASSIGN(look.reach, read_rollup_reach(*database_, known));
    look.peers = std::move(peers);
    looks_.push_back(std::move(look));
    return {};
  }
  return {};
}

// The widest buckets that all looks have whole, narrower ones beside them.
void Sightings::cover(const EndSpan& span) {
  const auto add = [this](const auto& self, const EndSpan& rest, std::size_t levels) -> void {
    if (rest.from >= rest.to) return;
    const std::size_t level = levels - 1;
    const std::int64_t width = kRollupWidths[level];
    std::int64_t to = rest.to;
    if (level > 0)
      for (const Look& look : looks_) to = std::min(to, look.reach[level]);
    const EndSpan whole{ceil_to(rest.from, width), to < rest.from ? rest.from : floor_to(to, width)};
    if (whole.from >= whole.to) return self(self, rest, level);
    self(self, {rest.from, whole.from}, level);
    pieces_.push_back({level, whole});
    self(self, {whole.to, rest.to}, level);
  };
  add(add, span, kRollupLevels);
}

// Where the buckets begin, ascending.
Result<std::vector<std::int64_t>> Sightings::seen_in(const Piece& piece) {
  const std::int64_t width = kRollupWidths[piece.level];
  std::vector<std::int64_t> seen;
  for (Look& look : looks_)
    for (const int action : {0, 1})
      for (int view = 0; view < kRollupViews; ++view) {
        if (!actions_[static_cast<std::size_t>(action)]) continue;
        look.scan.bind(width / kRollupSecondNs, action, view, piece.span.from / width, piece.span.to / width);
        TL_TRY(scan_rollups(look.scan, width, [&](std::int64_t begin, const KeySums& sums) {
          if ((!seen.empty() && seen.back() == begin) || (look.peers && !look.peers->contains(sums.peer)) ||
              (rules_ && !rules_->contains(sums.rule)))
            return;
          seen.push_back(begin);
        }));
      }
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  return seen;
}

Result<std::optional<EndSpan>> Sightings::next() {
  while (minutes_.empty()) {
    if (pieces_.empty()) return std::nullopt;
    Piece piece = pieces_.back();
    pieces_.pop_back();
    const std::int64_t width = kRollupWidths[piece.level];
    const std::int64_t newest = std::max(piece.span.from, piece.span.to - kBucketsAtOnce * width);
    if (newest > piece.span.from) pieces_.push_back({piece.level, {piece.span.from, newest}});
    piece.span.from = newest;
    TL_ASSIGN(const auto seen, seen_in(piece));
    for (const std::int64_t begin : seen) {
      if (piece.level == 0)
        minutes_.push_back({begin, begin + width});
      else
        pieces_.push_back({piece.level - 1, {begin, begin + width}});
    }
  }
  const EndSpan span = minutes_.back();
  minutes_.pop_back();
  return span;
}

Result<std::optional<std::vector<std::int64_t>>> newest_sighted(sqlite::Database& database,
                                                                const FlowQuery& query,
                                                                const Origin& origin) {
  if (query.oldest_first || query.after_sequence > 0 || query.limit == 0) return std::nullopt;
  TL_ASSIGN(auto sightings, Sightings::of(database, query, origin));
  if (!sightings) return std::nullopt;
  std::vector<std::int64_t> sequences;
  if (sightings->nobody()) return sequences;
  TL_ASSIGN(WhereClause where, where_by_hand(query, origin));
  TL_ASSIGN(const std::int64_t rolled, database.integer(kRolledSequence));
  const std::string last_rolled = where.add(rolled);
  const std::string also = " AND " + where.sql();
  const int own = where.parameters();
  const auto parameter = [own](int number) { return "?" + std::to_string(own + number); };
  const std::string columns = "SELECT f.end_ns, f.seq FROM flow AS f ";
  TL_ASSIGN(auto in_span,
            database.prepare(columns + "INDEXED BY " +
                             (only_action(query) == Verdict::Deny ? "flow_denied_end" : "flow_end") +
                             " WHERE f.end_ns >= " + parameter(1) + " AND f.end_ns < " + parameter(2) +
                             " AND +f.seq <= " + last_rolled + also +
                             " ORDER BY f.end_ns DESC, f.seq DESC LIMIT " + parameter(3)));
  TL_ASSIGN(auto unrolled, database.prepare(columns + "NOT INDEXED WHERE f.seq > " + last_rolled + also +
                                            " ORDER BY +f.end_ns DESC, f.seq DESC LIMIT " + parameter(1)));
  std::vector<std::pair<std::int64_t, std::int64_t>> found;  // end, sequence
  const auto read = [&found](sqlite::Statement& select) -> Result<void> {
    for (;;) {
      TL_ASSIGN(const bool row, select.step());
      if (!row) break;
      found.emplace_back(select.integer(0), select.integer(1));
    }
    select.reset();
    return {};
  };
  where.bind(unrolled);
  unrolled.bind_at(own + 1, query.limit);
  TL_TRY(read(unrolled));
  // What was not rolled up may be older than what was.
  const std::size_t enough = found.size() + query.limit;
  where.bind(in_span);
  while (found.size() < enough) {
    TL_ASSIGN(const auto span, sightings->next());
    if (!span) break;
    in_span.bind_at(own + 1, span->from);
    in_span.bind_at(own + 2, span->to);
    in_span.bind_at(own + 3, enough - found.size());
    TL_TRY(read(in_span));
  }
  std::sort(found.rbegin(), found.rend());
  if (found.size() > query.limit) found.resize(query.limit);
  sequences.reserve(found.size());
  for (const auto& [end, sequence] : found) sequences.push_back(sequence);
  return sequences;
}

bool names_peers(const FlowQuery& query) {
  return std::any_of(query.filters.begin(), query.filters.end(), [](const FieldFilter& filter) {
    const Of what = told_by(filter);
    return what == Of::From || what == Of::To || is_either(filter);
  });
}

Result<std::optional<WhereClause>> where_if_rare(sqlite::Database& database, const FlowQuery& query,
                                                 const Origin& origin) {
  // Beyond this share of the minutes the table is read as quickly as it lies.
  constexpr std::int64_t kFew = 4;
  // Before the sums are looked at: what is rolled up meanwhile is among the later rows then.
  TL_ASSIGN(const std::int64_t rolled, database.integer(kRolledSequence));
  TL_ASSIGN(auto sightings, Sightings::of(database, query, origin));
  if (!sightings) return std::nullopt;
  std::string spans;
  EndSpan span;
  const auto put = [&] {
    if (span.from < span.to)
      spans += (spans.empty() ? "[" : ",[") + std::to_string(span.from) + "," + std::to_string(span.to) + "]";
  };
  for (std::int64_t minutes = 0;; ++minutes) {
    TL_ASSIGN(const auto older, sightings->next());
    if (!older) break;
    if (minutes * kFew > sightings->minutes()) return std::nullopt;
    if (older->to == span.from) {
      span.from = older->from;
      continue;
    }
    put();
    span = *older;
  }
  put();
  TL_ASSIGN(WhereClause where, where_by_hand(query, origin));
  if (sightings->nobody()) {
    where.set_sql("0 AND " + where.sql());
    return where;
  }
  where.set_sql(
      where.sql() + " AND f.seq IN (SELECT seen.seq FROM json_each(" + where.add("[" + spans + "]") +
      ") AS span CROSS JOIN flow AS seen INDEXED BY flow_end WHERE seen.end_ns >= span.value ->> 0 AND"
      " seen.end_ns < span.value ->> 1 UNION ALL SELECT later.seq FROM flow AS later WHERE later.seq > " +
      where.add(rolled) + ")");
  return where;
}

Result<WhereClause> where_sighted(sqlite::Database& database, const FlowQuery& query, const Origin& origin) {
  TL_ASSIGN(auto rare, where_if_rare(database, query, origin));
  if (rare) return std::move(*rare);
  return WhereClause::of(query, origin);
}

}  // namespace tierlog::store
