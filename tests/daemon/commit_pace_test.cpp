// When records that wait are given to the store.
#include "daemon/commit_pace.h"

#include <gtest/gtest.h>

namespace tierlog::daemon {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kFew = 3, kMany = CommitPace::kManyRecords;

TEST(CommitPace, FewAreGivenSoon) {
  CommitPace pace;
  EXPECT_FALSE(pace.due(1s, false, 0));
  EXPECT_FALSE(pace.look_at(0));
  EXPECT_FALSE(pace.due(1s, true, kFew));
  EXPECT_EQ(pace.look_at(kFew), 1s + CommitPace::kFew);
  EXPECT_FALSE(pace.due(1s + CommitPace::kFew - 1ns, true, kFew));
  EXPECT_TRUE(pace.due(1s + CommitPace::kFew, true, kFew));
  EXPECT_FALSE(pace.look_at(kFew)) << "given";
}

TEST(CommitPace, ManyWaitForMoreButNotLong) {
  CommitPace pace;
  EXPECT_FALSE(pace.due(1s, true, kFew));
  EXPECT_FALSE(pace.due(1s + CommitPace::kFew, true, kMany)) << "became many meanwhile";
  EXPECT_EQ(pace.look_at(kMany), 1s + CommitPace::kMany);
  EXPECT_TRUE(pace.due(1s + CommitPace::kMany, true, kMany));
  EXPECT_FALSE(pace.due(1s + CommitPace::kMany, true, kMany)) << "the next ones wait from now on";
  EXPECT_TRUE(pace.due(1s + 2 * CommitPace::kMany, true, kMany));
}

TEST(CommitPace, WhatWaitsNoMoreIsForgotten) {
  CommitPace pace;
  EXPECT_FALSE(pace.due(1s, true, kFew));
  EXPECT_FALSE(pace.due(2s, false, 0)) << "somebody gave it";
  EXPECT_FALSE(pace.due(3s, true, kFew)) << "another one, which waits its time";
  EXPECT_TRUE(pace.due(3s + CommitPace::kFew, true, kFew));
}

}  // namespace
}  // namespace tierlog::daemon
