// How long an export waits between attempts.
#include "daemon/backoff.h"

#include <gtest/gtest.h>

#include <set>

namespace tierlog::daemon {
namespace {

using namespace std::chrono_literals;

TEST(Backoff, DoublesUpToTheMost) {
  Backoff backoff(1s, 60s);
  for (const auto whole : {1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s, 60s}) {
    const auto wait = backoff.next();
    EXPECT_GE(wait, std::chrono::milliseconds(whole) / 2);
    EXPECT_LE(wait, whole);
  }
}

TEST(Backoff, BeginsAnewAfterASuccess) {
  Backoff backoff(1s, 60s);
  for (int i = 0; i < 7; ++i) static_cast<void>(backoff.next());
  EXPECT_GE(backoff.next(), 30s);
  backoff.reset();
  EXPECT_LE(backoff.next(), 1s);
}

TEST(Backoff, TwoThatFailTogetherDoNotComeBackTogether) {
  std::set<std::chrono::milliseconds> waits;
  for (int i = 0; i < 20; ++i) waits.insert(Backoff(1s, 60s).next());
  EXPECT_GT(waits.size(), 5u);
}

}  // namespace
}  // namespace tierlog::daemon
