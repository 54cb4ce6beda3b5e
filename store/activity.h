// store/activity.h - what rules and policies did so far, for those who ask again and again: names are read
// when they change, numbers each time.
//
//   flows.db --[ActivityReader]--> Activity --> exporters/prometheus
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "store/query.h"
#include "store/sqlite.h"

namespace tierlog::store {

struct Activity {
  std::vector<RuleActivity> rules;       // as FlowReader::rules("", true)
  std::vector<PolicyActivity> policies;  // as FlowReader::policies(); of their numbers only the two below are
                                         // kept up to date: staged_denied, last_hit
  std::vector<EndpointRow> endpoints;
  std::vector<LossCount> losses;
};

class ActivityReader {
 public:
  // Errors: as FlowReader::open.
  static Result<ActivityReader> open(const std::string& path);

  // All numbers are of one moment. `into` is what the last call filled, or empty before the first. Errors: of
  // SQLite; then `into` is to be read by a new reader, from the beginning.
  Result<void> read(Activity& into);

 private:
  ActivityReader(FlowReader names, sqlite::Database database)
      : names_(std::move(names)), database_(std::move(database)) {}
  Result<std::string> version();
  Result<void> read_names(Activity& into);
  Result<void> read_counters(Activity& into);
  Result<void> read_recorded(Activity& into);
  Result<void> read_losses(Activity& into);
  Result<void> read_policies(Activity& into);
  RuleActivity* rule(Activity& in, std::int64_t id);

  FlowReader names_;
  sqlite::Database database_;  // before the statements: they must be gone before it closes
  sqlite::Statement version_of_, counters_, recorded_, losses_, staged_;
  std::string version_;                                  // of the names that are in
  std::unordered_map<std::int64_t, std::size_t> place_;  // of a rule id among them
};

}  // namespace tierlog::store
