#include "daemon/store_writer.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace tierlog::daemon {
namespace {

constexpr std::chrono::milliseconds kTryAgain{500};
constexpr std::chrono::milliseconds kMaintainEvery{250};
constexpr std::chrono::milliseconds kMaintainAgain{20};
// How long a batch may wait for it.
constexpr std::chrono::milliseconds kMaintainFor{15};

}  // namespace

StoreWriter::StoreWriter(store::FlowStore& store, const Clock& clock)
    : store_(store), clock_(clock), state_(store.state()) {}

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

store::StoreState StoreWriter::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
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
  while (!batch.moments.empty()) {
    const InForce& first = batch.moments.front();
    TL_TRY(store_.put_moment(first.moment, *first.cluster, first.rules));
    batch.moments.erase(batch.moments.begin());
  }
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
  store::StoreState state = store_.state();
  const Result<std::int64_t> last = written ? store_.last_sequence() : Result<std::int64_t>(std::int64_t{0});
  lock.lock();
  if (written && last) last_sequence_ = *last;
  state_ = std::move(state);
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

void StoreWriter::maintain(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const Result<bool> more = store_.maintain(clock_.wall(), kMaintainFor);
  store::StoreState state = store_.state();
  lock.lock();
  state_ = std::move(state);
  maintain_at_ = Steady::now() + (more && *more ? kMaintainAgain : kMaintainEvery);
}

void StoreWriter::run() {
  ::pthread_setname_np(::pthread_self(), "store");
  std::unique_lock lock(mutex_);
  while (true) {
    const auto until = batch_ ? std::min(attempt_at_, maintain_at_) : maintain_at_;
    const auto due = [this] { return batch_ && Steady::now() >= attempt_at_; };
    wake_.wait_until(lock, until, [&] { return stop_ || due(); });
    if (due() || (batch_ && stop_)) {
      attempt(lock);
      attempt_at_ = batch_ ? Steady::now() + kTryAgain : Steady::time_point{};
    }
    if (stop_) return;
    if (Steady::now() >= maintain_at_) maintain(lock);
  }
}

}  // namespace tierlog::daemon
