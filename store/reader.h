// store/reader.h - the inside of FlowReader, shared by its two files.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "store/filter_sql.h"
#include "store/flow_rows.h"
#include "store/query.h"
#include "store/sqlite.h"

namespace tierlog::store {

struct FlowReader::Impl {
  Impl(sqlite::Database opened, FlowRowReader row_reader)
      : database(std::move(opened)), rows(std::move(row_reader)) {}

  sqlite::Database database;  // first: statements below must be gone before it closes
  FlowRowReader rows;

  Result<std::optional<std::string>> meta(const std::string& key);
  Result<Origin> origin();
  // Nothing where the query is about something else.
  Result<std::optional<std::vector<StoredRecord>>> denied_page(const FlowQuery& query, const Origin& here);
  Result<std::optional<std::vector<StoredRecord>>> sighted_page(const FlowQuery& query, const Origin& here);
  Result<std::vector<StoredRecord>> records_of(const std::vector<std::int64_t>& sequences);
  Result<std::optional<std::vector<FlowGroup>>> denied_sums(const FlowQuery& query, const Origin& here);
  Result<std::vector<FlowGroup>> sums_of_rows(const FlowQuery& query, WhereClause where);
  // Rows of one text column.
  Result<std::vector<std::string>> texts(const std::string& sql);
};

}  // namespace tierlog::store
