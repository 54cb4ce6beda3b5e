#include "store/outbox.h"

#include <algorithm>

#include "store/filter_sql.h"
#include "store/flow_rows.h"
#include "store/schema.h"
#include "store/sqlite.h"

namespace tierlog::store {

struct Outbox::Impl {
  sqlite::Database database;  // first: statements below must be gone before it closes
  FlowRowReader rows;
  WhereClause where;
  std::string after, until;  // names of the parameters
  sqlite::Statement select, ends;
};

Outbox::Outbox(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Outbox::Outbox(Outbox&&) noexcept = default;
Outbox& Outbox::operator=(Outbox&&) noexcept = default;
Outbox::~Outbox() = default;

Result<Outbox> Outbox::open(const std::string& path, std::vector<FieldFilter> filters) {
  // Says what a missing file is.
  TL_ASSIGN(FlowReader reader, FlowReader::open(path));
  TL_ASSIGN(const Origin origin, reader.origin());
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX));
  TL_TRY(check_schema(database, path));
  TL_TRY(database.execute("PRAGMA query_only = ON"));
  TL_TRY(register_functions(database));
  TL_ASSIGN(auto rows, FlowRowReader::open(database));
  FlowQuery query;
  query.filters = std::move(filters);
  TL_ASSIGN(WhereClause where, WhereClause::of(query, origin));
  const int parameters = where.parameters();
  const std::string after = "?" + std::to_string(parameters + 1), until = "?" + std::to_string(parameters + 2);
  TL_ASSIGN(auto select, database.prepare(std::string("SELECT ") + kFlowColumns + " FROM flow AS f WHERE f.seq > " + after +
                                          " AND f.seq <= " + until + " AND (" + where.sql() + ") ORDER BY f.seq"));
  // Two look-ups at the ends of a piece, whatever is between them.
  TL_ASSIGN(auto ends, database.prepare("SELECT (SELECT min(seq) FROM flow WHERE seq > ?1), (SELECT max(seq) FROM flow)"));
  return Outbox(std::make_unique<Impl>(Impl{std::move(database), std::move(rows), std::move(where), after, until,
                                            std::move(select), std::move(ends)}));
}

Result<OutboxPiece> Outbox::read(std::int64_t cursor, std::size_t limit) {
  OutboxPiece piece;
  piece.through = cursor;
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(impl_->database, "DEFERRED"));
  TL_ASSIGN(const bool row, impl_->ends.bind(cursor).step());
  const bool any = row && !impl_->ends.is_null(0);
  const std::int64_t first = any ? impl_->ends.integer(0) : 0;
  piece.last = row ? impl_->ends.integer(1) : 0;
  impl_->ends.reset();
  if (!any) return piece;
  piece.expired = static_cast<std::uint64_t>(first - cursor - 1);
  piece.through = std::min(piece.last, first - 1 + static_cast<std::int64_t>(limit));
  impl_->select.reset();
  impl_->where.bind(impl_->select);
  impl_->select.bind_at(impl_->where.parameters() + 1, first - 1);
  impl_->select.bind_at(impl_->where.parameters() + 2, piece.through);
  TL_ASSIGN(piece.records, impl_->rows.read_all(impl_->select));
  impl_->select.reset();
  return piece;
}

Result<void> check_filters(const std::vector<FieldFilter>& filters) {
  FlowQuery query;
  query.filters = filters;
  TL_TRY(WhereClause::of(query, {}));
  return {};
}

}  // namespace tierlog::store
