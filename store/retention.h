// store/retention.h - what keeps flows.db within its limits: oldest records out, their sums with them, unused
// dictionary rows after them, free pages back to the disk.
//
// Each call is a short transaction of its own, so that a writer between two of them waits milliseconds.
#pragma once

#include <limits>
#include <optional>

#include "base/result.h"
#include "store/flow_store.h"
#include "store/reference_uses.h"
#include "store/rollups.h"
#include "store/sqlite.h"

namespace tierlog::store {

// Sizes of the file, read from its header.
struct FileSize {
  std::int64_t page_bytes = 0;
  std::int64_t pages = 0, free_pages = 0;
  std::int64_t log_bytes = 0;  // -wal and -shm

  std::int64_t total_bytes() const { return pages * page_bytes + log_bytes; }
  std::int64_t used_bytes() const { return (pages - free_pages) * page_bytes; }
};

class Retention {
 public:
  static Result<Retention> open(sqlite::Database& database, const std::string& path,
                                const StoreLimits& limits);

  Result<FileSize> size(sqlite::Database& database);
  // What the file itself may have so that it stays under max_bytes with its -wal; 0: no limit.
  std::int64_t allowed_bytes() const;
  // How long the -wal may get before it is written back, in pages.
  std::int64_t log_pages() const;
  // That the -wal has grown far beyond that: a reader keeps it from being written back.
  bool log_is_held(sqlite::Database& database, const FileSize& file) const;
  // That records are older, more or larger than the limits.
  Result<bool> is_over(sqlite::Database& database, std::int64_t records, std::optional<WallTime> now);
  // Takes away up to `most` of the records that are over; how many that were. Only rolled-up ones.
  Result<std::int64_t> remove(sqlite::Database& database, std::int64_t records, std::optional<WallTime> now,
                              std::int64_t rolled_sequence, std::int64_t most);
  // Takes away dictionary rows that no record refers to; all records must be rolled up. How many.
  Result<std::int64_t> clean_dictionaries(sqlite::Database& database, std::int64_t most);
  // Takes away policy sets, objects and rule keys that were over before the oldest record began; without
  // records, what is older than the limit.
  Result<void> clean_history(sqlite::Database& database, Nanoseconds longest_span, WallTime now);
  // Gives free pages back when they are many; how many.
  Result<std::int64_t> shrink(sqlite::Database& database, std::int64_t most);
  Result<std::optional<WallTime>> oldest();

 private:
  Result<std::int64_t> remove_rows(sqlite::Database& database, sqlite::Statement& select);

  std::string path_;
  StoreLimits limits_;
  Rollups removed_;
  std::int64_t cleaned_to_ = std::numeric_limits<std::int64_t>::min();  // history, ns
  sqlite::Statement page_count_, free_count_, page_size_, oldest_;
  sqlite::Statement first_, older_, remove_row_, erode_, drop_peer_, drop_text_;
  ReferenceUses uses_;
};

}  // namespace tierlog::store
