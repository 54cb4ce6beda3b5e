// exporters/prometheus/families.h - what the flow index and the daemon hold, as families of samples.
#pragma once

#include <optional>
#include <vector>

#include "exporters/prometheus/exposition.h"
#include "exporters/prometheus/health.h"
#include "exporters/prometheus/tally.h"
#include "store/activity.h"

namespace tierlog::prometheus {

// What one scrape read from the flow index.
struct Index : store::Activity {
  std::int64_t last_sequence = 0;  // that is kept
  std::int64_t last_written = 0;   // whether retention took it or not
  std::optional<WallTime> oldest;
  // Of each export in Health: when the first record that it did not deliver ended; nothing: none waits.
  std::vector<std::optional<WallTime>> waiting_since;
};

void policy_families(Exposition& out, const Index& index, const Sums& sums);
void rule_families(Exposition& out, const Index& index);
void pod_families(Exposition& out, const Sums& sums);
// Books, store, exports, policies in force.
void daemon_families(Exposition& out, const Index& index, const Health& health, WallTime now);

}  // namespace tierlog::prometheus
