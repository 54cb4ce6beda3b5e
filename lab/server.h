// lab/server.h - somebody to talk to: TCP and UDP echo on a host's ports, so that allowed connections
// really come about.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "lab/enter.h"

namespace tierlog::lab {

// Listens on both families, TCP and UDP; lives as long as the lab. Returns when it serves.
Result<ProcessId> start_server(const Place& place, const std::vector<std::uint16_t>& ports);

}  // namespace tierlog::lab
