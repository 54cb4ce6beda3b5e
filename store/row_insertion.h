// store/row_insertion.h - a prepared INSERT of one row or of several: most of what a run of one row costs
// SQLite is for the run and for its cursors, one a table and one an index.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/sqlite.h"

namespace tierlog::store {

class RowInsertion {
 public:
  // `into`: "TABLE(COLUMN, …)"; `columns`: how many those are.
  static Result<RowInsertion> open(sqlite::Database& database, const std::string& into, int columns,
                                   int rows);
  int rows() const { return rows_; }

  // Rows from 0, columns from 0. Each run needs all of them; what is borrowed must outlive it.
  void put(int row, int column, std::int64_t value) {
    const int at = row * columns_ + column;
    statement_.bind_at(at + 1, value);
    is_null_[static_cast<std::size_t>(at)] = 0;
  }
  void put(int row, int column, std::optional<std::int64_t> value) {
    if (value) return put(row, column, *value);
    put_null(row, column);
  }
  void put_text(int row, int column, std::string_view borrowed);
  void put_blob(int row, int column, std::string_view borrowed);
  void put_null(int row, int column) {
    const int at = row * columns_ + column;
    if (is_null_[static_cast<std::size_t>(at)] != 0) return;
    statement_.bind_at(at + 1, nullptr);
    is_null_[static_cast<std::size_t>(at)] = 1;
  }
  Result<void> run() { return statement_.run(); }

 private:
  RowInsertion(sqlite::Statement statement, int columns, int rows)
      : statement_(std::move(statement)),
        columns_(columns),
        rows_(rows),
        is_null_(static_cast<std::size_t>(columns * rows), 1) {}

  sqlite::Statement statement_;
  int columns_;
  int rows_;
  std::vector<char> is_null_;  // as bound for the last run
};

}  // namespace tierlog::store
