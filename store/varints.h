// store/varints.h - numbers as bytes of a column: seven bits a byte, the lowest first, the eighth bit says
// that more follow.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tierlog::store {

inline constexpr unsigned kVarintBits = 7;
inline constexpr unsigned char kVarintMore = 1 << kVarintBits;

inline void put_varint(std::string& into, std::uint64_t value) {
  for (; value >= kVarintMore; value >>= kVarintBits) into += static_cast<char>(value | kVarintMore);
  into += static_cast<char>(value);
}

// Small numbers of either sign as small numbers.
constexpr std::uint64_t fold_sign(std::uint64_t value) {
  return value << 1 ^ (0 - (value >> 63));
}
constexpr std::uint64_t unfold_sign(std::uint64_t value) {
  return value >> 1 ^ (0 - (value & 1));
}

// Reads what was put, in the same order. `bytes` is borrowed.
class VarintReader {
 public:
  explicit VarintReader(std::string_view bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}
  bool at_end() const { return at_ == end_; }
  const char* position() const { return at_; }
  // False: the bytes end before the number does.
  bool get(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; at_ != end_ && shift < 64; shift += kVarintBits) {
      const auto byte = static_cast<unsigned char>(*at_++);
      value |= static_cast<std::uint64_t>(byte & (kVarintMore - 1)) << shift;
      if (byte < kVarintMore) return true;
    }
    return false;
  }
  // False: there are fewer bytes.
  bool get_bytes(std::size_t size, std::string_view& bytes) {
    if (static_cast<std::size_t>(end_ - at_) < size) return false;
    bytes = {at_, size};
    at_ += size;
    return true;
  }

 private:
  const char* at_;
  const char* end_;
};

}  // namespace tierlog::store
