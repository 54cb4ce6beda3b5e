// store/flow_rows.h - FlowRecords as rows of table flow, both ways.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "store/dictionary.h"
#include "store/flow_entry.h"
#include "store/flow_store.h"
#include "store/rollups.h"
#include "store/row_insertion.h"
#include "store/sqlite.h"

namespace tierlog::store {

// A UUID's 16 bytes, or nothing when `id` is not a UUID in its usual text form.
std::optional<std::string> uuid_bytes(std::string_view id);

class FlowRowWriter {
 public:
  static Result<FlowRowWriter> open(sqlite::Database& database);
  // Rows numbered from `sequence` + 1 on. Appends what each means to sums over rows; to be counted once they are committed.
  // FlowRecord or FlowEntry: references of what entries have in common are looked up once for all of them.
  template <typename Record>
  Result<void> write(std::int64_t sequence, std::span<const Record> records, std::vector<RolledRow>& into);
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
  struct Place {
    RowInsertion& insertion;
    int row;
  };
  // What a row borrows until it is run.
  struct Texts {
    std::string id, destination, source;
  };
  static constexpr int kRowsAtOnce = 32;
  Result<RolledRow> put(const Place& place, std::int64_t sequence, const FlowRecord& record);
  Result<RolledRow> put(const Place& place, std::int64_t sequence, const FlowEntry& entry);
  RolledRow put(const Place& place, std::int64_t sequence, const FlowRecord& like, const References& references,
                const Own& own);
  FlowRowWriter(Dictionary dictionary, RowInsertion one, RowInsertion many)
      : dictionary_(std::move(dictionary)), one_(std::move(one)), many_(std::move(many)), texts_(kRowsAtOnce) {}
  Dictionary dictionary_;
  RowInsertion one_, many_;
  std::vector<Texts> texts_;  // of each row
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
