// logger/record_ids.h - ids of records: UUID version 7 (RFC 9562), so that they sort by time.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "base/time.h"
#include "store/flow_entry.h"

namespace tierlog::logger {

class RecordIds {
 public:
  RecordIds();
  store::RecordId next_id(WallTime now);
  std::string next(WallTime now) { return store::to_text(next_id(now)); }

 private:
  std::mt19937_64 random_;
  std::int64_t last_ms_ = 0;
  std::uint32_t counter_ = 0;  // 12 bits after the time keep the order inside a millisecond
};

}  // namespace tierlog::logger
