// cni/spool.h - requests that wait for the daemon: one file each, DEL only.
#pragma once

#include <string>

#include "base/result.h"

namespace tierlog::cni {

// Writes `request` (a line of JSON) as FOLDER/CONTAINER@INTERFACE.json, whole or not at all; the same
// container again replaces it. Returns the path.
Result<std::string> spool(const std::string& folder, const std::string& container_id,
                          const std::string& interface, const std::string& request);

}  // namespace tierlog::cni
