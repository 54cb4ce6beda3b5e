// exporters/fluentbit/chunk_packer.h - entries become messages on a thread of their own, so that compressing a chunk
// and encoding the next one take two cores.
//
//   forward_sink.cpp --Entries--> [ChunkPacker: gzip, wrap] --message--> connection
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include "exporters/fluentbit/forward_codec.h"

namespace tierlog::exporters::fluentbit {

class ChunkPacker {
 public:
  struct Entries {
    std::string tag, chunk;
    std::string bytes;  // of append_entry(), one after the other
    std::size_t count = 0;
  };

  explicit ChunkPacker(Compression compression) : compression_(compression) {}
  ChunkPacker(const ChunkPacker&) = delete;
  ChunkPacker& operator=(const ChunkPacker&) = delete;
  ~ChunkPacker();  // what it has not begun yet is dropped

  // The whole message, later; in the order of the calls. What needs no compression is there at once, and everything
  // where no thread can be had. Where there is no memory to compress it a chunk goes as it is.
  std::future<std::string> pack(Entries entries);

 private:
  using Task = std::packaged_task<std::string()>;
  std::string packed(const Entries& entries);
  bool has_thread();
  void run();

  const Compression compression_;
  Gzip gzip_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tierlog::exporters::fluentbit
