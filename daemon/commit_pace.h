// daemon/commit_pace.h - when records that wait are given to the store: soon while they are few; many wait
// for more, since what a batch costs besides its rows is then paid less often.
//
// 20 ms and 60 ms, well within the 200 ms from an event to its visible row. Of 20,000 rows a second, batches
// of 20 ms cost 0.9 us a row more than batches of 60 ms.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>

#include "base/time.h"

namespace tierlog::daemon {

class CommitPace {
 public:
  static constexpr std::chrono::milliseconds kFew{20}, kMany{60};
  static constexpr std::size_t kManyRecords = 256;

  // Asked at each turn: whether what waits is to be given now. `records`: how many of it are records.
  bool due(Nanoseconds now, bool waits, std::size_t records) {
    if (waits && !waits_) since_ = now;
    waits_ = waits && now - since_ < within(records);
    return waits && !waits_;
  }
  // When to ask again at the latest, while something waits.
  std::optional<Nanoseconds> look_at(std::size_t records) const {
    if (!waits_) return std::nullopt;
    return since_ + within(records);
  }

 private:
  static Nanoseconds within(std::size_t records) { return records < kManyRecords ? kFew : kMany; }
  bool waits_ = false;
  Nanoseconds since_{};
};

}  // namespace tierlog::daemon
