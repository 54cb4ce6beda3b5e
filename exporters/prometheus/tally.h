// exporters/prometheus/tally.h - sums over all records that were ever written, for counters that never go
// back.
//
//   flows.db --records behind the cursor--> [Tally] --sums--> policy_metrics.cpp, pod_metrics.cpp
//                                              ` sums and cursor together in metrics.json
//
// Records are immutable and numbered, so the sums up to a number are the same whenever they are made: a
// restarted daemon goes on from the file, after a kill from an older one, and counts nothing twice. Retention
// takes records only long after they were summed.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "store/query.h"

namespace tierlog::prometheus {

struct PolicyKey {
  std::string tier, policy, kind, policy_namespace;
  Direction direction{};
  store::Verdict action{};
  auto operator<=>(const PolicyKey&) const = default;
};
struct PolicySums {
  std::uint64_t packets = 0, bytes = 0, connections = 0;
};

struct DeniedKey {
  std::string tier, policy;
  Direction direction{};
  std::string from_namespace, to_namespace;  // empty: no pod
  auto operator<=>(const DeniedKey&) const = default;
};
struct DeniedSums {
  std::uint64_t packets = 0, bytes = 0;
};

struct PodKey {
  std::string pod_namespace, workload, pod;
  auto operator<=>(const PodKey&) const = default;
};
// Of one direction of connections (or packets), as seen from the pod.
struct PodWay {
  std::uint64_t forward_packets = 0, forward_bytes = 0, drop_packets = 0, drop_bytes = 0;
  std::uint64_t connections = 0, reset = 0, refused = 0, unanswered = 0;
  void add(const PodWay& other);
};
struct PodSums {
  PodWay ingress, egress;
};

// What stands in the place of names when there are too many.
inline constexpr const char* kOther = "other";

struct Sums {
  std::string index;        // FlowReader::identity() of the flow index that they are of
  std::int64_t cursor = 0;  // sequence of the last record that is in
  std::map<PolicyKey, PolicySums> policies;
  std::map<DeniedKey, DeniedSums> denied;
  std::map<PodKey, PodSums> pods;
};

class Tally {
 public:
  // Goes on from the file when it is there and can be read. At most `max_series` keys of each kind get sums
  // of their own, the first that come; what comes later is summed up in "other", so that no sum ever gets
  // smaller.
  Tally(std::string file, std::size_t max_series);

  // Takes in what was written since. Errors: of the reader; what was taken stays.
  Result<void> catch_up(store::FlowReader& reader);
  const Sums& sums() const { return sums_; }
  // Pods that are not among these and for which there is no room any more are forgotten.
  void make_room(const std::set<PodKey>& there);
  std::size_t max_series() const { return max_series_; }
  // In one piece or not at all. Nothing to do when nothing changed.
  Result<void> save();

 private:
  // Keys of references, so that a usual record costs no look-up by name.
  struct Names {
    std::unordered_map<std::int64_t, store::RuleNames> rules;
    std::unordered_map<std::int64_t, PodKey> pods;  // pod empty: no pod of this cluster
  };
  Result<void> take(store::FlowReader& reader, const store::ScannedFlow& flow);
  Result<const store::RuleNames*> rule(store::FlowReader& reader, std::int64_t reference);
  Result<const PodKey*> pod(store::FlowReader& reader, std::int64_t reference);
  void load();

  std::string file_;
  std::size_t max_series_;
  Sums sums_;
  Names names_;
  std::int64_t saved_ = 0;
};

}  // namespace tierlog::prometheus
