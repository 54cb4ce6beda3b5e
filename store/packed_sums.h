// store/packed_sums.h - the sums of many keys as the bytes of one column: what a bucket of a roll-up holds.
//
//   store/rollups.h --[SumPacker]--> column `sums` of sums_by_… --[PackedSums]--> store/rollup_query.h
//
// An entry is eleven numbers of seven bits a byte, the differences to the entry before it where that makes them small: some
// 25 bytes. To read one takes a tenth of what SQLite needs to step over a row of as many columns.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "store/varints.h"

namespace tierlog::store {

// records, connections, verdict_packets, packets_out, packets_in, bytes_out, bytes_in, in this order. Nulls count as 0, but
// for packets_out of a denied record: those that were denied.
inline constexpr std::size_t kRollupSums = 7;
using RollupSums = std::array<std::int64_t, kRollupSums>;

struct KeySums {
  std::int64_t peer = 0, rule = 0;  // of table peer (0: sums by rule) and of table rule_revision
  RollupSums sums{};
  std::int64_t first_ns = 0, last_ns = 0;  // earliest start, latest end
};

// Entries must come by ascending peer and rule.
class SumPacker {
 public:
  explicit SumPacker(std::int64_t bucket_ns) : bucket_ns_(bucket_ns) {}
  void add(const KeySums& entry);
  const std::string& bytes() const { return bytes_; }

 private:
  std::int64_t bucket_ns_;
  std::int64_t peer_ = 0, rule_ = 0;
  std::string bytes_;
};

class PackedSums {
 public:
  // `bytes` is borrowed; `bucket_ns`: where the bucket begins.
  PackedSums(std::string_view bytes, std::int64_t bucket_ns);
  // False behind the last entry. Errors: Corrupt.
  Result<bool> next(KeySums& entry);

 private:
  VarintReader bytes_;
  std::int64_t bucket_ns_;
  std::int64_t peer_ = 0, rule_ = 0;
};

}  // namespace tierlog::store
