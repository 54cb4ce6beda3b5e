// store/sqlite.h - SQLite handles as values: a connection, a prepared statement, a transaction.
//
// Internal to this room. Errors of SQLite come out as Result with the operation in front; nothing here
// knows what the tables are.
#pragma once

#include <sqlite3.h>

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::store::sqlite {

// How long a call waits for another writer.
inline constexpr int kBusyTimeoutMs = 5000;

// Counters are unsigned in records and signed in SQLite; 2^63 is out of reach.
inline std::int64_t as_int(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}
inline std::uint64_t as_count(std::int64_t value) {
  return static_cast<std::uint64_t>(value);
}

// A text to bind that is not copied: it must outlive the run, and be bound anew before the next one.
struct Borrowed {
  std::string_view text;
};

class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* handle) : handle_(handle) {}

  // Binds all parameters from the first one on, after taking back the statement's last run. Texts are
  // copied. nullopt and nullptr bind NULL.
  template <typename... Values>
  Statement& bind(const Values&... values) {
    reset();
    int index = 0;
    (bind_at(++index, values), ...);
    return *this;
  }
  template <std::integral T>
  void bind_at(int index, T value) {
    note(sqlite3_bind_int64(handle(), index, static_cast<std::int64_t>(value)));
  }
  void bind_at(int index, std::nullptr_t) { note(sqlite3_bind_null(handle(), index)); }
  void bind_at(int index, double value) { note(sqlite3_bind_double(handle(), index, value)); }
  void bind_at(int index, std::string_view text);
  void bind_blob(int index, std::string_view bytes);
  void bind_at(int index, Borrowed borrowed);
  void bind_blob(int index, Borrowed bytes);
  void bind_object(int index, void* object, const char* type);  // borrowed: must outlive the run
  template <typename T>
  void bind_at(int index, const std::optional<T>& value) {
    if (!value) return bind_at(index, nullptr);
    bind_at(index, *value);
  }

  // True when there is a row to read, false at the end.
  Result<bool> step();
  // Runs to the end, for statements that give no rows.
  Result<void> run();
  void reset();

  bool is_null(int column) const { return sqlite3_column_type(handle(), column) == SQLITE_NULL; }
  int type(int column) const { return sqlite3_column_type(handle(), column); }
  std::int64_t integer(int column) const { return sqlite3_column_int64(handle(), column); }
  std::uint64_t count(int column) const { return as_count(integer(column)); }
  double real(int column) const { return sqlite3_column_double(handle(), column); }
  std::string_view view(int column) const;  // until the next step
  std::string_view blob(int column) const;  // until the next step
  std::string text(int column) const { return std::string(view(column)); }
  template <typename T>
  std::optional<T> optional(int column) const {
    if (is_null(column)) return std::nullopt;
    if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(real(column));
    } else {
      return static_cast<T>(integer(column));
    }
  }
  sqlite3_stmt* handle() const { return handle_.get(); }

 private:
  void note(int code) {
    if (code != SQLITE_OK && bind_error_ == SQLITE_OK) bind_error_ = code;
  }
  Owned<sqlite3_stmt, sqlite3_finalize> handle_;
  int bind_error_ = SQLITE_OK;
};

class Database {
 public:
  Database() = default;
  // `flags` as of sqlite3_open_v2. The message of an error names the file.
  static Result<Database> open(const std::string& path, int flags);

  Result<void> execute(const std::string& sql);
  Result<Statement> prepare(std::string_view sql);
  // The first column of the first row; 0 when there is none.
  Result<std::int64_t> integer(std::string_view sql);
  sqlite3* handle() const { return handle_.get(); }
  Error error() const;  // of the last call

 private:
  Owned<sqlite3, sqlite3_close_v2> handle_;
};

// Rolls back unless commit() succeeded.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database, const char* kind = "IMMEDIATE");
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Result<void> commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_ = nullptr;
};

// The error of an SQLite result code: "SUBJECT: DETAIL".
Error make_error(int code, std::string_view subject, std::string_view detail);

}  // namespace tierlog::store::sqlite
