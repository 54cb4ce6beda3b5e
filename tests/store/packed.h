// tests/store/packed.h - sums beside the rows as tests look at them and spoil them.
#pragma once

#include <string>

#include "store/rollups.h"
#include "store/sqlite.h"

namespace tierlog::store::sample {

// Records that the sums of a minute count.
std::int64_t records_by_minute(sqlite::Database& database, const RollupTable& table);

// An SQL function more_bytes(sums, by): the same sums with so many bytes_out more in each.
void add_more_bytes(sqlite::Database& database);

// Told flows and uses of dictionaries as version 9 had them, a row or a column for each.
void undo_version_10(const std::string& path);
// And sums as version 8 had them, a row for each; what is there is otherwise left as it is.
void undo_version_9(const std::string& path);

}  // namespace tierlog::store::sample
