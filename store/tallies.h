// store/tallies.h - the sums that are kept with each batch of records instead of being counted later.
//
// Tables recorded (by rule) and staged_recorded (by staged policy).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "store/catalog.h"
#include "store/flow_entry.h"
#include "store/sqlite.h"

namespace tierlog::store {

// The sums as they are committed.
Result<std::vector<RuleCount>> read_recorded(sqlite::Database& database);

class Tallies {
 public:
  static Result<Tallies> open(sqlite::Database& database);

  void count(const FlowRecord& record);
  void count(const FlowEntry& entry);
  // Adds what was counted to the tables, inside the caller's transaction, and starts from zero.
  Result<void> flush();
  void forget();

 private:
  struct Rule {
    std::uint64_t packets = 0, bytes = 0, connections = 0, denied_packets = 0, suppressed = 0;
    std::optional<std::int64_t> last_ns;
  };
  struct Staged {
    std::uint64_t denied_packets = 0;
    std::int64_t last_ns = 0;
  };

  void add(const FlowRecord& like, std::uint64_t packets, std::uint64_t connections, std::uint64_t bytes,
           std::int64_t hit_ns);

  sqlite::Statement add_rule_, add_staged_;
  std::unordered_map<RuleId, Rule> rules_;
  std::map<std::string, Staged> staged_;
};

}  // namespace tierlog::store
