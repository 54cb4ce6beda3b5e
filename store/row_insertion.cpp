#include "store/row_insertion.h"

namespace tierlog::store {

Result<RowInsertion> RowInsertion::open(sqlite::Database& database, const std::string& into, int columns,
                                        int rows) {
  std::string row = "(?";
  for (int i = 1; i < columns; ++i) row += ", ?";
  row += ')';
  std::string sql = "INSERT INTO " + into + " VALUES " + row;
  for (int i = 1; i < rows; ++i) sql.append(", ").append(row);
  TL_ASSIGN(auto statement, database.prepare(sql));
  return RowInsertion(std::move(statement), columns, rows);
}

void RowInsertion::put_text(int row, int column, std::string_view borrowed) {
  const int at = row * columns_ + column;
  statement_.bind_at(at + 1, sqlite::Borrowed{borrowed});
  is_null_[static_cast<std::size_t>(at)] = 0;
}

void RowInsertion::put_blob(int row, int column, std::string_view borrowed) {
  const int at = row * columns_ + column;
  statement_.bind_blob(at + 1, sqlite::Borrowed{borrowed});
  is_null_[static_cast<std::size_t>(at)] = 0;
}

}  // namespace tierlog::store
