// store/filter_sql.h - the filters of a query as a WHERE clause with bound parameters.
//
//   FieldFilter --[WhereClause]--> "f.action = 1 AND f.rule IN (SELECT …)" + what to bind
//
// Patterns, CIDRs and selectors become SQL calls of tl_match(?, column…) over the small dictionary
// tables; the flow table is then searched by reference.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "store/query.h"
#include "store/sqlite.h"

namespace tierlog::store {

// What tl_match calls with the texts of its further arguments.
using Predicate = std::function<bool(const std::vector<std::string_view>&)>;

// Registers tl_match and tl_reason (number -> name) on a connection.
Result<void> register_functions(sqlite::Database& database);

class WhereClause {
 public:
  // The condition over `flow AS f` that `query` means, "1" when it means everything; its limit and order
  // are the caller's. Errors: InvalidArgument.
  static Result<WhereClause> of(const FlowQuery& query, const Origin& origin);

  const std::string& sql() const { return sql_; }
  // Parameters are ?1, ?2, … in order; the caller may use numbers above parameters().
  void bind(sqlite::Statement& statement) const;
  int parameters() const { return static_cast<int>(parameters_.size()); }

  // Adds a parameter and returns its name in SQL ("?7").
  std::string add(std::int64_t value);
  std::string add(std::string value);
  std::string add(Predicate predicate);
  void set_sql(std::string sql) { sql_ = std::move(sql); }

 private:
  using Parameter = std::variant<std::int64_t, std::string, std::shared_ptr<Predicate>>;
  std::string add_parameter(Parameter parameter);
  std::string sql_;
  std::vector<Parameter> parameters_;
};

}  // namespace tierlog::store
