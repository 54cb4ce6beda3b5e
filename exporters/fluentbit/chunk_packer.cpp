#include "exporters/fluentbit/chunk_packer.h"

#include <memory>
#include <system_error>
#include <utility>

namespace tierlog::exporters::fluentbit {

ChunkPacker::~ChunkPacker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    tasks_.clear();
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::string ChunkPacker::packed(const Entries& entries) {
  if (compression_ == Compression::Gzip)
    if (const auto small = gzip_.compress(entries.bytes))
      return wrap_entries({entries.tag, entries.chunk, entries.count, Compression::Gzip}, *small);
  return wrap_entries({entries.tag, entries.chunk, entries.count, Compression::None}, entries.bytes);
}

bool ChunkPacker::has_thread() {
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { run(); });
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

void ChunkPacker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
    if (stop_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = Task();  // its entries go before the next ones are held
    lock.lock();
  }
}

std::future<std::string> ChunkPacker::pack(Entries entries) {
  Task task([this, held = std::move(entries)] { return packed(held); });
  auto message = task.get_future();
  if (compression_ == Compression::None || !has_thread()) {
    task();
    return message;
  }
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return message;
}

}  // namespace tierlog::exporters::fluentbit
