#include "logger/record_ids.h"

#include <algorithm>
#include <cstdio>

namespace tierlog::logger {

RecordIds::RecordIds() {
  std::random_device seed;
  random_.seed((std::uint64_t{seed()} << 32) | seed());
}

std::string RecordIds::next(WallTime now) {
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
  char text[48];
  std::snprintf(text, sizeof text, "%08llx-%04llx-%04x-%04llx-%012llx",
                static_cast<unsigned long long>(time >> 16 & 0xffffffff),
                static_cast<unsigned long long>(time & 0xffff), 0x7000 | counter_,
                static_cast<unsigned long long>(tail >> 48),
                static_cast<unsigned long long>(tail & 0xffffffffffffULL));
  return text;
}

}  // namespace tierlog::logger
