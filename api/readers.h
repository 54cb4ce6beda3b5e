// api/readers.h - read-only connections to the flow index, kept open between requests.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::api {

class Readers {
 public:
  explicit Readers(std::string path) : path_(std::move(path)) {}

  // A connection for one request; give it back. Errors: as FlowReader::open.
  Result<store::FlowReader> take();
  void give_back(store::FlowReader reader);
  const std::string& path() const { return path_; }

 private:
  // Another file in its place is another index: connections to the one before are dropped.
  std::pair<std::uint64_t, std::uint64_t> file() const;

  std::string path_;
  std::mutex mutex_;
  std::pair<std::uint64_t, std::uint64_t> of_{};
  std::vector<store::FlowReader> idle_;
};

}  // namespace tierlog::api
