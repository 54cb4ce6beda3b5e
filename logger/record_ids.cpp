#include "logger/record_ids.h"

#include <algorithm>

namespace tierlog::logger {

RecordIds::RecordIds() {
  std::random_device seed;
  random_.seed((std::uint64_t{seed()} << 32) | seed());
}

store::RecordId RecordIds::next_id(WallTime now) {
  constexpr std::uint32_t kCounterLimit = 0x1000;
  const std::int64_t ms = std::max(last_ms_, to_ns(now) / 1'000'000);
  if (ms == last_ms_) {
    if (++counter_ == kCounterLimit) {
      ++last_ms_;
      counter_ = 0;
    }
  } else {
    last_ms_ = ms;
    counter_ = 0;
  }
  const auto time = static_cast<std::uint64_t>(last_ms_);
  const std::uint64_t tail = (random_() & 0x3fffffffffffffffULL) | 0x8000000000000000ULL;
  const std::uint64_t head = time << 16 | 0x7000 | counter_;
  store::RecordId id{};
  for (std::size_t i = 0; i < 8; ++i) {
    id[i] = static_cast<std::uint8_t>(head >> (56 - 8 * i));
    id[8 + i] = static_cast<std::uint8_t>(tail >> (56 - 8 * i));
  }
  return id;
}

}  // namespace tierlog::logger
