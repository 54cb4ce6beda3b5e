#include "dataplane/ebpf/arena.h"

#include <bpf/bpf.h>
#include <sys/mman.h>

#include <cerrno>
#include <iterator>
#include <utility>

#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {
namespace {
constexpr std::uint32_t kAlignment = 128;
}

void Arena::Unmap::operator()(std::uint8_t* bytes) const noexcept {
  ::munmap(bytes, TL_SEGMENT_SIZE);
}

Result<void> Arena::add_segment() {
  const auto index = static_cast<std::uint32_t>(mapped_.size());
  if (index >= most_)
    return fail(ErrorCode::InvalidArgument, "classes and addresses need another segment of 4 MiB beside " +
                                                std::to_string(index) + "; " + std::to_string(most_) +
                                                " are the limit (ebpf.max_segments)");
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  Segment segment;
  segment.map = Fd(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "segment", 4, TL_SEGMENT_SIZE, 1, &options));
  if (!segment.map) return fail(Error::from_errno(errno, "make a BPF map", "segment"));
  void* bytes = ::mmap(nullptr, TL_SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, segment.map.get(), 0);
  if (bytes == MAP_FAILED) return fail(Error::from_errno(errno, "map a BPF map's memory", "segment"));
  segment.bytes.reset(static_cast<std::uint8_t*>(bytes));
  const int fd = segment.map.get();
  if (::bpf_map_update_elem(segments_, &index, &fd, BPF_ANY) != 0)
    return fail(Error::from_errno(errno, "add to BPF map", "segments"));
  segment.free.emplace(TL_FIRST_OFFSET, TL_SEGMENT_SIZE - TL_FIRST_OFFSET);
  mapped_.push_back(std::move(segment));
  return {};
}

Result<std::uint32_t> Arena::put(const Blob& blob) {
  const std::uint32_t length = (blob.size() + kAlignment - 1) / kAlignment * kAlignment;
  if (length > TL_SEGMENT_SIZE - TL_FIRST_OFFSET)
    return fail(ErrorCode::InvalidArgument, "one object needs " + std::to_string(length) + " bytes; " +
                                                std::to_string(TL_SEGMENT_SIZE - TL_FIRST_OFFSET) + " are the limit");
  for (std::uint32_t index = 0;; ++index) {
    if (index == mapped_.size()) TL_TRY(add_segment());
    Segment& segment = mapped_[index];
    for (auto room = segment.free.begin(); room != segment.free.end(); ++room) {
      if (room->second < length) continue;
      const auto [offset, size] = *room;
      segment.free.erase(room);
      if (size > length) segment.free.emplace(offset + length, size - length);
      const std::uint32_t reference = index << TL_SEGMENT_BITS | offset;
      blob.place(segment.bytes.get() + offset, offset);
      lengths_[reference] = length;
      return reference;
    }
  }
}

std::span<std::uint8_t> Arena::segment_of(std::uint32_t reference) const {
  return {mapped_[reference >> TL_SEGMENT_BITS].bytes.get(), TL_SEGMENT_SIZE};
}

void Arena::free(std::uint32_t reference) {
  const auto known = lengths_.find(reference);
  if (known == lengths_.end()) return;
  auto& free = mapped_[reference >> TL_SEGMENT_BITS].free;
  auto room = free.emplace(reference & (TL_SEGMENT_SIZE - 1), known->second).first;
  lengths_.erase(known);
  if (const auto next = std::next(room); next != free.end() && room->first + room->second == next->first) {
    room->second += next->second;
    free.erase(next);
  }
  if (room == free.begin()) return;
  if (const auto before = std::prev(room); before->first + before->second == room->first) {
    before->second += room->second;
    free.erase(room);
  }
}

std::uint64_t Arena::used() const {
  std::uint64_t bytes = 0;
  for (const auto& [reference, length] : lengths_) bytes += length;
  return bytes;
}

}  // namespace tierlog::dataplane::ebpf
