// dataplane/ebpf/blob.h - an object of the arena before it has a place there.
//
// Offsets in it begin at 0 and are noted; when it is placed, each is moved by where the object lies. So equal
// objects have equal bytes wherever they are.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace tierlog::dataplane::ebpf {

class Blob {
 public:
  std::uint32_t size() const { return static_cast<std::uint32_t>(bytes_.size()); }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

  // Room for `length` zero bytes; the offset where it begins.
  std::uint32_t make_room(std::size_t length, std::size_t alignment = 8) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    const std::uint32_t at = size();
    bytes_.resize(bytes_.size() + length);
    return at;
  }
  template <typename T>
  std::uint32_t append(const T& value) {
    const std::uint32_t at = make_room(sizeof value);
    put(at, value);
    return at;
  }
  template <typename T>
  void put(std::uint32_t at, const T& value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  template <typename T>
  T get(std::uint32_t at) const {
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  // The word at `at` is an offset of this object. `flag`: a bit that stays as it is.
  void put_offset(std::uint32_t at, std::uint32_t offset, std::uint32_t flag = 0) {
    put(at, offset | flag);
    offsets_.push_back(at);
  }

  // As it must be in a segment, from `base` on. `into` has size() bytes.
  void place(std::uint8_t* into, std::uint32_t base) const {
    std::memcpy(into, bytes_.data(), bytes_.size());
    for (const std::uint32_t at : offsets_) {
      const std::uint32_t value = get<std::uint32_t>(at) + base;
      std::memcpy(into + at, &value, sizeof value);
    }
  }

 private:
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint32_t> offsets_;
};

}  // namespace tierlog::dataplane::ebpf
