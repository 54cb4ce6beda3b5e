#include "api/readers.h"

#include <sys/stat.h>

namespace tierlog::api {
namespace {

constexpr std::size_t kIdle = 4;

}  // namespace

std::pair<std::uint64_t, std::uint64_t> Readers::file() const {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino};
}

Result<store::FlowReader> Readers::take() {
  {
    const std::lock_guard lock(mutex_);
    if (const auto now = file(); now != of_) {
      idle_.clear();
      of_ = now;
    }
    if (!idle_.empty()) {
      store::FlowReader reader = std::move(idle_.back());
      idle_.pop_back();
      return reader;
    }
  }
  return store::FlowReader::open(path_);
}

void Readers::give_back(store::FlowReader reader) {
  const std::lock_guard lock(mutex_);
  // Taken before the file was replaced: whose it is cannot be told any more.
  if (idle_.size() < kIdle && file() == of_) idle_.push_back(std::move(reader));
}

}  // namespace tierlog::api
