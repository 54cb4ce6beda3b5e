// store/catalog_rows.h - what is enforced, and what the kernel counted, as rows; the writing side.
//
// Each call runs inside the caller's transaction. store/query_catalog.cpp reads them back.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "store/catalog.h"
#include "store/record.h"
#include "store/sqlite.h"

namespace tierlog::store {

Result<void> write_meta(sqlite::Database& database, std::string_view key, std::string_view value);
Result<void> write_rules(sqlite::Database& database, std::span<const RuleRow> rules);
// Replaces tiers, policies and endpoints; rules that are not in it are no longer live.
Result<void> write_catalog(sqlite::Database& database, const Catalog& catalog);
// A value smaller than the one before means that the counter began anew: it adds to what was.
Result<void> write_counts(sqlite::Database& database, std::span<const RuleCount> counts,
                          std::span<const LossCount> losses, WallTime at);
// All lives of each counter together.
Result<std::vector<RuleCount>> read_counts(sqlite::Database& database);

}  // namespace tierlog::store
