// store/flow_rows.h - FlowRecords as rows of table flow, both ways.
#pragma once

#include <string>
#include <unordered_map>

#include "base/result.h"
#include "store/dictionary.h"
#include "store/flow_entry.h"
#include "store/flow_store.h"
#include "store/rollups.h"
#include "store/sqlite.h"

namespace tierlog::store {

// A UUID's 16 bytes, or nothing when `id` is not a UUID in its usual text form.
std::optional<std::string> uuid_bytes(std::string_view id);

class FlowRowWriter {
 public:
  static Result<FlowRowWriter> open(sqlite::Database& database);
  // What the row means to sums over rows; to be counted once the row is committed.
  Result<RolledRow> write(std::int64_t sequence, const FlowRecord& record);
  // References of what entries have in common are looked up once for all of them.
  Result<RolledRow> write(std::int64_t sequence, const FlowEntry& entry);
  // After a rollback, and after rows of the dictionaries were taken away.
  void forget();
  // As Dictionary::add_local.
  void add_local(const std::vector<std::string>& addresses);

 private:
  struct References {
    std::int64_t rule = 0, src = 0, dst = 0, logged_by = 0, trace = 0, staged = 0;
    bool dst_is_local = false;
  };
  struct Known {
    std::shared_ptr<const FlowRecord> like;  // keeps its address from being another's
    References references;
  };
  struct Own;
  Result<References> references(const FlowRecord& record);
  Result<RolledRow> write_row(std::int64_t sequence, const FlowRecord& like, const References& references,
                              const Own& own);
  FlowRowWriter(Dictionary dictionary, sqlite::Statement insert)
      : dictionary_(std::move(dictionary)), insert_(std::move(insert)) {}
  Dictionary dictionary_;
  sqlite::Statement insert_;
  std::unordered_map<const FlowRecord*, Known> known_;
};

// The columns that FlowRowReader::read expects first in a SELECT over `flow AS f`.
extern const char* const kFlowColumns;

class FlowRowReader {
 public:
  static Result<FlowRowReader> open(sqlite::Database& database);
  Result<StoredRecord> read(const sqlite::Statement& row);
  // All rows of a statement that selects kFlowColumns.
  Result<std::vector<StoredRecord>> read_all(sqlite::Statement& statement);
  DictionaryReader& dictionary() { return dictionary_; }

 private:
  explicit FlowRowReader(DictionaryReader dictionary) : dictionary_(std::move(dictionary)) {}
  DictionaryReader dictionary_;
};

}  // namespace tierlog::store
