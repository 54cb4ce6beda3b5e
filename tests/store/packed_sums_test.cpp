// Sums of a bucket as bytes: what goes in comes out, whatever the numbers are.
#include "store/packed_sums.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <tuple>
#include <vector>

namespace tierlog::store {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

auto told(const KeySums& entry) {
  return std::tuple(entry.peer, entry.rule, entry.sums, entry.first_ns, entry.last_ns);
}

std::string pack(const std::vector<KeySums>& entries, std::int64_t bucket_ns) {
  SumPacker packer(bucket_ns);
  for (const KeySums& entry : entries) packer.add(entry);
  return packer.bytes();
}

void expect_same(const std::vector<KeySums>& entries, std::int64_t bucket_ns) {
  const std::string bytes = pack(entries, bucket_ns);
  PackedSums packed(bytes, bucket_ns);
  KeySums read;
  for (const KeySums& entry : entries) {
    const auto more = packed.next(read);
    ASSERT_TRUE(more && *more);
    EXPECT_EQ(told(read), told(entry));
  }
  const auto more = packed.next(read);
  ASSERT_TRUE(more) << more.error().message;
  EXPECT_FALSE(*more);
}

// Of any size, small ones most often.
std::int64_t any_number(std::mt19937_64& random) {
  return static_cast<std::int64_t>(random() >> (random() % 64));
}

TEST(PackedSums, AnyNumbersComeBack) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<KeySums> entries(random() % 20);
    for (KeySums& entry : entries) {
      entry.peer = any_number(random);
      entry.rule = any_number(random);
      for (std::int64_t& sum : entry.sums) sum = any_number(random);
      entry.first_ns = any_number(random);
      entry.last_ns = any_number(random);
    }
    expect_same(entries, any_number(random));
  }
}

TEST(PackedSums, TheLargestAndSmallestComeBack) {
  for (const std::int64_t value : {kMost, kLeast, std::int64_t{0}, std::int64_t{-1}, std::int64_t{127}, std::int64_t{128}})
    for (const std::int64_t other : {kMost, kLeast, std::int64_t{0}}) {
      KeySums entry{value, other, {}, value, other};
      entry.sums.fill(value);
      expect_same({entry, {other, value, {}, other, value}}, other);
    }
}

// The usual sums of a minute take few bytes: nothing of the time's date is in them.
TEST(PackedSums, UsualOnesAreSmall) {
  const std::int64_t minute = 1'795'000'020'000'000'000;
  std::vector<KeySums> entries;
  for (std::int64_t peer = 300; peer < 400; ++peer)
    entries.push_back({peer, 40, {5, 3, 5, 120, 100, 7200, 90'000}, minute + 2'000'000'000, minute + 50'000'000'000});
  EXPECT_LE(pack(entries, minute).size(), 26 * entries.size());
}

TEST(PackedSums, EndsInTheMiddleOfAnEntry) {
  const std::string bytes = pack({{7, 300, {1, 2, 3, 4, 5, 6, 7}, 8, 9}}, 0);
  for (std::size_t length = 1; length < bytes.size(); ++length) {
    const std::string cut = bytes.substr(0, length);
    PackedSums packed(cut, 0);
    KeySums read;
    const auto more = packed.next(read);
    ASSERT_FALSE(more) << length;
    EXPECT_EQ(more.error().code, ErrorCode::Corrupt);
  }
  const std::string endless(40, '\xff');
  PackedSums packed(endless, 0);
  KeySums read;
  EXPECT_FALSE(packed.next(read));
}

}  // namespace
}  // namespace tierlog::store
