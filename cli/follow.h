// cli/follow.h - new records as they come, by polling the flow database; needs no daemon.
#pragma once

#include <cstddef>
#include <functional>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::cli {

// What is shown before the first new record.
struct FollowStart {
  enum class From { Now, Since, Newest } from = From::Now;
  std::size_t count = 0;  // of Newest; 0 = all
};

// Calls `show` for each record in the order of writing until SIGINT or SIGTERM; that is no error.
Result<void> follow(store::FlowReader& reader, store::FlowQuery query, const FollowStart& start,
                    const std::function<void(const store::FlowRecord&)>& show);

}  // namespace tierlog::cli
