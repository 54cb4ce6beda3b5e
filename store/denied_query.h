// store/denied_query.h - denied flows of some rules, newest first, from the index of denied records alone.
//
//   references of rule_revision --[newest_denied, denied_groups]--> rows, sums --> store/query.cpp
//
// A policy has few rules and many records: each rule is one stretch of the index, ordered by time.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/filter_sql.h"
#include "store/sqlite.h"

namespace tierlog::store {

struct DeniedRange {
  std::vector<std::int64_t> rules;       // of table rule_revision (column f.rule)
  std::optional<WallTime> since, until;  // by the record's end time, inclusive
  std::size_t limit = 100;               // 0: all
  const WhereClause* where = nullptr;    // further conditions over `flow AS f`
};

// A query as far as this can answer it: its filters that choose rules, and the others.
struct DeniedQuery {
  FlowQuery rules, others;
  bool indexed = true;  // the others are about what the index holds, too
};
// Nothing for queries about other records than denied ones, or in another order.
std::optional<DeniedQuery> as_denied_query(const FlowQuery& query);
// References of the rules that they choose: all there are without any.
Result<std::vector<std::int64_t>> chosen_rules(sqlite::Database& database, const DeniedQuery& query,
                                               const Origin& origin);

// f.seq of the newest denied records (by end, then by sequence), newest first. Its time does not depend on
// how many records there are.
Result<std::vector<std::int64_t>> newest_denied(sqlite::Database& database, const DeniedRange& range);

// Denied records of one (reporter, direction, source and destination address, port, protocol, ICMP type and
// code, rule id), summed over the range.
struct DeniedGroup {
  std::int64_t newest = 0;  // f.seq
  std::int64_t first_ns = 0, last_ns = 0;
  std::int64_t records = 0, packets = 0, bytes = 0;
};

// The groups with the newest records, newest first.
Result<std::vector<DeniedGroup>> denied_groups(sqlite::Database& database, const DeniedRange& range);

}  // namespace tierlog::store
