// store/history_rows.h - writing what store/history.h describes: only what changed since the last time.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"
#include "store/history.h"
#include "store/sqlite.h"

namespace tierlog::store {

class HistoryRows {
 public:
  // Inside the caller's transaction; after a rollback call forget().
  Result<void> write(sqlite::Database& database, const Moment& moment, const policy::Cluster& cluster,
                     std::span<const KnownRule> rules);
  void forget() { open_.reset(); }

 private:
  struct Open {
    std::int64_t row = 0;
    std::string value;
  };
  using OpenObjects = std::map<std::pair<ObjectKind, std::string>, Open>;

  Result<void> load(sqlite::Database& database);
  Result<void> write_objects(sqlite::Database& database, const policy::Cluster& cluster, WallTime since);

  std::optional<OpenObjects> open_;  // without an end; read when first needed
};

}  // namespace tierlog::store
