#include "store/packed_sums.h"

namespace tierlog::store {
namespace {

std::uint64_t difference(std::int64_t a, std::int64_t b) {
  return static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b);
}
std::int64_t sum(std::int64_t a, std::uint64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + b);
}

}  // namespace

void SumPacker::add(const KeySums& entry) {
  put_varint(bytes_, difference(entry.peer, peer_));
  put_varint(bytes_, fold_sign(difference(entry.rule, rule_)));
  for (const std::int64_t value : entry.sums) put_varint(bytes_, static_cast<std::uint64_t>(value));
  put_varint(bytes_, fold_sign(difference(entry.last_ns, bucket_ns_)));
  put_varint(bytes_, fold_sign(difference(entry.last_ns, entry.first_ns)));
  peer_ = entry.peer;
  rule_ = entry.rule;
}

PackedSums::PackedSums(std::string_view bytes, std::int64_t bucket_ns)
    : bytes_(bytes), bucket_ns_(bucket_ns) {}

Result<bool> PackedSums::next(KeySums& entry) {
  if (bytes_.at_end()) return false;
  std::uint64_t peer = 0, rule = 0, last = 0, span = 0;
  bool whole = bytes_.get(peer) && bytes_.get(rule);
  for (std::int64_t& value : entry.sums) {
    std::uint64_t read = 0;
    whole = whole && bytes_.get(read);
    value = static_cast<std::int64_t>(read);
  }
  if (!whole || !bytes_.get(last) || !bytes_.get(span))
    return fail(ErrorCode::Corrupt, "flow index: sums of a bucket end in the middle of an entry");
  entry.peer = peer_ = sum(peer_, peer);
  entry.rule = rule_ = sum(rule_, unfold_sign(rule));
  entry.last_ns = sum(bucket_ns_, unfold_sign(last));
  entry.first_ns = sum(entry.last_ns, 0 - unfold_sign(span));
  return true;
}

}  // namespace tierlog::store
