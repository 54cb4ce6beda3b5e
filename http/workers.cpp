#include "http/workers.h"

#include <algorithm>
#include <utility>

namespace tierlog::http {

Workers::Workers() {
  for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { run(); });
}

void Workers::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  there_is_work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool Workers::give(std::function<void()> job, bool is_long) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || jobs_.size() >= kWaiting) return false;
    jobs_.push_back({std::move(job), is_long});
  }
  there_is_work_.notify_one();
  return true;
}

// The first job that may begin now. Called with the lock held.
bool Workers::next(Job& job) {
  const bool long_may = long_ones_ + 1 < kThreads;
  const auto found =
      std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& one) { return long_may || !one.is_long; });
  if (found == jobs_.end()) return false;
  job = std::move(*found);
  jobs_.erase(found);
  long_ones_ += job.is_long;
  return true;
}

void Workers::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    Job job;
    there_is_work_.wait(lock, [&] { return next(job) || (stop_ && jobs_.empty()); });
    if (!job.work) return;
    lock.unlock();
    job.work();
    lock.lock();
    long_ones_ -= job.is_long;
    // Whoever waited for a long one's end.
    there_is_work_.notify_all();
  }
}

}  // namespace tierlog::http
