// The past in spans: where an address changes its owner a new one begins, where pods merely come and go not.
#include "query/epochs.h"

#include <gtest/gtest.h>

#include "tests/query/node.h"

namespace tierlog::query {
namespace {

using testing_node::pod;
namespace sample = store::sample;

struct Life {
  const char* name;
  const char* address;
  int from;
  int until;  // 0: still there
  const char* role = "x";
};

std::vector<store::ObjectVersion> versions(const std::vector<Life>& lives) {
  std::vector<store::ObjectVersion> all;
  for (const Life& life : lives) {
    policy::Cluster one;
    one.endpoints = {pod("ns", life.name, life.address, {{"role", life.role}})};
    store::ObjectVersion version = store::objects_of(one).front();
    version.since = sample::at(life.from);
    if (life.until > 0) version.until = sample::at(life.until);
    all.push_back(std::move(version));
  }
  return all;
}

struct EpochCase {
  const char* name;
  std::vector<Life> lives;
  std::vector<int> begins;
};

class Epochs : public testing::TestWithParam<EpochCase> {};

TEST_P(Epochs, BeginWhereAnAddressMeansSomethingElse) {
  const auto epochs = cut_epochs(versions(GetParam().lives));
  ASSERT_TRUE(epochs);
  std::vector<int> begins;
  for (const Epoch& epoch : *epochs)
    begins.push_back(static_cast<int>((to_ns(epoch.from) - to_ns(sample::at(0))) / 1'000'000'000));
  EXPECT_EQ(begins, GetParam().begins);
}

INSTANTIATE_TEST_SUITE_P(
    All, Epochs,
    testing::Values(EpochCase{"none", {}, {}}, EpochCase{"one", {{"a", "10.0.0.1", 5, 0}}, {5}},
                    EpochCase{"come_and_go", {{"a", "10.0.0.1", 5, 20}, {"b", "10.0.0.2", 10, 30}}, {5}},
                    EpochCase{"reused", {{"a", "10.0.0.1", 5, 20}, {"b", "10.0.0.1", 20, 0}}, {5, 20}},
                    EpochCase{"reused_later", {{"a", "10.0.0.1", 5, 20}, {"b", "10.0.0.1", 25, 0}}, {5, 25}},
                    EpochCase{
                        "relabelled", {{"a", "10.0.0.1", 5, 20}, {"a", "10.0.0.1", 20, 0, "y"}}, {5, 20}},
                    EpochCase{"the_same_again", {{"a", "10.0.0.1", 5, 20}, {"a", "10.0.0.1", 25, 0}}, {5}},
                    EpochCase{"new_address", {{"a", "10.0.0.1", 5, 20}, {"a", "10.0.0.2", 25, 0}}, {5}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(EpochAt, AnEpochEndsWhereTheNextBegins) {
  const auto epochs = cut_epochs(versions({{"a", "10.0.0.1", 5, 20}, {"b", "10.0.0.1", 20, 0}}));
  EXPECT_EQ(epoch_at(*epochs, sample::at(4)), std::nullopt);
  EXPECT_EQ(epoch_at(*epochs, sample::at(5)), 0u);
  EXPECT_EQ(epoch_at(*epochs, sample::at(19)), 0u);
  EXPECT_EQ(epoch_at(*epochs, sample::at(20)), 1u);
}

}  // namespace
}  // namespace tierlog::query
