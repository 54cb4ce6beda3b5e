// store/told_rows.h - table open_connection and denied_told, both ways. Inside the caller's transaction.
#pragma once

#include "base/result.h"
#include "store/denied_blocks.h"
#include "store/sqlite.h"
#include "store/told.h"

namespace tierlog::store {

class ToldRows {
 public:
  static Result<ToldRows> open(sqlite::Database& database);
  Result<void> write(const ToldChanges& changes);
  Result<Told> read();

 private:
  Result<void> write_connection(const ToldConnection& connection);

  sqlite::Statement put_connection_, drop_connection_, list_connections_;
  DeniedBlocks denied_;
};

}  // namespace tierlog::store
