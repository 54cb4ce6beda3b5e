// dataplane/ebpf/arena.h - the memory that user space writes and the programs read: segments of 4 MiB.
//
//   Blob --[Arena::put]--> segment (mmap) --> programs, by reference (layout.h)
//
// Segments are made when they are needed and stay. What is put is changed by its owner only, where no packet can see a
// part of the change; it is freed when no packet can be reading it any more, which its owner knows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "dataplane/ebpf/blob.h"
#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {

class Arena {
 public:
  // `segments`: the map that holds them; borrowed.
  explicit Arena(int segments, std::uint32_t most = TL_SEGMENTS) : segments_(segments), most_(most) {}
  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  // `most`: segments there may be. Alignment 128. Errors: InvalidArgument, more than that, or an object that is larger
  // than one; Refused, no memory.
  Result<std::uint32_t> put(const Blob& blob);
  void free(std::uint32_t reference);
  // The whole segment that holds what was put; borrowed, as long as the arena lives.
  std::span<std::uint8_t> segment_of(std::uint32_t reference) const;
  std::uint64_t used() const;  // bytes
  std::size_t segments() const { return mapped_.size(); }

 private:
  struct Unmap {
    void operator()(std::uint8_t* bytes) const noexcept;
  };
  struct Segment {
    Fd map;
    std::unique_ptr<std::uint8_t, Unmap> bytes;
    std::map<std::uint32_t, std::uint32_t> free;  // offset -> length, never touching each other
  };
  Result<void> add_segment();

  int segments_;
  std::uint32_t most_;
  std::vector<Segment> mapped_;
  std::map<std::uint32_t, std::uint32_t> lengths_;  // of what was put, by reference
};

}  // namespace tierlog::dataplane::ebpf
