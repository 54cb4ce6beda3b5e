// store/outbox.h - the flow index as an outbox: what an export has still to bring, in pieces.
//
//   flows.db --[Outbox], behind a cursor, by a filter--> daemon/export_worker.h --> exporters/
//
// Every piece says how far it looked, so that a cursor also passes what the filter leaves out, and how many
// records retention took before they were read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::store {

struct OutboxPiece {
  std::vector<StoredRecord> records;  // in the order of writing
  std::int64_t through = 0;           // nothing that passes the filter is left at or before it
  std::int64_t last = 0;              // the newest record's sequence
  std::uint64_t expired = 0;          // records after the cursor that are not kept any more
};

class Outbox {
 public:
  // Errors: as FlowReader::open; InvalidArgument for a filter's value that cannot be understood.
  static Result<Outbox> open(const std::string& path, std::vector<FieldFilter> filters);
  Outbox(Outbox&&) noexcept;
  Outbox& operator=(Outbox&&) noexcept;
  ~Outbox();

  // Looks at no more than `limit` records behind `cursor`.
  Result<OutboxPiece> read(std::int64_t cursor, std::size_t limit);

 private:
  struct Impl;
  explicit Outbox(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Whether the filters' values can be understood. Errors: InvalidArgument.
Result<void> check_filters(const std::vector<FieldFilter>& filters);

}  // namespace tierlog::store
