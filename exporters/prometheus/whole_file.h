// exporters/prometheus/whole_file.h - a file that is there as it was or as it is written now, never in part.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace tierlog::prometheus {

// What the new content outlives. Process: any end of this one; after a power failure the old may be there
// again.
enum class Durability : std::uint8_t { Process, Power };

// Mode 0640; `path`.new is used on the way. Errors: Io, and as Error::from_errno says them.
Result<void> write_whole(const std::string& path, const std::string& text, Durability durability);

}  // namespace tierlog::prometheus
