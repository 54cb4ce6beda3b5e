// The books: what is certain is declared once, under its cause, and never more than is missing.
#include "logger/books.h"

#include <gtest/gtest.h>

#include <random>

namespace tierlog::logger {
namespace {

constexpr RuleId kRule{0x100};

RuleBalance balance(std::uint64_t kernel, std::uint64_t recorded, std::uint64_t waiting = 0,
                    bool allows = false) {
  return {kRule, allows, kernel, recorded, waiting, 0};
}

class BooksTest : public ::testing::Test {
 protected:
  void read(const RuleBalance& one, const LossEvidence& evidence = {}) {
    books_.declare({&one, 1}, evidence);
  }
  Books books_;
};

TEST_F(BooksTest, WhatBalancesIsNotDeclared) {
  for (int i = 0; i < 3; ++i) read(balance(10, 7, 3));
  EXPECT_TRUE(books_.losses().empty());
}

TEST_F(BooksTest, ARemainderIsDeclaredWhenItStands) {
  read(balance(10, 7));
  EXPECT_EQ(books_.declared(kRule), 0u) << "seen once";
  read(balance(15, 13));
  EXPECT_EQ(books_.declared(kRule), 2u) << "the smaller of both";
  read(balance(15, 13));
  EXPECT_EQ(books_.declared(kRule), 2u) << "and once only";
  EXPECT_EQ(books_.declared(LossCause::Unknown), 2u);
}

TEST_F(BooksTest, WhatWasOnlyLateIsNeverDeclared) {
  read(balance(10, 4));
  read(balance(20, 20));
  read(balance(30, 22));
  read(balance(30, 30));
  EXPECT_TRUE(books_.losses().empty());
}

TEST_F(BooksTest, TooManyRecordsAreNoNegativeLoss) {
  read(balance(10, 12));
  read(balance(10, 12));
  EXPECT_EQ(books_.declared(kRule), 0u);
}

struct Cause {
  const char* name;
  bool allows;
  LossEvidence evidence;
  LossCause expected;
};
class CauseTest : public BooksTest, public ::testing::WithParamInterface<Cause> {};

TEST_P(CauseTest, IsWhatWasSeenGoingWrong) {
  read(balance(10, 9, 0, GetParam().allows));
  read(balance(10, 9, 0, GetParam().allows), GetParam().evidence);
  EXPECT_EQ(books_.declared(GetParam().expected), 1u);
}
INSTANTIATE_TEST_SUITE_P(Table, CauseTest,
                         ::testing::Values(Cause{"allow_gap", true, {5, 0, 0}, LossCause::NflogLoss},
                                           Cause{"deny_gap", false, {5, 0, 0}, LossCause::Unknown},
                                           Cause{"deny_overflow", false, {0, 5, 0}, LossCause::DenySetFull},
                                           Cause{
                                               "egress_of_overflow", true, {0, 5, 0}, LossCause::DenySetFull},
                                           Cause{"allow_both", true, {1, 5, 0}, LossCause::NflogLoss},
                                           Cause{"unasked_answers", true, {0, 0, 5}, LossCause::Stateless},
                                           Cause{"deny_stateless", false, {0, 0, 5}, LossCause::Unknown},
                                           Cause{"nothing_seen", true, {0, 0, 0}, LossCause::Unknown}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(BooksTest, OldEvidenceIsNone) {
  read(balance(0, 0), {5, 0, 0});
  for (int i = 0; i < 4; ++i) read(balance(0, 0), {5, 0, 0});
  read(balance(10, 9, 0, true), {5, 0, 0});
  read(balance(10, 9, 0, true), {5, 0, 0});
  EXPECT_EQ(books_.declared(LossCause::Unknown), 1u);
}

TEST(Books, TheStartDeclaresWhatPassedWhileNobodyRan) {
  Books books;
  const store::LossCount before[] = {
      {"not-running", kRule, 5}, {"unknown", kRule, 2}, {"nflog-gap", RuleId::None, 99}};
  books.resume(before);
  EXPECT_EQ(books.declared(kRule), 7u);
  const RuleBalance one = balance(20, 10, 1);
  books.declare_not_running({&one, 1});
  EXPECT_EQ(books.declared(kRule), 9u);
  EXPECT_EQ(books.declared(LossCause::NotRunning), 7u);
  EXPECT_EQ(books.losses().size(), 2u) << "causes of others are theirs";
}

TEST(Books, WhatTheStartCouldNotSeeTurnsUpUnderItsCause) {
  Books books;
  RuleBalance one = balance(20, 18);  // 5 missing, 3 of the records are younger than the counter
  one.recent = 3;
  books.declare_not_running({&one, 1});
  EXPECT_EQ(books.declared(LossCause::NotRunning), 2u);
  for (int i = 0; i < 2; ++i) {
    one = balance(24, 18);
    books.declare({&one, 1}, {});
  }
  EXPECT_EQ(books.declared(LossCause::NotRunning), 5u);
  EXPECT_EQ(books.declared(LossCause::Unknown), 1u);
}

// Whatever comes in whatever order: declared only grows, and never beyond what is missing.
TEST(Books, DeclaredGrowsAndIsNeverMoreThanWhatIsMissing) {
  std::mt19937 random(7);
  for (int run = 0; run < 200; ++run) {
    Books books;
    std::uint64_t kernel = 0, lost = 0, late = 0, declared = 0;
    for (int i = 0; i < 50; ++i) {
      kernel += random() % 10;
      if (random() % 4 == 0) {
        kernel += 3;
        lost += 3;
      }
      late = random() % 3 == 0 ? 0 : std::min<std::uint64_t>(kernel - lost, random() % 5);
      // Late packets are told as waiting; records may be ahead of the counters.
      const std::uint64_t ahead = random() % 3;
      const RuleBalance one = balance(kernel, kernel - lost - late + ahead, late);
      books.declare({&one, 1}, {});
      ASSERT_GE(books.declared(kRule), declared);
      declared = books.declared(kRule);
      ASSERT_LE(declared, lost);
    }
  }
}

}  // namespace
}  // namespace tierlog::logger
