// daemon/config_exports.h - the entries of exports[] in tierlogd.yaml.
#pragma once

#include <cstddef>
#include <vector>

#include "base/diagnostics.h"
#include "base/yaml.h"
#include "daemon/config.h"

namespace tierlog::daemon {

// `place`: from 1, for the name of an entry that has none.
ExportConfig read_export(const yaml::Node& item, std::size_t place, Diagnostics& findings);
// A cursor belongs to a name: no two may have the same.
void check_names(const yaml::Node& list, const std::vector<ExportConfig>& exports, Diagnostics& findings);

}  // namespace tierlog::daemon
