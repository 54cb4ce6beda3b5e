#include "store/rollup_groups.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "store/filter_sql.h"
#include "store/rollup_query.h"

namespace tierlog::store {
namespace {

using Of = GroupField::Of;
using Field = FieldFilter::Field;

constexpr int kLeftOut = -1;

bool asks(const GroupQuery& query, Of what) {
  return std::any_of(query.fields.begin(), query.fields.end(),
                     [what](const GroupField* field) { return field->of == what; }) ||
         std::any_of(query.flows.filters.begin(), query.flows.filters.end(),
                     [what](const FieldFilter& filter) { return told_by(filter) == what; });
}

Result<WhereClause> condition(const GroupQuery& query, Of what, const Origin& origin) {
  FlowQuery part;
  for (const FieldFilter& filter : query.flows.filters)
    if (told_by(filter) == what) part.filters.push_back(filter);
  return WhereClause::of(part, origin);
}

std::string names_sql(const GroupQuery& query, Of what) {
  std::string sql;
  for (const GroupField* field : query.fields)
    if (field->of == what) sql += std::string(sql.empty() ? "" : ", ") + "coalesce(" + field->sql + ", '')";
  return sql;
}

std::vector<std::string> read_names(const sqlite::Statement& row) {
  std::vector<std::string> names;
  for (int i = 0; i < sqlite3_column_count(row.handle()); ++i) names.push_back(row.text(i));
  return names;
}

// Different names, by number.
class Interned {
 public:
  int number(std::vector<std::string> names) {
    const auto [found, is_new] = numbers_.emplace(std::move(names), static_cast<int>(all_.size()));
    if (is_new) all_.push_back(&found->first);
    return found->second;
  }
  const std::vector<std::string>& operator[](int number) const {
    return *all_[static_cast<std::size_t>(number)];
  }

 private:
  std::map<std::vector<std::string>, int> numbers_;
  std::vector<const std::vector<std::string>*> all_;
};

// Rules or peers: the number of the names that a reference stands for.
class References {
 public:
  // `of_all`: "SELECT f.src FROM (SELECT id AS src FROM peer) AS f WHERE "; `of_one`: " FROM peer AS s WHERE
  // s.id = ?1".
  static Result<References> make(sqlite::Database& database, const GroupQuery& query, Of what,
                                 const Origin& origin, const char* of_all, const char* of_one) {
    References made;
    const bool is_filtered = std::any_of(query.flows.filters.begin(), query.flows.filters.end(),
                                         [what](const FieldFilter& filter) { return told_by(filter) == what; });
    if (is_filtered) {
      TL_ASSIGN(const WhereClause where, condition(query, what, origin));
      TL_ASSIGN(auto select, database.prepare(of_all + where.sql()));
      where.bind(select);
      made.taken_.emplace();
      for (;;) {
        TL_ASSIGN(const bool row, select.step());
        if (!row) break;
        made.taken_->insert(select.integer(0));
      }
    }
    const std::string names = names_sql(query, what);
    if (names.empty()) {
      made.unnamed_ = made.names_.number({});
    } else {
      TL_ASSIGN(made.select_, database.prepare("SELECT " + names + of_one));
    }
    return made;
  }
  Result<int> number(std::int64_t reference) {
    if (!taken_ && unnamed_) return *unnamed_;
    int& number = known(reference);
    if (number != kNotLooked) return number;
    number = kLeftOut;
    if (!taken_ || taken_->contains(reference)) {
      if (unnamed_) {
        number = *unnamed_;
      } else {
        TL_ASSIGN(const bool row, select_.bind(reference).step());
        if (row) number = names_.number(read_names(select_));
        select_.reset();
      }
    }
    return number;
  }
  const std::vector<std::string>& names(int number) const { return names_[number]; }

 private:
  static constexpr int kNotLooked = -2;
  // References ascend from 1: most are found by their place.
  static constexpr std::int64_t kByPlace = 1 << 20;

  int& known(std::int64_t reference) {
    if (reference < 0 || reference >= kByPlace)
      return others_.try_emplace(reference, kNotLooked).first->second;
    const auto place = static_cast<std::size_t>(reference);
    if (place >= known_.size()) known_.resize(std::max(place + 1, 2 * known_.size()), kNotLooked);
    return known_[place];
  }

  std::optional<std::unordered_set<std::int64_t>> taken_;  // by the filters, where there are any
  std::optional<int> unnamed_;                             // where no field is about them
  sqlite::Statement select_;
  std::vector<int> known_;
  std::unordered_map<std::int64_t, int> others_;
  Interned names_;
};

struct Key {
  int slice = 0, rule = 0, peer = 0;
  std::int64_t bin = 0;
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  std::size_t operator()(const Key& key) const noexcept {
    auto hash = static_cast<std::uint64_t>(key.bin) * 0x9e3779b97f4a7c15ULL;
    hash ^= static_cast<std::uint64_t>(key.peer) << 32 | static_cast<std::uint64_t>(key.rule) << 2 |
            static_cast<std::uint64_t>(key.slice);
    hash *= 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
  }
};
struct Value {
  Sums sums;
  std::int64_t first_ns = 0, last_ns = 0;
};

class Grouping {
 public:
  Grouping(sqlite::Database& database, const GroupQuery& query, References rules, References peers)
      : database_(database),
        width_(query.bin ? query.bin->count() : 0),
        once_(counts_connections_once(query)),
        rules_(std::move(rules)),
        peers_(std::move(peers)) {}

  // The names of the slices; which of them filters leave out.
  Result<void> name_slices(const GroupQuery& query, const Origin& origin) {
    TL_ASSIGN(const WhereClause where, condition(query, Of::Slice, origin));
    const std::string names = names_sql(query, Of::Slice);
    for (int action = 0; action < 2; ++action)
      for (int view = 0; view < kRollupViews; ++view) {
        const int reporter = view == kToldAgain ? static_cast<int>(Reporter::Source) : view;
        TL_ASSIGN(auto select,
                  database_.prepare("SELECT " + (names.empty() ? std::string("''") : names) +
                                    " FROM (SELECT " + std::to_string(action) + " AS action, " +
                                    std::to_string(reporter) + " AS reporter) AS f WHERE " + where.sql()));
        where.bind(select);
        TL_ASSIGN(const bool row, select.step());
        int& slice = slices_[static_cast<std::size_t>(action)][static_cast<std::size_t>(view)];
        if (!row || (view == kToldAgain && (once_ || action != 0)))
          slice = kLeftOut;
        else
          slice = slice_names_.number(names.empty() ? std::vector<std::string>{} : read_names(select));
      }
    return {};
  }
  bool takes(int action, int view) const { return slice_of(action, view) != kLeftOut; }

  Result<void> take(const RollupRow& row) {
    Key key;
    key.slice = slice_of(row.action, row.view);
    if (key.slice == kLeftOut) return {};
    TL_ASSIGN(key.rule, rules_.number(row.rule));
    if (key.rule == kLeftOut) return {};
    TL_ASSIGN(key.peer, peers_.number(row.peer));
    if (key.peer == kLeftOut) return {};
    if (width_ > 0) key.bin = row.time_ns / width_;
    const auto [found, is_new] = values_.try_emplace(key);
    Value& value = found->second;
    value.first_ns = is_new ? row.first_ns : std::min(value.first_ns, row.first_ns);
    value.last_ns = is_new ? row.last_ns : std::max(value.last_ns, row.last_ns);
    const auto count = [&row](std::size_t sum) { return sqlite::as_count(row.sums[sum]); };
    value.sums.records += count(0);
    value.sums.connections += count(1);
    if (row.action == 1) value.sums.denied_packets += count(2);
    value.sums.packets += count(3) + count(4);
    value.sums.bytes_out += count(5);
    value.sums.bytes_in += count(6);
    return {};
  }

  std::vector<GroupLine> lines(const GroupQuery& query) const {
    std::vector<GroupLine> all;
    all.reserve(values_.size());
    for (const auto& [key, value] : values_) {
      GroupLine line{{}, key.bin, value.sums, from_ns(value.first_ns), from_ns(value.last_ns)};
      std::size_t slice = 0, rule = 0, peer = 0;
      for (const GroupField* field : query.fields)
        line.names.push_back(field->of == Of::Slice  ? slice_names_[key.slice][slice++]
                             : field->of == Of::Rule ? rules_.names(key.rule)[rule++]
                                                     : peers_.names(key.peer)[peer++]);
      all.push_back(std::move(line));
    }
    return all;
  }

 private:
  int slice_of(int action, int view) const {
    return slices_[static_cast<std::size_t>(action)][static_cast<std::size_t>(view)];
  }

  sqlite::Database& database_;
  std::int64_t width_;
  bool once_;
  References rules_, peers_;
  Interned slice_names_;
  std::array<std::array<int, kRollupViews>, 2> slices_{};  // [action][view]
  std::unordered_map<Key, Value, KeyHash> values_;
};

}  // namespace

GroupField::Of told_by(const FieldFilter& filter) {
  switch (filter.field) {
    case Field::Action:
    case Field::Reporter:
    case Field::Node:
    case Field::Cluster:
      return Of::Slice;
    case Field::Policy:
    case Field::Tier:
    case Field::PolicyKind:
    case Field::Revision:
      return Of::Rule;
    case Field::From:
    case Field::FromNamespace:
    case Field::FromLabel:
    case Field::FromWorkload:
      return Of::From;
    case Field::To:
    case Field::ToNamespace:
    case Field::ToLabel:
    case Field::ToWorkload:
      return Of::To;
    default:
      return Of::Row;
  }
}

bool counts_connections_once(const GroupQuery& query) {
  return std::none_of(query.fields.begin(), query.fields.end(),
                      [](const GroupField* field) { return field->is_reporter; }) &&
         std::none_of(query.flows.filters.begin(), query.flows.filters.end(), [](const FieldFilter& filter) {
           return filter.field == Field::Reporter || filter.field == Field::Direction;
         });
}

bool is_told_by_rollups(const GroupQuery& query) {
  if (query.from_rows || query.flows.after_sequence > 0 || query.flows.behind) return false;
  if (query.bin && query.bin->count() % kMinuteNs != 0) return false;
  if (asks(query, Of::Row)) return false;
  return !(asks(query, Of::From) && asks(query, Of::To));
}

Result<std::vector<GroupLine>> rollup_groups(sqlite::Database& database, const GroupQuery& query,
                                             const Origin& origin) {
  const bool from = asks(query, Of::From), to = asks(query, Of::To);
  TL_ASSIGN(auto rules,
            References::make(database, query, Of::Rule, origin,
                             "SELECT f.rule FROM (SELECT id AS rule FROM rule_revision) AS f WHERE ",
                             " FROM rule_revision AS r WHERE r.id = ?1"));
  TL_ASSIGN(auto peers, from ? References::make(database, query, Of::From, origin,
                                                "SELECT f.src FROM (SELECT id AS src FROM peer) AS f WHERE ",
                                                " FROM peer AS s WHERE s.id = ?1")
                             : References::make(database, query, Of::To, origin,
                                                "SELECT f.dst FROM (SELECT id AS dst FROM peer) AS f WHERE ",
                                                " FROM peer AS d WHERE d.id = ?1"));
  Grouping grouping(database, query, std::move(rules), std::move(peers));
  TL_TRY(grouping.name_slices(query, origin));
  RollupSlices slices;
  for (int action = 0; action < 2; ++action)
    for (int view = 0; view < kRollupViews; ++view) {
      if (!grouping.takes(action, view)) continue;
      slices[static_cast<std::size_t>(action)][static_cast<std::size_t>(view)] = from ? RollupPeer::Source
                                                                                 : to ? RollupPeer::Target
                                                                                      : RollupPeer::None;
    }
  Result<void> taken;
  TL_TRY(read_rollups(database, {query.flows.since, query.flows.until, query.bin.value_or(Nanoseconds(0))},
                      slices, [&](const RollupRow& row) {
                        if (taken) taken = grouping.take(row);
                      }));
  TL_TRY(taken);
  return grouping.lines(query);
}

}  // namespace tierlog::store
