// daemon/backoff.h - how long to wait before the next attempt: twice as long after each failure, never exactly as
// long as others who failed at the same moment.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace tierlog::daemon {

class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds most) : first_(first), most_(most), next_(first) {}

  // Between half of it and the whole of 1, 2, 4, … times `first`, at most `most`.
  std::chrono::milliseconds next() {
    const auto whole = next_;
    next_ = std::min(next_ * 2, most_);
    std::uniform_int_distribution<std::chrono::milliseconds::rep> some(whole.count() / 2, whole.count());
    return std::chrono::milliseconds(some(random_));
  }
  // After a success.
  void reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_, most_, next_;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace tierlog::daemon
