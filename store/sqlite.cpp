#include "store/sqlite.h"

#include <utility>

namespace tierlog::store::sqlite {
namespace {

ErrorCode code_of(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
      return ErrorCode::Unavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::Corrupt;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
      return ErrorCode::Refused;
    default:
      return ErrorCode::Io;
  }
}

Error last_error(sqlite3* database) {
  const char* path = sqlite3_db_filename(database, "main");
  return make_error(sqlite3_extended_errcode(database), path == nullptr ? "database" : path,
                    sqlite3_errmsg(database));
}

}  // namespace

Error make_error(int code, std::string_view subject, std::string_view detail) {
  return {code_of(code), std::string(subject).append(": ").append(detail), 0};
}

void Statement::bind_at(int index, std::string_view text) {
  note(sqlite3_bind_text64(handle(), index, text.data() == nullptr ? "" : text.data(), text.size(),
                           SQLITE_TRANSIENT, SQLITE_UTF8));
}

void Statement::bind_blob(int index, std::string_view bytes) {
  note(sqlite3_bind_blob64(handle(), index, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
}

void Statement::bind_at(int index, Borrowed borrowed) {
  const std::string_view text = borrowed.text;
  note(sqlite3_bind_text64(handle(), index, text.data() == nullptr ? "" : text.data(), text.size(), SQLITE_STATIC,
                           SQLITE_UTF8));
}

void Statement::bind_blob(int index, Borrowed bytes) {
  note(sqlite3_bind_blob64(handle(), index, bytes.text.data(), bytes.text.size(), SQLITE_STATIC));
}

void Statement::bind_object(int index, void* object, const char* type) {
  note(sqlite3_bind_pointer(handle(), index, object, type, nullptr));
}

Result<bool> Statement::step() {
  if (bind_error_ != SQLITE_OK) {
    const int code = std::exchange(bind_error_, SQLITE_OK);
    return fail(make_error(code, "bind a parameter", sqlite3_errstr(code)));
  }
  const int code = sqlite3_step(handle());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return fail(last_error(sqlite3_db_handle(handle())));
}

Result<void> Statement::run() {
  for (;;) {
    TL_ASSIGN(const bool more, step());
    if (!more) break;
  }
  reset();
  return {};
}

void Statement::reset() {
  if (handle_) sqlite3_reset(handle());
}

std::string_view Statement::view(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(handle(), column));
  if (text == nullptr) return {};
  return {text, static_cast<std::size_t>(sqlite3_column_bytes(handle(), column))};
}

std::string_view Statement::blob(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(handle(), column));
  if (bytes == nullptr) return {};
  return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle(), column))};
}

Result<Database> Database::open(const std::string& path, int flags) {
  // Nobody asks SQLite how much memory it has in use, and to know it costs a lock for each piece. Refused where another
  // part of the process has begun to use SQLite before.
  [[maybe_unused]] static const int kUncounted = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  Database database;
  database.handle_.reset(raw);
  if (code != SQLITE_OK)
    return fail(
        make_error(code, "open " + path, raw != nullptr ? sqlite3_errmsg(raw) : sqlite3_errstr(code)));
  sqlite3_busy_timeout(raw, kBusyTimeoutMs);
  return database;
}

Result<void> Database::execute(const std::string& sql) {
  if (sqlite3_exec(handle(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return fail(error());
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v3(handle(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &raw,
                         nullptr) != SQLITE_OK)
    return fail(error());
  return Statement(raw);
}

Result<std::int64_t> Database::integer(std::string_view sql) {
  TL_ASSIGN(Statement statement, prepare(sql));
  TL_ASSIGN(const bool row, statement.step());
  return row ? statement.integer(0) : 0;
}

Error Database::error() const {
  return last_error(handle());
}

Result<Transaction> Transaction::begin(Database& database, const char* kind) {
  TL_TRY(database.execute(std::string("BEGIN ") + kind));
  return Transaction(database);
}

Transaction::~Transaction() {
  if (database_ != nullptr) static_cast<void>(database_->execute("ROLLBACK"));
}

Result<void> Transaction::commit() {
  TL_TRY(database_->execute("COMMIT"));
  database_ = nullptr;
  return {};
}

}  // namespace tierlog::store::sqlite
