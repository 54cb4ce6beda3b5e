#include "store/packed_sums.h"

namespace tierlog::store {
namespace {

constexpr unsigned kBitsEach = 7;
constexpr unsigned char kMore = 0x80;

std::uint64_t difference(std::int64_t a, std::int64_t b) {
  return static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b);
}
std::int64_t sum(std::int64_t a, std::uint64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + b);
}

// Small numbers of either sign as small numbers.
std::uint64_t fold_sign(std::uint64_t value) {
  return value << 1 ^ (0 - (value >> 63));
}
std::uint64_t unfold_sign(std::uint64_t value) {
  return value >> 1 ^ (0 - (value & 1));
}

}  // namespace

void SumPacker::put(std::uint64_t value) {
  for (; value >= kMore; value >>= kBitsEach) bytes_ += static_cast<char>(value | kMore);
  bytes_ += static_cast<char>(value);
}

void SumPacker::add(const KeySums& entry) {
  put(difference(entry.peer, peer_));
  put(fold_sign(difference(entry.rule, rule_)));
  for (const std::int64_t value : entry.sums) put(static_cast<std::uint64_t>(value));
  put(fold_sign(difference(entry.last_ns, bucket_ns_)));
  put(fold_sign(difference(entry.last_ns, entry.first_ns)));
  peer_ = entry.peer;
  rule_ = entry.rule;
}

PackedSums::PackedSums(std::string_view bytes, std::int64_t bucket_ns)
    : at_(reinterpret_cast<const unsigned char*>(bytes.data())), end_(at_ + bytes.size()), bucket_ns_(bucket_ns) {}

bool PackedSums::get(std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; at_ != end_ && shift < 64; shift += kBitsEach) {
    const unsigned char byte = *at_++;
    value |= static_cast<std::uint64_t>(byte & (kMore - 1)) << shift;
    if (byte < kMore) return true;
  }
  return false;
}

Result<bool> PackedSums::next(KeySums& entry) {
  if (at_ == end_) return false;
  std::uint64_t peer = 0, rule = 0, last = 0, span = 0;
  bool whole = get(peer) && get(rule);
  for (std::int64_t& value : entry.sums) {
    std::uint64_t read = 0;
    whole = whole && get(read);
    value = static_cast<std::int64_t>(read);
  }
  if (!whole || !get(last) || !get(span))
    return fail(ErrorCode::Corrupt, "flow index: sums of a bucket end in the middle of an entry");
  entry.peer = peer_ = sum(peer_, peer);
  entry.rule = rule_ = sum(rule_, unfold_sign(rule));
  entry.last_ns = sum(bucket_ns_, unfold_sign(last));
  entry.first_ns = sum(entry.last_ns, 0 - unfold_sign(span));
  return true;
}

}  // namespace tierlog::store
