// Durations and points in time as people write them.
#include "base/time.h"

#include <gtest/gtest.h>

namespace tierlog {
namespace {

using namespace std::chrono_literals;

struct Written {
  const char* text;
  std::optional<Nanoseconds> duration;
};

TEST(Durations, AreReadAsPeopleWriteThem) {
  const std::vector<Written> cases{
      {"90s", 90s},
      {"15m", 15min},
      {"2h", 2h},
      {"7d", 7 * 24h},
      {"2w", 14 * 24h},
      {"200ms", 200ms},
      {"1h30m", 90min},
      {"1.5h", 90min},
      {"0.25d", 6h},
      {"1.5h30m", 2h},
      {"0.000000001s", 1ns},
      {"1.000000001s", 1s + 1ns},
      {"0s", 0s},
      {"", std::nullopt},
      {"5", std::nullopt},
      {"1.h", std::nullopt},
      {".5h", std::nullopt},
      {"1.5", std::nullopt},
      {"1..5h", std::nullopt},
      {"1,5h", std::nullopt},
      {"-5m", std::nullopt},
      {"1.-5m", std::nullopt},
      {"5 m", std::nullopt},
      {"5y", std::nullopt},
      {"1.0000000001s", std::nullopt},
      {"99999999999999d", std::nullopt},
  };
  for (const Written& one : cases) EXPECT_EQ(parse_duration(one.text), one.duration) << one.text;
}

}  // namespace
}  // namespace tierlog
