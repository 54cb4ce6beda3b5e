// store/reader.h - the inside of FlowReader, shared by its two files.
#pragma once

#include <string>
#include <utility>

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
  // Rows of one text column.
  Result<std::vector<std::string>> texts(const std::string& sql);
};

}  // namespace tierlog::store
