// daemon/store_writer.h - the thread that writes to the flow index, so that nobody who takes events waits for
// a disk.
//
//   Recorder --Batch--> [StoreWriter] --> store/flow_store.h
//
// One batch is under way at most. While it is, records wait in logger/pending.h, where their room is bounded.
// Between batches it keeps the file within its limits and its sums up to date (FlowStore::maintain).
// A batch that the store refuses is tried again until it is written: what it tells is told once.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/flow_store.h"

namespace tierlog::daemon {

class StoreWriter {
 public:
  struct Counts {
    std::vector<store::RuleCount> counts;
    std::vector<store::LossCount> losses;
    WallTime at{};
  };
  // What came into force, for those who look back (FlowStore::put_moment).
  struct InForce {
    store::Moment moment;
    std::shared_ptr<const policy::Cluster> cluster;
    std::vector<store::KnownRule> rules;
  };
  struct Batch {
    std::optional<store::Catalog> catalog;  // first: records refer to its rules
    std::vector<InForce> moments;           // in the order of time
    std::vector<store::FlowEntry> entries;
    store::ToldChanges changes;
    std::optional<Counts> counts;

    bool empty() const {
      return !catalog && moments.empty() && entries.empty() && changes.empty() && !counts;
    }
  };

  // Until start() batches are written by whoever gives them.
  StoreWriter(store::FlowStore& store, const Clock& clock);
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;
  ~StoreWriter();  // writes what it has, if the store takes it at once

  // Its thread begins with the privileges that the caller has left.
  void start();
  bool idle() const;
  void give(Batch batch);  // only when idle
  // Until it is idle. False: it was not within that time.
  bool wait(Nanoseconds longest);

  // Of this process: batches that were refused, and why the latest was; empty: it was written.
  std::uint64_t refused() const;
  std::string problem() const;
  store::StoreState state() const;  // after the last batch or piece of maintenance
  Nanoseconds longest() const;      // that one batch took
  // Of the newest record that is written; 0 before the first batch of this process. Waits for nobody.
  std::int64_t last_sequence() const;

 private:
  void run();
  void attempt(std::unique_lock<std::mutex>& lock);
  void maintain(std::unique_lock<std::mutex>& lock);
  Result<void> write(Batch& batch);

  using Steady = std::chrono::steady_clock;

  store::FlowStore& store_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::optional<Batch> batch_;
  bool stop_ = false;
  std::uint64_t refused_ = 0;
  std::string problem_;
  store::StoreState state_;
  Steady::time_point attempt_at_{}, maintain_at_{};
  Nanoseconds longest_{};
  std::int64_t last_sequence_ = 0;
  std::thread thread_;
};

}  // namespace tierlog::daemon
