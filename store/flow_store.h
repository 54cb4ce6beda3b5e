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
#include <mutex>
#include <optional>
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

inline constexpr int kSchemaVersion = 10;

// What the file may grow to; nullopt and 0 set no limit. The oldest records go first.
struct StoreLimits {
  std::optional<Nanoseconds> max_age;  // of a record's end
  std::uint64_t max_bytes = 0;         // the file, its -wal and its -shm together
  std::uint64_t max_rows = 0;
};

struct StoreOptions {
  StoreLimits limits;
  // A damaged file is kept aside as FILE.corrupt-TIME and a new one begun, instead of an error. Files that
  // are whole but of another program or a newer Tierlog are never touched.
  bool replace_damaged = false;
  std::int64_t first_sequence = 0;  // a new file's sequences ascend from here: cursors outlive files
  Nanoseconds clean_every = std::chrono::minutes(1);  // names that no record needs any more
  Nanoseconds roll_up_within = std::chrono::seconds(5);  // after its writing a record is in the sums, by maintain()
};

// How the store does: what status shows and what the logger goes by.
struct StoreState {
  enum class Level : std::uint8_t {
    Well,
    Busy,      // most of the last second went into writing: whoever can, brings sums instead of details
    Refusing,  // the last batch was not written (`problem` says why); bring it again, and keep no more than
               // memory allows
  } level = Level::Well;
  std::string problem;
  bool damaged = false;               // the file is no flow index any more: replace_damaged()
  std::uint64_t refused_batches = 0;  // since the start
  std::uint64_t removed_records = 0;  // by retention, since the start
  std::uint64_t records = 0;          // in the file now
  std::uint64_t bytes = 0;            // of the file, its -wal and its -shm
  std::uint64_t max_bytes = 0;
  std::optional<WallTime> oldest;  // end of the oldest record
  std::string kept_aside;          // where a damaged file went, if this run found one
};

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
  static Result<FlowStore> open_writer(const std::string& path, const Origin& origin) {
    return open_writer(path, origin, {});
  }
  static Result<FlowStore> open_writer(const std::string& path, const Origin& origin,
                                       const StoreOptions& options);
  FlowStore(FlowStore&&) noexcept;
  FlowStore& operator=(FlowStore&&) noexcept;
  ~FlowStore();

  // Each call is one transaction, visible to readers when it returns. An error wrote nothing: Unavailable
  // (disk full, a reader that holds the log), Refused (read-only), Corrupt, Io. The rules that records refer
  // to must be in a catalog written before.
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

  // A piece of the work that keeps the file within its limits and its sums up to date: at most about
  // `budget` long; true when there is more to do. Call it often.
  Result<bool> maintain(WallTime now, Nanoseconds budget);
  StoreState state() const;
  // After state().damaged: keeps the file aside and begins a new one under the same name, whose sequences
  // go on. Returns where the damaged one is. What the daemon enforces must be put anew.
  Result<std::string> replace_damaged();

  // Records after `sequence`, ascending, at most `limit`.
  Result<std::vector<StoredRecord>> read_after(std::int64_t sequence, std::size_t limit);
  Result<std::int64_t> last_sequence();
  // Of all that records and catalog speak of; 0: none.
  Result<RuleId> highest_rule_id();

 private:
  struct Impl;
  template <typename Record>
  Result<void> insert_batch(std::span<const Record> records, const ToldChanges& told);
  template <typename T>
  Result<T> note_read(Result<T> read);
  explicit FlowStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<std::mutex> mutex_;
  std::unique_ptr<Impl> impl_;
};

// The folder of flows.db and state.db: created with mode 2750 root:tierlog (group as far as it exists).
Result<void> prepare_store_folder(const std::string& folder);

}  // namespace tierlog::store
