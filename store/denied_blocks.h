// store/denied_blocks.h - table denied_told: the flows of store/told.h's ToldDenied, many in a row, as bytes.
//
// A block holds the flows of kHandlesEach handles that follow each other. What one batch adds has handles in
// a row, so it is a few blocks; a row for each flow cost the storing thread a fifth of what a denied flow's
// record costs it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/sqlite.h"
#include "store/told.h"

namespace tierlog::store {

class DeniedBlocks {
 public:
  static constexpr std::int64_t kHandlesEach = 32;

  static Result<DeniedBlocks> open(sqlite::Database& database);
  // Inside the caller's transaction. Of a handle that is in both, `changed` counts.
  Result<void> write(const std::vector<ToldDenied>& changed, const std::vector<std::int64_t>& forgotten);
  // By handle. Errors: also Corrupt.
  Result<std::vector<ToldDenied>> read();

 private:
  static constexpr std::int64_t kUnknown = -1;
  struct Change {
    std::int64_t handle = 0;
    const ToldDenied* flow = nullptr;  // null: forgotten
  };
  Result<void> write_block(std::int64_t block, std::span<const Change> changes);
  Result<void> put(std::int64_t block);

  sqlite::Statement find_, put_, drop_, list_, last_;
  std::int64_t newest_ = kUnknown;  // none behind this block is there
  std::string old_, bytes_;         // of the block in hand
};

// For migrations: the rows of `table`, one a flow, as version 9 had them, into denied_told.
Result<void> pack_denied_of_version_9(sqlite::Database& database, const std::string& table);

}  // namespace tierlog::store
