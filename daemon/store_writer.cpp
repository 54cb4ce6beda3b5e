#include "daemon/store_writer.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace tierlog::daemon {
namespace {

constexpr std::chrono::milliseconds kTryAgain{500};

}  // namespace

StoreWriter::~StoreWriter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StoreWriter::start() {
  thread_ = std::thread([this] { run(); });
}

bool StoreWriter::idle() const {
  const std::lock_guard lock(mutex_);
  return !batch_;
}

void StoreWriter::give(Batch batch) {
  std::unique_lock lock(mutex_);
  batch_ = std::move(batch);
  if (!thread_.joinable()) return attempt(lock);
  wake_.notify_all();
}

bool StoreWriter::wait(Nanoseconds longest) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable() && batch_) attempt(lock);
  return done_.wait_for(lock, longest, [this] { return !batch_; });
}

std::uint64_t StoreWriter::refused() const {
  const std::lock_guard lock(mutex_);
  return refused_;
}

std::string StoreWriter::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

Nanoseconds StoreWriter::longest() const {
  const std::lock_guard lock(mutex_);
  return longest_;
}

std::int64_t StoreWriter::last_sequence() const {
  const std::lock_guard lock(mutex_);
  return last_sequence_;
}

// Counts last: they must not be ahead of the records that explain them.
Result<void> StoreWriter::write(Batch& batch) {
  if (batch.catalog) TL_TRY(store_.put_catalog(*batch.catalog));
  batch.catalog.reset();
  TL_TRY(store_.append(batch.entries, batch.changes));
  batch.entries.clear();
  batch.changes = {};
  if (!batch.counts) return {};
  return store_.put_counts(batch.counts->counts, batch.counts->losses, batch.counts->at);
}

// Nobody else touches the batch meanwhile.
void StoreWriter::attempt(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const auto begun = std::chrono::steady_clock::now();
  const Result<void> written = write(*batch_);
  const Nanoseconds took = std::chrono::steady_clock::now() - begun;
  const Result<std::int64_t> last = written ? store_.last_sequence() : Result<std::int64_t>(std::int64_t{0});
  lock.lock();
  if (written && last) last_sequence_ = *last;
  longest_ = std::max(longest_, took);
  if (written) {
    problem_.clear();
    batch_.reset();
    done_.notify_all();
    return;
  }
  ++refused_;
  problem_ = written.error().message;
}

void StoreWriter::run() {
  ::pthread_setname_np(::pthread_self(), "store");
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return batch_ || stop_; });
    if (!batch_) return;
    attempt(lock);
    if (!batch_) continue;
    if (stop_) return;
    wake_.wait_for(lock, kTryAgain, [this] { return stop_; });
  }
}

}  // namespace tierlog::daemon
