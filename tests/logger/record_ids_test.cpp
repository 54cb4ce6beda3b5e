#include "logger/record_ids.h"

#include <gtest/gtest.h>

#include <set>

namespace tierlog::logger {
namespace {

TEST(RecordIds, AreVersion7AndSortByTimeEvenInsideOneMillisecond) {
  RecordIds ids;
  const WallTime now = from_ns(1'700'000'000'123'000'000);
  std::string last;
  std::set<std::string> seen;
  for (int i = 0; i < 10'000; ++i) {  // more than the counter holds
    const std::string id = ids.next(now);
    ASSERT_EQ(id.size(), 36u);
    EXPECT_EQ(id[14], '7');
    EXPECT_NE(std::string("89ab").find(id[19]), std::string::npos);
    EXPECT_LT(last.substr(0, 18), id.substr(0, 18)) << "at " << i;
    EXPECT_TRUE(seen.insert(id).second);
    last = id;
  }
  EXPECT_EQ(last.substr(0, 8), "018bcfe5");
}

TEST(RecordIds, StayInOrderWhenTheClockGoesBack) {
  RecordIds ids;
  const std::string later = ids.next(from_ns(2'000'000'000'000'000'000));
  const std::string earlier = ids.next(from_ns(1'000'000'000'000'000'000));
  EXPECT_LT(later, earlier);
}

}  // namespace
}  // namespace tierlog::logger
