// store/export.h - records out of a flow index, in the order of writing, as many as there are.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::store {

// Records that `query` means, in pages: memory does not grow with them. Its limit and order are not looked
// at; records that are written meanwhile are left out. `take` gets each page and how far it is (0 to 1).
// Returns how many records there were.
using TakePage = std::function<Result<void>(std::span<const StoredRecord> page, double share)>;
Result<std::uint64_t> for_each_record(FlowReader& reader, FlowQuery query, const TakePage& take);

// The same into a new flow index of its own, with what is enforced and what was: every command and view works on it.
// Errors: InvalidArgument when `to` exists already.
Result<std::uint64_t> export_flow_index(FlowReader& reader, const FlowQuery& query, const std::string& to,
                                        const std::function<void(double share)>& progress);

}  // namespace tierlog::store
