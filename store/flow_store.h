// store/flow_store.h - the flow index: one SQLite file that anybody in the group may read.
//
//   logger/ records --> [FlowStore] --> views flows, denied_flows, policy_activity, rules, endpoints, loss
//                            `--> exporters (read_after), store/query.h (the commands)
//
// WAL, one writer (the daemon). Records are committed in batches. Schema version = PRAGMA user_version;
// migrations run on open for writing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/catalog.h"
#include "store/flow_entry.h"
#include "store/history.h"
#include "store/record.h"
#include "store/told.h"

namespace tierlog::store {

inline constexpr int kSchemaVersion = 4;

// A record and its place in the file; sequences ascend in the order of writing.
struct StoredRecord {
  std::int64_t sequence = 0;
  FlowRecord record;
};

// May be called from several threads: calls exclude each other.
class FlowStore {
 public:
  // Creates the file (mode 0640; group `tierlog` where it exists, -wal and -shm alike and persistent) and
  // its schema, or migrates an older one. The folder must exist.
  // Errors: Corrupt (not ours, or a newer schema: the message says which), Io.
  static Result<FlowStore> open_writer(const std::string& path, const Origin& origin);
  FlowStore(FlowStore&&) noexcept;
  FlowStore& operator=(FlowStore&&) noexcept;
  ~FlowStore();

  // Each call is one transaction. The rules that records refer to must be in a catalog written before.
  Result<void> insert(std::span<const FlowRecord> records) { return insert(records, {}); }
  // `told`: what these records change about how much has been told; both or neither is written.
  Result<void> insert(std::span<const FlowRecord> records, const ToldChanges& told);
  Result<void> append(std::span<const FlowEntry> entries, const ToldChanges& told);
  Result<Told> told();
  Result<void> put_catalog(const Catalog& catalog);
  // What came into force, for those who look back. Call it after put_catalog.
  Result<void> put_moment(const Moment& moment, const policy::Cluster& cluster,
                          std::span<const KnownRule> rules);
  Result<void> put_rules(std::span<const RuleRow> rules);  // adds or updates, marks nothing as gone
  Result<void> put_counts(std::span<const RuleCount> counts, std::span<const LossCount> losses, WallTime at);
  // Packets (sum of verdict_packets) and bytes (of denied flows) already recorded for a rule: where a
  // restarted daemon's books begin. Kept sums, no scan; what retention removed is still in them.
  Result<std::vector<RuleCount>> recorded();
  // What the kernel counted in all lives of each counter, as of the last put_counts.
  Result<std::vector<RuleCount>> counted();

  // Records after `sequence`, ascending, at most `limit`.
  Result<std::vector<StoredRecord>> read_after(std::int64_t sequence, std::size_t limit);
  Result<std::int64_t> last_sequence();
  // Of all that records and catalog speak of; 0: none.
  Result<RuleId> highest_rule_id();
  // End of the oldest record that is kept; nothing without any.
  Result<std::optional<WallTime>> oldest();
  // End of the record of that sequence, or of the last one before it that is kept.
  Result<std::optional<WallTime>> time_of(std::int64_t sequence);

 private:
  struct Impl;
  template <typename Record>
  Result<void> insert_batch(std::span<const Record> records, const ToldChanges& told);
  explicit FlowStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The folder of flows.db and state.db: created with mode 2750 root:tierlog (group as far as it exists).
Result<void> prepare_store_folder(const std::string& folder);

}  // namespace tierlog::store
