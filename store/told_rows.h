// store/told_rows.h - table open_connection and denied_told, both ways. Inside the caller's transaction.
#pragma once

#include "base/result.h"
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
  Result<void> write_denied(const ToldDenied& flow);

  sqlite::Statement put_connection_, drop_connection_, put_denied_, drop_denied_;
  sqlite::Statement list_connections_, list_denied_;
};

}  // namespace tierlog::store
